import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type {
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from '@bufbuild/protobuf';
import { type Client as Channel, status as Code, Metadata, type requestCallback } from '@grpc/grpc-js';
import { methodDefinition } from './definition.js';
import { RpcError } from './rpc-error.js';

export interface CallOptions {
  /** Cancels the call on both sides. */
  signal?: AbortSignal | undefined;
  /** The call fails with DEADLINE_EXCEEDED after this time; without it there is no deadline. */
  timeoutMs?: number | undefined;
  /** Also carries `waitForReady`: without it a call to an absent server fails at once. */
  metadata?: Metadata | undefined;
}

type Init<M extends DescMethod> = MessageInitShape<M['input']>;
type Output<M extends DescMethod> = MessageShape<M['output']>;

type ClientMethod<M extends DescMethod> = M extends DescMethodUnary
  ? (request: Init<M>, options?: CallOptions) => Promise<Output<M>>
  : M extends DescMethodServerStreaming
    ? (request: Init<M>, options?: CallOptions) => AsyncGenerator<Output<M>, void, undefined>
    : M extends DescMethodClientStreaming
      ? (requests: AsyncIterable<Init<M>>, options?: CallOptions) => Promise<Output<M>>
      : M extends DescMethodBiDiStreaming
        ? (requests: AsyncIterable<Init<M>>, options?: CallOptions) => AsyncGenerator<Output<M>, void, undefined>
        : never;

/** One function per method of the service, named as in the generated descriptor. */
export type Client<S extends DescService> = { readonly [K in keyof S['method']]: ClientMethod<S['method'][K]> };

/**
 * Builds the client of a service from its descriptor. Single responses are promises; response streams are generators
 * that start the call at the first `next()` and cancel it when the loop over them ends early.
 *
 * Calls fail with {@link RpcError}; an error thrown by a request source reaches the caller as it is.
 */
export function createClient<S extends DescService>(service: S, channel: Channel): Client<S> {
  return Object.fromEntries(service.methods.map((method) => [method.localName, bind(method, channel)])) as Client<S>;
}

// biome-ignore lint/suspicious/noExplicitAny: `Client` types what the descriptor decides here at run time.
function bind(method: DescMethod, channel: Channel): (request: any, options?: CallOptions) => unknown {
  const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
  const wire = [path, requestSerialize, responseDeserialize] as const;
  switch (method.methodKind) {
    case 'unary':
      return (request, options = {}) =>
        single(options, (done) => channel.makeUnaryRequest(...wire, request, ...settings(options), done));
    case 'client_streaming':
      return (requests, options = {}) =>
        single(options, (done) => channel.makeClientStreamRequest(...wire, ...settings(options), done), requests);
    case 'server_streaming':
      return (request, options = {}) =>
        stream(options, () => channel.makeServerStreamRequest(...wire, request, ...settings(options)));
    case 'bidi_streaming':
      return (requests, options = {}) =>
        stream(options, () => channel.makeBidiStreamRequest(...wire, ...settings(options)), requests);
  }
}

function settings({ metadata, timeoutMs }: CallOptions): [Metadata, { deadline?: number }] {
  return [metadata ?? new Metadata(), timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs }];
}

interface Call {
  cancel(): void;
}

function single<T>(
  { signal }: CallOptions,
  start: (done: requestCallback<T>) => Call,
  requests?: AsyncIterable<unknown>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    refuseIfAborted(signal);
    const call = start((error, value) => {
      release();
      if (error) reject(RpcError.from(error));
      else resolve(value as T);
    });
    const release = cancelOnAbort(signal, call);
    if (requests) send(requests, call, reject);
  });
}

async function* stream<T>(
  { signal }: CallOptions,
  start: () => Call & Readable,
  requests?: AsyncIterable<unknown>,
): AsyncGenerator<T, void, undefined> {
  refuseIfAborted(signal);
  const call = start();
  // The cancellation below is reported as an error event that nobody waits for.
  call.on('error', () => {});
  const release = cancelOnAbort(signal, call);
  const source: { error?: unknown } = {};
  if (requests) send(requests, call, (error) => Object.assign(source, { error }));
  let leftEarly = true;
  try {
    yield* call as AsyncIterable<T>;
    leftEarly = false;
  } catch (error) {
    leftEarly = false;
    throw 'error' in source ? source.error : RpcError.from(error);
  } finally {
    release();
    // grpc-js calls have no `_destroy`: a broken loop alone would leave the server working.
    if (leftEarly) call.cancel();
  }
}

/** Feeds a request stream, at the pace of the receiver. Errors of the call itself are reported by the call. */
function send(source: AsyncIterable<unknown>, call: Call, onSourceError: (error: unknown) => void): void {
  async function* watched() {
    try {
      yield* source;
    } catch (error) {
      onSourceError(error);
      throw error;
    }
  }
  pipeline(Readable.from(watched()), call as unknown as Writable).catch(() => call.cancel());
}

function refuseIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new RpcError(Code.CANCELLED, 'Cancelled before the call began');
}

function cancelOnAbort(signal: AbortSignal | undefined, call: Call): () => void {
  const cancel = () => call.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  return () => signal?.removeEventListener('abort', cancel);
}
