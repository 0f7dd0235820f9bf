import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { recordFile, runtimeFolder } from './paths.js';

/** What `worker.json` says about the background worker. */
export interface WorkerRecord {
  socket: string;
  pid: number;
  /** When the process began, in the system's own unit; tells it from a later process with the same id. */
  startTime: string;
  python: string;
  folder: string;
  log: string;
}

/** The background worker of this user, if its process still lives. A record of a dead one is removed. */
export function readRecord(): WorkerRecord | undefined {
  let record: WorkerRecord;
  try {
    record = JSON.parse(readFileSync(recordFile(), 'utf8'));
  } catch {
    return undefined;
  }
  if (record.pid && startTime(record.pid) === record.startTime) return record;
  removeRecord(record);
  return undefined;
}

/**
 * Makes a worker the background worker, unless there is one already.
 *
 * @returns false when another one was faster.
 */
export function writeRecord(record: WorkerRecord): boolean {
  const beside = `${recordFile()}.${process.pid}`;
  writeFileSync(beside, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
  try {
    // A link, unlike a renaming, never replaces; and nobody reads half a record.
    linkSync(beside, recordFile());
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(beside);
  }
}

/** Forgets a worker that has ended, and its files. */
export function removeRecord({ folder }: WorkerRecord): void {
  rmSync(recordFile(), { force: true });
  // The folder's name comes from a file: only ever remove what this program makes.
  if (dirname(folder) === runtimeFolder()) rmSync(folder, { recursive: true, force: true });
}

/**
 * When a process began; undefined when it is gone. A zombie counts as gone: it still answers `kill -0`.
 *
 * On Linux it is field 22 of `/proc/PID/stat`, in clock ticks since the machine started. Elsewhere only "unknown" for a
 * process that lives: the worker's own answer must then tell.
 */
export function startTime(pid: number): string | undefined {
  if (process.platform !== 'linux') return answersSignal(pid) ? 'unknown' : undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // Field 2, the name, may hold spaces and brackets; field 3, the state, follows its last bracket.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function answersSignal(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
