import { create, type DescMessage, type DescMethod, type DescService, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';

// One definition serves messages of any type: what they are is known to `Client` and to the callers.
// biome-ignore lint/suspicious/noExplicitAny: see above.
export type AnyMethod = MethodDefinition<any, any>;

/** What grpc-js must know of a method, from its protobuf descriptor. Requests may be given as plain objects. */
export function methodDefinition(method: DescMethod): AnyMethod {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: encoder(method.input),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: encoder(method.output),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  };
}

/** The server side of a service, for `Server.addService`; its implementation is an object with the same method names. */
export function serviceDefinition(service: DescService): ServiceDefinition {
  return Object.fromEntries(service.methods.map((method) => [method.localName, methodDefinition(method)]));
}

function encoder(schema: DescMessage): (value: Record<string, unknown>) => Buffer {
  return (value) => {
    const bytes = toBinary(schema, create(schema, value));
    // A view: the bytes are not copied.
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}
