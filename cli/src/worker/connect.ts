import { resolve } from 'node:path';
import type { Client as Channel } from '@grpc/grpc-js';
import { ExitCode, UserError } from '../errors.js';
import { InferenceService } from '../gen/qscope/v1/inference_pb.js';
import { RunService } from '../gen/qscope/v1/run_pb.js';
import { type GetWorkerInfoResponse, WorkerService } from '../gen/qscope/v1/worker_pb.js';
import type { WorkerAhead } from './ahead.js';
import { openChannel } from './channel.js';
import { type Client, createClient } from './client.js';
import { findPython } from './python.js';
import { readRecord, type WorkerRecord } from './record.js';
import { RpcError } from './rpc-error.js';
import { interrupted, type StartedWorker, startWorker } from './start.js';

/** Major version of the contract that this program speaks. */
export const PROTOCOL_MAJOR = '1';

const HANDSHAKE_MS = 2_000;
/** How often a call is tried when workers keep dying under it. */
const TRIES = 3;

export interface ConnectOptions {
  /** Value of `--python`. A running worker of another Python is then left alone. */
  python?: string | undefined;
  /** A worker begun earlier, taken where otherwise one would be started. */
  ahead?: WorkerAhead | undefined;
  signal?: AbortSignal | undefined;
}

interface Connection {
  channel: Channel;
  log: string;
  runs: Client<typeof RunService>;
  inference: Client<typeof InferenceService>;
  worker: Client<typeof WorkerService>;
  /** Set when this process started the worker and must end it. */
  owned?: StartedWorker;
}

/** A worker to talk to, replaced by another one when it dies. */
export class WorkerSession {
  /** Grows with each replacement. */
  generation = 0;
  private replacing: Promise<void> | undefined;

  private constructor(
    private readonly options: ConnectOptions,
    private connection: Connection,
  ) {}

  /** Finds the background worker, else starts one that ends with this process. */
  static async open(options: ConnectOptions = {}): Promise<WorkerSession> {
    return new WorkerSession(options, (await attach(options)) ?? (await start(options)));
  }

  /** Finds the background worker; undefined when there is none. */
  static async find(options: ConnectOptions = {}): Promise<WorkerSession | undefined> {
    const connection = await attach(options);
    return connection && new WorkerSession(options, connection);
  }

  get runs(): Client<typeof RunService> {
    return this.connection.runs;
  }

  get inference(): Client<typeof InferenceService> {
    return this.connection.inference;
  }

  get worker(): Client<typeof WorkerService> {
    return this.connection.worker;
  }

  /** Path of the worker's log. */
  get log(): string {
    return this.connection.log;
  }

  /** Makes a call that may safely be made twice, and makes it again with a new worker when the worker has died. */
  async retry<T>(call: (session: WorkerSession) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const { generation } = this;
      try {
        return await call(this);
      } catch (error) {
        if (!(error instanceof RpcError && error.is('UNAVAILABLE')) || attempt === TRIES) throw error;
        await this.replace(generation);
      }
    }
  }

  /**
   * Finds or starts another worker in the place of one that does not answer.
   *
   * @param generation the one that failed; when it has been replaced already, nothing happens.
   */
  replace(generation: number): Promise<void> {
    if (generation !== this.generation) return Promise.resolve();
    this.replacing ??= (async () => {
      await this.close();
      this.connection = (await attach(this.options)) ?? (await start(this.options));
      this.generation += 1;
    })().finally(() => {
      this.replacing = undefined;
    });
    return this.replacing;
  }

  /** Ends the worker if it is ours. Runs that were started with `--detach` go on. */
  async close(): Promise<void> {
    this.connection.channel.close();
    await this.connection.owned?.stop();
  }
}

async function attach({ python }: ConnectOptions): Promise<Connection | undefined> {
  const record = readRecord();
  const wanted = python ?? process.env.QSCOPE_PYTHON;
  if (!record || (wanted && findPython(python).path !== record.python)) return undefined;
  const connection = connectTo(record.socket, record.log);
  const info = await connection.worker.getWorkerInfo({}, { timeoutMs: HANDSHAKE_MS }).catch(() => undefined);
  if (info?.pid !== record.pid) {
    // It lives but does not answer. Whether to end it is for `qscope worker stop` to say.
    connection.channel.close();
    return undefined;
  }
  return refuseOtherProtocol(connection, info.protocolVersion, record);
}

async function start({ python, ahead, signal }: ConnectOptions): Promise<Connection> {
  const owned = await (ahead?.take() ?? startWorker({ python: findPython(python), owned: true, signal }));
  try {
    // One that was begun ahead may have been ready before anyone asked.
    if (signal?.aborted) throw interrupted();
    const connection = connectTo(owned.folder.socket, owned.folder.log);
    return refuseOtherProtocol({ ...connection, owned }, owned.ready.protocol_version);
  } catch (error) {
    await owned.stop();
    throw error;
  }
}

/** Opens a channel to a socket; nothing is sent yet. */
export function connectTo(socket: string, log: string): Connection {
  const channel = openChannel(resolve(socket));
  return {
    channel,
    log,
    runs: createClient(RunService, channel),
    inference: createClient(InferenceService, channel),
    worker: createClient(WorkerService, channel),
  };
}

/** @throws UserError when CLI and worker are of different generations. */
export function refuseOtherProtocol<C extends { channel: Channel }>(
  connection: C,
  version: GetWorkerInfoResponse['protocolVersion'],
  background?: WorkerRecord,
): C {
  if (version.split('.')[0] === PROTOCOL_MAJOR) return connection;
  connection.channel.close();
  throw new UserError(`The worker speaks protocol ${version || 'unknown'}, this program speaks ${PROTOCOL_MAJOR}.`, {
    hint: background
      ? 'It was started by another version of qscope: run `qscope worker stop`, then try again.'
      : 'The two halves of the installation differ: run `npm run setup`.',
    exitCode: ExitCode.unreachable,
  });
}
