import { setTimeout as sleep } from 'node:timers/promises';
import { ExitCode, UserError } from '../errors.js';
import type { RunEvent } from '../gen/qscope/v1/run_event_pb.js';
import type { WatchRunResponse } from '../gen/qscope/v1/run_pb.js';
import type { WorkerSession } from './connect.js';
import { RpcError } from './rpc-error.js';

/** A worker sends a heartbeat after 10 s of silence; after three missing ones it counts as lost. */
const SILENCE_MS = 30_000;
const TRIES = 5;

export interface WatchOptions {
  runId: string;
  runsFolder: string;
  /** Events up to this sequence number are not wanted; 0 wants all. */
  after?: bigint;
  signal?: AbortSignal | undefined;
  silenceMs?: number;
}

/**
 * The events of a run in order, each once, until the run ends. A worker that dies is replaced and the watch goes on where
 * it stood; so the run itself is never touched.
 *
 * @throws UserError (exit code 69) when no worker stays up long enough to send anything, five times in a row.
 */
export async function* watchRun(
  session: WorkerSession,
  { runId, runsFolder, after = 0n, signal, silenceMs = SILENCE_MS }: WatchOptions,
): AsyncGenerator<RunEvent, void, undefined> {
  let afterSequence = after;
  let failures = 0;
  while (!signal?.aborted) {
    const { generation } = session;
    try {
      for await (const { events } of watchdog(
        (combined) => session.runs.watchRun({ runId, runsFolder, afterSequence }, { signal: combined }),
        silenceMs,
        signal,
      )) {
        failures = 0;
        for (const event of events) {
          if (event.sequence <= afterSequence) continue;
          afterSequence = event.sequence;
          yield event;
        }
      }
      return;
    } catch (error) {
      if (signal?.aborted) return;
      if (!(error instanceof RpcError && error.is('UNAVAILABLE', 'CANCELLED'))) throw error;
      failures += 1;
      if (failures === TRIES) throw lost(runId, error);
      await sleep(100 * (failures - 1));
      await session.replace(generation);
    }
  }
}

/** Hands the messages through and cancels the call once it has been silent for too long. */
async function* watchdog(
  open: (signal: AbortSignal) => AsyncGenerator<WatchRunResponse>,
  silenceMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<WatchRunResponse> {
  const silence = new AbortController();
  const arm = () => setTimeout(() => silence.abort(), silenceMs);
  let timer = arm();
  try {
    for await (const message of open(signal ? AbortSignal.any([signal, silence.signal]) : silence.signal)) {
      clearTimeout(timer);
      yield message;
      // Only the time spent waiting for the worker counts.
      timer = arm();
    }
  } finally {
    clearTimeout(timer);
  }
}

function lost(runId: string, cause: unknown): UserError {
  return new UserError(`The worker went away ${TRIES} times while the run ${runId} was watched.`, {
    hint: `The run itself is not harmed. Watch it again with: qscope runs watch ${runId}`,
    exitCode: ExitCode.unreachable,
    cause,
  });
}
