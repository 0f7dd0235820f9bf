import { create, createFileRegistry, type DescService } from '@bufbuild/protobuf';
import {
  DescriptorProtoSchema,
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from '@bufbuild/protobuf/wkt';
import type { Metadata } from '@grpc/grpc-js';

export interface Item {
  count: number;
  payload: Uint8Array;
}

interface Options {
  signal?: AbortSignal;
  timeoutMs?: number;
  metadata?: Metadata;
}

/** The types that `Client` derives for generated services, by hand for the one made below. */
export interface EchoClient {
  one(request: Partial<Item>, options?: Options): Promise<Item>;
  many(request: Partial<Item>, options?: Options): AsyncGenerator<Item>;
  sum(requests: AsyncIterable<Partial<Item>>, options?: Options): Promise<Item>;
  echo(requests: AsyncIterable<Partial<Item>>, options?: Options): AsyncGenerator<Item>;
}

const field = (name: string, number: number, type: Type) => ({ name, number, type, label: Label.OPTIONAL });
const method = (name: string, clientStreaming: boolean, serverStreaming: boolean) => ({
  name,
  inputType: '.echo.Item',
  outputType: '.echo.Item',
  clientStreaming,
  serverStreaming,
});

const file = create(FileDescriptorProtoSchema, {
  name: 'echo.proto',
  package: 'echo',
  syntax: 'proto3',
  messageType: [
    create(DescriptorProtoSchema, {
      name: 'Item',
      field: [field('count', 1, Type.UINT32), field('payload', 2, Type.BYTES)],
    }),
  ],
  service: [
    {
      name: 'EchoService',
      method: [
        method('One', false, false),
        method('Many', false, true),
        method('Sum', true, false),
        method('Echo', true, true),
      ],
    },
  ],
});

/** A service with a method of each of the four kinds. */
export const EchoService: DescService = createFileRegistry(file, () => undefined).getService(
  'echo.EchoService',
) as DescService;
