import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { ExitCode, UserError } from '../errors.js';
import { makeWorkerFolder, type WorkerFolder, workerFolder } from './paths.js';
import type { Interpreter } from './python.js';

const READY_MS = 60_000;
const PATIENCE_MS = 5_000;

/** The line a worker writes to file descriptor 3 once it serves. */
export interface ReadyLine {
  address: string;
  pid: number;
  protocol_version: string;
  version: string;
}

export interface StartOptions {
  python: Interpreter;
  /** An owned worker ends when this process does; a detached one stays until `qscope worker stop`. */
  owned: boolean;
  /** Has a job process import its libraries before there is a run for it; costs 0.4 GB of memory. */
  spare?: boolean | undefined;
  signal?: AbortSignal | undefined;
  readyMs?: number;
}

export interface StartedWorker {
  readonly ready: ReadyLine;
  readonly folder: WorkerFolder;
  readonly python: Interpreter;
  /** False once the process has ended. */
  isRunning(): boolean;
  /** Ends an owned worker: end of its input, then SIGTERM, then SIGKILL. The folder goes too, if all went well. */
  stop(): Promise<void>;
  /** Ends a worker that does nothing yet, at once. */
  kill(): Promise<void>;
}

/**
 * Starts a worker and waits until it serves.
 *
 * @throws UserError (exit code 69) with the end of its log when it ends or is silent for a minute.
 */
export async function startWorker(options: StartOptions): Promise<StartedWorker> {
  const { python, owned, spare = false, signal, readyMs = READY_MS } = options;
  const folder = workerFolder({ owned });
  makeWorkerFolder(folder);
  const log = openSync(folder.log, 'a', 0o600);
  const args = ['-m', 'qscope.worker', '--socket', folder.socket, '--ready-fd', '3'];
  if (owned) args.push('--owned');
  if (spare) args.push('--spare');
  const child = spawn(python.path, args, {
    // A session of its own: neither Ctrl-C nor the end of the terminal reaches it, the command decides.
    detached: true,
    stdio: [owned ? 'pipe' : 'ignore', log, log, 'pipe'],
    env: {
      ...process.env,
      PYTHONUNBUFFERED: '1',
      PYTHONFAULTHANDLER: '1',
      // A file named torch.py in the user's folder must not shadow the library.
      PYTHONSAFEPATH: '1',
    },
  });
  closeSync(log);
  child.stdin?.on('error', () => {}); // The worker may be gone before its input ends.
  try {
    const ready = await firstOf(child, readyMs, signal);
    child.unref();
    return {
      ready,
      folder,
      python,
      isRunning: () => isRunning(child),
      stop: () => stop(child, folder),
      kill: () => kill(child, folder),
    };
  } catch (error) {
    if (signal?.aborted) await kill(child, folder);
    else signalGroup(child, 'SIGKILL');
    throw error instanceof UserError ? error : startFailure(error, python, folder);
  }
}

/** The ready line, or the error that came first. */
async function firstOf(child: ChildProcess, readyMs: number, signal: AbortSignal | undefined): Promise<ReadyLine> {
  const pipe = child.stdio[3] as Readable;
  const lines = createInterface({ input: pipe });
  const settled = new AbortController();
  const until = { signal: settled.signal };
  const line = once(lines, 'line', until).then(([text]) => parse(text));
  const ended = once(child, 'exit', until).then(([code, name]) => {
    throw new Error(name ? `was killed by ${name}` : `ended with code ${code}`);
  });
  const silent = sleep(readyMs, undefined, until).then(() => {
    throw new Error(`was not ready after ${readyMs / 1000} s`);
  });
  const aborted = new Promise<never>((_, reject) => {
    const leave = () => reject(interrupted());
    if (signal?.aborted) leave();
    signal?.addEventListener('abort', leave, { once: true, ...until });
  });
  try {
    // `once` also rejects with the child's "error" event: the program could not be started.
    return await Promise.race([line, ended, silent, aborted]);
  } finally {
    for (const loser of [line, ended, silent]) loser.catch(() => {});
    settled.abort();
    lines.close();
    pipe.destroy();
  }
}

/** What a command that is interrupted before its work began ends with. */
export function interrupted(): UserError {
  return new UserError('Interrupted before the worker was ready.', { exitCode: ExitCode.interrupted });
}

function parse(text: string): ReadyLine {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`wrote "${text.slice(0, 80)}" instead of its ready line`);
  }
}

function startFailure(error: unknown, python: Interpreter, { log }: WorkerFolder): UserError {
  const tail = logTail(log, 20);
  const reason = (error as Error).message;
  return new UserError(`The worker did not start: ${python.path} (${python.origin}) ${reason}.`, {
    hint: [
      ...(tail.length ? [`Last lines of ${log}:`, ...tail.map((line) => `  ${line}`)] : [`Its log is empty: ${log}`]),
      'Run `qscope doctor` for a check of the installation, or `npm run setup` to install it again.',
    ].join('\n'),
    exitCode: ExitCode.unreachable,
    cause: error,
  });
}

/** The last lines of a log file; none when it cannot be read. */
export function logTail(file: string, lines: number): string[] {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').filter(Boolean).slice(-lines);
  } catch {
    return [];
  }
}

async function stop(child: ChildProcess, folder: WorkerFolder): Promise<void> {
  child.ref();
  child.stdin?.end();
  for (const escalation of ['SIGTERM', 'SIGKILL'] as const) {
    if (await ends(child)) break;
    signalGroup(child, escalation);
  }
  if (child.exitCode === 0) rmSync(folder.path, { recursive: true, force: true });
}

async function kill(child: ChildProcess, folder: WorkerFolder): Promise<void> {
  child.ref();
  signalGroup(child, 'SIGKILL');
  if (child.pid !== undefined) await ends(child);
  rmSync(folder.path, { recursive: true, force: true });
}

async function ends(child: ChildProcess): Promise<boolean> {
  if (!isRunning(child)) return true;
  const timer = new AbortController();
  const options = { signal: timer.signal };
  const exit = once(child, 'exit', options).then(() => true);
  const patience = sleep(PATIENCE_MS, false, options);
  exit.catch(() => {});
  patience.catch(() => {});
  const ended = await Promise.race([exit, patience]);
  timer.abort();
  return ended;
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}

function signalGroup(child: ChildProcess, name: NodeJS.Signals): void {
  if (child.pid === undefined || !isRunning(child)) return;
  try {
    process.kill(-child.pid, name);
  } catch {
    // Gone in the meantime.
  }
}
