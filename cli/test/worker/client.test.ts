import type { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import {
  type Client as Channel,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BadRequestSchema, ErrorInfoSchema } from '../../src/gen/google/rpc/error_details_pb.js';
import { StatusSchema } from '../../src/gen/google/rpc/status_pb.js';
import { openChannel } from '../../src/worker/channel.js';
import { createClient } from '../../src/worker/client.js';
import { serviceDefinition } from '../../src/worker/definition.js';
import { RpcError } from '../../src/worker/rpc-error.js';
import { type EchoClient, EchoService, type Item } from './echo.js';

let folder: string;
let address: string;
let server: Server;
let channel: Channel;
let client: EchoClient;
const seen = { sent: 0, cancelled: 0 };
const REFUSED = 404;
const NEVER = 500;

const serve = async () => {
  server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
  server.addService(serviceDefinition(EchoService), implementation);
  await new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve(null)));
  });
};

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'qscope-'));
  address = `unix:${join(folder, 's')}`;
  Object.assign(seen, { sent: 0, cancelled: 0 });
  await serve();
  channel = openChannel(join(folder, 's'));
  client = createClient(EchoService, channel) as unknown as EchoClient;
});

afterEach(() => {
  channel.close();
  server.forceShutdown();
  rmSync(folder, { recursive: true, force: true });
});

/** Counts the calls that the client gave up: grpc-js says "cancelled" at the end of every call, also of
 *  answered ones. A cancelled request stream simply ends, so `sum` and `echo` count every end. */
function watchCancel(call: EventEmitter): { answered: boolean } {
  const state = { answered: false };
  call.on('error', () => {});
  call.on('cancelled', () => {
    if (!state.answered) seen.cancelled += 1;
  });
  return state;
}

/** `one` answers with the next number, `many` counts up to it, slowly. */
const implementation = {
  one(call: ServerUnaryCall<Item, Item>, done: sendUnaryData<Partial<Item>>) {
    const state = watchCancel(call);
    if (call.request.count === NEVER) return;
    state.answered = true;
    if (call.request.count === REFUSED) done(refusal());
    else done(null, { count: call.request.count + 1, payload: call.request.payload });
  },
  async many(call: ServerWritableStream<Item, Partial<Item>>) {
    const state = watchCancel(call);
    for (let count = 1; count <= call.request.count && !call.cancelled; count++) {
      seen.sent = count;
      call.write({ count });
      await sleep(2);
    }
    state.answered = !call.cancelled;
    call.end();
  },
  sum(call: ServerReadableStream<Item, Item>, done: sendUnaryData<Partial<Item>>) {
    watchCancel(call);
    let count = 0;
    call.on('data', (item: Item) => {
      seen.sent += 1;
      count += item.count;
    });
    call.on('end', () => done(null, { count }));
  },
  echo(call: ServerDuplexStream<Item, Partial<Item>>) {
    watchCancel(call);
    call.on('data', (item: Item) => {
      seen.sent += 1;
      call.write(item);
    });
    call.on('end', () => call.end());
  },
};

function refusal() {
  const metadata = new Metadata();
  const details = [
    anyPack(
      BadRequestSchema,
      create(BadRequestSchema, {
        fieldViolations: [{ field: 'experiment.train_sae.layers[2]', description: 'the model has 6 layers' }],
      }),
    ),
    anyPack(
      ErrorInfoSchema,
      create(ErrorInfoSchema, { reason: 'LAYER_OUT_OF_RANGE', domain: 'qscope', metadata: { remedy: 'Use 0 to 5.' } }),
    ),
  ];
  const status = create(StatusSchema, { code: 3, message: 'Layer 9 does not exist', details });
  metadata.add('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)));
  return { code: 3, details: 'Layer 9 does not exist', metadata };
}

async function failure(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RpcError);
  return error as RpcError;
}

const collect = async (items: AsyncIterable<Item>) => {
  const counts: number[] = [];
  for await (const { count } of items) counts.push(count);
  return counts;
};

async function* numbers(upTo: number) {
  for (let count = 1; count <= upTo; count++) yield { count };
}

const until = (condition: () => boolean) => expect.poll(condition, { timeout: 5000, interval: 5 }).toBe(true);

