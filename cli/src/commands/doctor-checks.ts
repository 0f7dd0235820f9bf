import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { ExitCode, UserError } from '../errors.js';
import { checkLine } from '../view/check-view.js';
import { bytes } from '../view/format.js';
import { printJson, printLine } from '../view/output.js';
import { WorkerSession } from '../worker/connect.js';
import { runtimeFolder, SOCKET_PATH_LIMIT, workerFolder } from '../worker/paths.js';
import { findPython, inspectPython } from '../worker/python.js';
import type { DoctorOptions } from './doctor.js';

/** What one check found. */
export interface Finding {
  name: string;
  ok: boolean;
  /** What was found, or what is wrong. */
  text: string;
  /** What to do; only when it is not ok. */
  remedy?: string;
}

const OLDEST_NODE = [20, 20] as const;
const OLDEST_PYTHON = [3, 11] as const;
const LEAST_DISK = 2 * 2 ** 30;
const HANDSHAKE_MS = 5_000;

/** Checks the installation from the bottom up; exit code 1 when anything is amiss. */
export async function examine(options: DoctorOptions): Promise<void> {
  for (const check of [node, python, socketPath, disk, worker]) {
    for (const finding of await findings(check, options)) {
      if (options.json) printJson(finding);
      else printLine(checkLine(finding));
      if (!finding.ok) process.exitCode = ExitCode.failed;
    }
  }
}

type Check = (options: DoctorOptions) => Finding[] | Promise<Finding[]>;

async function findings(check: Check, options: DoctorOptions): Promise<Finding[]> {
  try {
    return await check(options);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return [failed(check.name, error.message, error.hint ?? '')];
  }
}

function node(): Finding[] {
  const { node: version } = process.versions;
  if (isAtLeast(version, OLDEST_NODE)) return [passed('node', version)];
  return [failed('node', `${version} is too old`, `Install Node ${OLDEST_NODE.join('.')} or newer.`)];
}

async function python(options: DoctorOptions): Promise<Finding[]> {
  const interpreter = findPython(options.python);
  const { version, packages, devices } = await inspectPython(interpreter);
  const name = `${version} (${interpreter.path})`;
  const list = [
    isAtLeast(version, OLDEST_PYTHON)
      ? passed('python', name)
      : failed('python', `${name} is too old`, `Use Python ${OLDEST_PYTHON.join('.')} or newer.`),
  ];
  for (const [distribution, found] of Object.entries(packages)) {
    const remedy = 'Run `npm run setup`; if that does not help, `npm run setup -- --force`.';
    list.push(found ? passed(distribution, found) : failed(distribution, 'is not installed', remedy));
  }
  list.push(
    devices.length > 0
      ? passed('devices', devices.join(', '))
      : failed('devices', 'torch cannot be imported', 'Run `npm run setup -- --force`.'),
  );
  return list;
}

function socketPath(): Finding[] {
  const { socket } = workerFolder({ owned: false });
  const length = Buffer.byteLength(socket);
  const text = `${length} of ${SOCKET_PATH_LIMIT} bytes in ${runtimeFolder()}`;
  if (length <= SOCKET_PATH_LIMIT) return [passed('socket', text)];
  return [failed('socket', text, 'Point XDG_RUNTIME_DIR at a folder with a shorter path.')];
}

async function disk({ runsDir }: DoctorOptions): Promise<Finding[]> {
  const folder = nearestExisting(resolve(runsDir));
  const { bavail, bsize } = await statfs(folder);
  const text = `${bytes(bavail * bsize)} free for ${resolve(runsDir)}`;
  if (bavail * bsize >= LEAST_DISK) return [passed('disk', text)];
  return [failed('disk', text, 'Make room, or choose another folder with --runs-dir.')];
}

async function worker({ python: path }: DoctorOptions): Promise<Finding[]> {
  const began = performance.now();
  const session = await WorkerSession.open({ python: path });
  try {
    const { packageVersion, protocolVersion } = await session.worker.getWorkerInfo({}, { timeoutMs: HANDSHAKE_MS });
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    return [passed('worker', `${packageVersion} (protocol ${protocolVersion}) answered after ${seconds} s`)];
  } finally {
    await session.close();
  }
}

function nearestExisting(folder: string): string {
  return existsSync(folder) ? folder : nearestExisting(dirname(folder));
}

function isAtLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [first = 0, second = 0] = version.split('.').map(Number);
  return first > major || (first === major && second >= minor);
}

function passed(name: string, text: string): Finding {
  return { name, ok: true, text };
}

function failed(name: string, text: string, remedy: string): Finding {
  return { name, ok: false, text, remedy };
}
