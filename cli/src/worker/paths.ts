import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { ExitCode, UserError } from '../errors.js';

/** A Unix socket's path ends here: `sun_path` holds 108 bytes on Linux and 104 elsewhere, with the closing zero. */
export const SOCKET_PATH_LIMIT = process.platform === 'linux' ? 107 : 103;

const DAY_MS = 24 * 3600 * 1000;

/** Where sockets and the record of the background worker live. Never a run folder: those have long paths. */
export function runtimeFolder(): string {
  const { XDG_RUNTIME_DIR } = process.env;
  // Some containers name a folder there that does not exist.
  return XDG_RUNTIME_DIR && existsSync(XDG_RUNTIME_DIR)
    ? join(XDG_RUNTIME_DIR, 'qscope')
    : join(tmpdir(), `qscope-${userInfo().uid}`);
}

export function recordFile(): string {
  return join(runtimeFolder(), 'worker.json');
}

/** The files of one worker. */
export interface WorkerFolder {
  path: string;
  socket: string;
  log: string;
}

/** Names the files of a worker to be started by this process; nothing is made yet. */
export function workerFolder({ owned }: { owned: boolean }): WorkerFolder {
  const id = Math.floor(Math.random() * 2 ** 32).toString(36);
  const path = join(runtimeFolder(), `${owned ? process.pid : 'background'}-${id}`);
  return { path, socket: join(path, 'w.sock'), log: join(path, 'worker.log') };
}

/**
 * Makes the folder, for this user's eyes only.
 *
 * @throws UserError when the socket's path is too long or the folder belongs to somebody else.
 */
export function makeWorkerFolder({ path, socket }: WorkerFolder): void {
  const length = Buffer.byteLength(socket);
  if (length > SOCKET_PATH_LIMIT) {
    throw new UserError(
      `The path of the worker's socket has ${length} bytes, the system allows ${SOCKET_PATH_LIMIT}: ${socket}`,
      {
        hint: 'Point XDG_RUNTIME_DIR at a folder with a shorter path, for example /run/user/1000.',
        exitCode: ExitCode.unreachable,
      },
    );
  }
  const parent = runtimeFolder();
  try {
    mkdirSync(parent, { recursive: true, mode: 0o700 });
    refuseForeign(parent);
    chmodSync(parent, 0o700);
    removeLeftovers(parent);
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`The folder for the worker's socket cannot be made: ${(error as Error).message}`, {
      hint: 'Point XDG_RUNTIME_DIR at a folder of yours that can be written.',
      exitCode: ExitCode.unreachable,
      cause: error,
    });
  }
}

/** The folder for temporary files is open to all: whoever made ours first could read along. */
function refuseForeign(folder: string): void {
  const { uid } = userInfo();
  const found = lstatSync(folder);
  if (found.isDirectory() && (uid < 0 || found.uid === uid)) return;
  throw new UserError(`${folder} belongs to another user or is no folder.`, {
    hint: 'Remove it, or point XDG_RUNTIME_DIR at a folder of yours.',
    exitCode: ExitCode.unreachable,
  });
}

/** Folders of owned workers whose command was killed. They are kept for a day, for their logs. */
function removeLeftovers(parent: string): void {
  for (const name of readdirSync(parent)) {
    const owner = /^(\d+)-[0-9a-z]+$/.exec(name)?.[1];
    const folder = join(parent, name);
    if (!owner || isAlive(Number(owner)) || Date.now() - statSync(folder).mtimeMs < DAY_MS) continue;
    rmSync(folder, { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
