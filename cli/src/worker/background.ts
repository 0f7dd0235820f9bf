import { setTimeout as sleep } from 'node:timers/promises';
import { ExitCode, UserError } from '../errors.js';
import type { GetWorkerInfoResponse } from '../gen/qscope/v1/worker_pb.js';
import { connectTo, refuseOtherProtocol } from './connect.js';
import { findPython } from './python.js';
import { readRecord, removeRecord, startTime, type WorkerRecord, writeRecord } from './record.js';
import { startWorker } from './start.js';

const PATIENCE_MS = 5_000;
const CALL_MS = 2_000;

export interface BackgroundWorker {
  record: WorkerRecord;
  /** Undefined when the process lives but does not answer. */
  info: GetWorkerInfoResponse | undefined;
}

/** The background worker and what it says of itself; undefined when there is none. */
export async function backgroundWorker(): Promise<BackgroundWorker | undefined> {
  const record = readRecord();
  return record && { record, info: await ask(record) };
}

/** Starts the background worker, or finds the one that runs. */
export async function startBackground(python?: string): Promise<{ record: WorkerRecord; isNew: boolean }> {
  const known = readRecord();
  if (known) return { record: known, isNew: false };
  const started = await startWorker({ python: findPython(python), owned: false, spare: true });
  const { socket, log, path } = started.folder;
  const { pid, protocol_version } = started.ready;
  const record = { socket, log, folder: path, pid, startTime: startTime(pid) ?? '', python: started.python.path };
  try {
    refuseOtherProtocol(connectTo(socket, log), protocol_version);
  } catch (error) {
    await end(record);
    throw error;
  }
  if (writeRecord(record)) return { record, isNew: true };
  await end(record);
  const other = readRecord();
  if (other) return { record: other, isNew: false };
  throw new UserError('Another worker was started at the same moment and has ended.', {
    hint: 'Try again.',
    exitCode: ExitCode.unreachable,
  });
}

/**
 * Ends the background worker: asks, then SIGTERM, then SIGKILL. Runs started with `--detach` go on.
 *
 * @param cancelRuns also stops those, each with a checkpoint.
 * @returns its process id; undefined when there was none.
 */
export async function stopBackground({ cancelRuns }: { cancelRuns: boolean }): Promise<number | undefined> {
  const record = readRecord();
  if (!record) return undefined;
  const { channel, worker } = connectTo(record.socket, record.log);
  // One that does not answer is ended below.
  await worker.shutdown({ cancelDetached: cancelRuns }, { timeoutMs: CALL_MS }).catch(() => {});
  channel.close();
  await end(record);
  removeRecord(record);
  return record.pid;
}

async function ask(record: WorkerRecord): Promise<GetWorkerInfoResponse | undefined> {
  const { channel, worker } = connectTo(record.socket, record.log);
  try {
    return await worker.getWorkerInfo({}, { timeoutMs: CALL_MS });
  } catch {
    return undefined;
  } finally {
    channel.close();
  }
}

async function end(record: WorkerRecord): Promise<void> {
  for (const escalation of ['SIGTERM', 'SIGKILL'] as const) {
    if (await isGone(record)) return;
    try {
      process.kill(-record.pid, escalation);
    } catch {
      return; // Gone in the meantime.
    }
  }
  await isGone(record);
}

async function isGone({ pid, startTime: began }: WorkerRecord): Promise<boolean> {
  for (let waited = 0; waited < PATIENCE_MS; waited += 20) {
    if (startTime(pid) !== began) return true;
    await sleep(20);
  }
  return false;
}