describe('single responses', () => {
  test('a plain object goes out, a message comes back', async () => {
    const answer = await client.one({ count: 41, payload: new Uint8Array([1, 2, 3]) });
    expect(answer.count).toBe(42);
    expect([...answer.payload]).toEqual([1, 2, 3]);
  });

  test('5 MiB pass in both directions', async () => {
    const answer = await client.one({ payload: new Uint8Array(5 * 1024 * 1024).fill(7) });
    expect(answer.payload.length).toBe(5 * 1024 * 1024);
  });

  test('more than 64 MiB are refused', async () => {
    const error = await failure(client.one({ payload: new Uint8Array(65 * 1024 * 1024) }));
    expect(error.is('RESOURCE_EXHAUSTED')).toBe(true);
  });

  test('the deadline is kept', async () => {
    const error = await failure(client.one({ count: NEVER }, { timeoutMs: 50 }));
    expect(error.is('DEADLINE_EXCEEDED')).toBe(true);
  });

  test('an abort cancels the call on the server and leaves no listener', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    let listeners = 0;
    signal.addEventListener = new Proxy(signal.addEventListener, {
      apply: (target, self, args) => {
        listeners += 1;
        return Reflect.apply(target, self, args);
      },
    });
    signal.removeEventListener = new Proxy(signal.removeEventListener, {
      apply: (target, self, args) => {
        listeners -= 1;
        return Reflect.apply(target, self, args);
      },
    });
    await client.one({ count: 1 }, { signal });
    expect(listeners).toBe(0);
    setTimeout(() => controller.abort(), 30);
    const error = await failure(client.one({ count: NEVER }, { signal }));
    expect(error.is('CANCELLED')).toBe(true);
    expect(listeners).toBe(0);
    await until(() => seen.cancelled === 1);
  });

  test('nothing is sent once the signal is aborted', async () => {
    const signal = AbortSignal.abort();
    expect((await failure(client.one({}, { signal }))).is('CANCELLED')).toBe(true);
    expect((await failure(collect(client.many({ count: 3 }, { signal })))).is('CANCELLED')).toBe(true);
    expect(seen.sent).toBe(0);
  });

  test('error details are unpacked', async () => {
    const error = await failure(client.one({ count: REFUSED }));
    expect(error.is('INVALID_ARGUMENT')).toBe(true);
    expect(error.message).toBe('[INVALID_ARGUMENT] Layer 9 does not exist');
    expect(error.rawMessage).toBe('Layer 9 does not exist');
    expect(error.fieldViolations).toEqual([
      { field: 'experiment.train_sae.layers[2]', description: 'the model has 6 layers' },
    ]);
    expect(error.info).toEqual({ reason: 'LAYER_OUT_OF_RANGE', domain: 'qscope', metadata: { remedy: 'Use 0 to 5.' } });
  });
});

describe('response streams', () => {
  test('all messages arrive in order', async () => {
    expect(await collect(client.many({ count: 5 }))).toEqual([1, 2, 3, 4, 5]);
    expect(seen.cancelled).toBe(0);
  });

  test('leaving the loop cancels the call', async () => {
    for await (const { count } of client.many({ count: 10_000 })) if (count === 3) break;
    await until(() => seen.cancelled === 1);
    expect(seen.sent).toBeLessThan(100);
  });

  test('an error thrown in the loop is not swallowed, and the call is cancelled', async () => {
    const loop = async () => {
      for await (const _ of client.many({ count: 10_000 })) throw new Error('mine');
    };
    await expect(loop()).rejects.toThrow('mine');
    await until(() => seen.cancelled === 1);
  });

  test('abort and deadline end the loop', async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 30);
    expect((await failure(collect(client.many({ count: 10_000 }, controller)))).is('CANCELLED')).toBe(true);
    const error = await failure(collect(client.many({ count: 10_000 }, { timeoutMs: 50 })));
    expect(error.is('DEADLINE_EXCEEDED')).toBe(true);
  });

  test('a server that goes away is reported, and the next call to it fails at once', async () => {
    const error = failure(collect(client.many({ count: 10_000 })));
    await until(() => seen.sent > 2);
    server.forceShutdown();
    expect((await error).is('UNAVAILABLE', 'CANCELLED')).toBe(true);
    expect((await failure(client.one({}))).is('UNAVAILABLE')).toBe(true);
  });

  test('a new server in the same place is found again', async () => {
    await client.one({});
    server.forceShutdown();
    await failure(client.one({}));
    rmSync(join(folder, 's'), { force: true });
    await serve();
    const metadata = new Metadata({ waitForReady: true });
    expect(await client.one({ count: 1 }, { metadata, timeoutMs: 5000 })).toMatchObject({ count: 2 });
  });
});

describe('request streams', () => {
  test('many to one, many to many', async () => {
    expect(await client.sum(numbers(100))).toMatchObject({ count: 5050 });
    expect(await collect(client.echo(numbers(50)))).toEqual(Array.from({ length: 50 }, (_, index) => index + 1));
  });

  test('an error of the source reaches the caller as it is and cancels the call', async () => {
    async function* broken() {
      const before = seen.sent;
      yield { count: 1 };
      await until(() => seen.sent > before);
      throw new Error('source ran dry');
    }
    await expect(client.sum(broken())).rejects.toThrow('source ran dry');
    await expect(collect(client.echo(broken()))).rejects.toThrow('source ran dry');
    await until(() => seen.cancelled === 2);
  });

  test('leaving the loop stops the source', async () => {
    let stopped = false;
    async function* endless() {
      try {
        for (let count = 1; ; count++) {
          yield { count };
          await sleep(1);
        }
      } finally {
        stopped = true;
      }
    }
    for await (const { count } of client.echo(endless())) if (count === 3) break;
    await until(() => stopped && seen.cancelled === 1);
  });
});
