import { accessSync, constants } from 'node:fs';
import { delimiter, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ExitCode, UserError } from '../errors.js';

/** Root of the package; this file lies in `cli/dist/worker` or `cli/src/worker`. */
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

export interface Interpreter {
  /** Absolute path. A link into a virtual environment is not followed: the link is the environment. */
  path: string;
  /** Who chose it, for messages. */
  origin: string;
}

/**
 * The Python that runs the worker: `--python`, else QSCOPE_PYTHON, else the virtual environment of `npm run setup`.
 *
 * @throws UserError when it does not exist or is not a program.
 */
export function findPython(option?: string): Interpreter {
  const { QSCOPE_PYTHON } = process.env;
  if (option) return checked(option, '--python');
  if (QSCOPE_PYTHON) return checked(QSCOPE_PYTHON, 'QSCOPE_PYTHON');
  const path = join(ROOT, 'backend-py', '.venv', 'bin', 'python');
  if (isProgram(path)) return { path, origin: 'npm run setup' };
  throw new UserError('The Python side of qscope is not installed yet.', {
    hint: `Run \`npm run setup\` in ${ROOT}, or name a Python that has it with --python or QSCOPE_PYTHON.`,
    exitCode: ExitCode.unreachable,
  });
}

function checked(name: string, origin: string): Interpreter {
  const candidates = name.includes('/')
    ? [resolve(name)]
    : (process.env.PATH ?? '')
        .split(delimiter)
        .filter(isAbsolute)
        .map((folder) => join(folder, name));
  const path = candidates.find(isProgram);
  if (path) return { path, origin };
  throw new UserError(`${origin} names "${name}", which is not a program.`, {
    hint: 'Give the path of a Python interpreter that has the package qscope.',
    exitCode: ExitCode.unreachable,
  });
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What `qscope doctor` shows of an interpreter. */
export interface PythonFacts {
  version: string;
  /** Version of each distribution that qscope needs; null when it is missing. */
  packages: Record<string, string | null>;
  /** Empty when torch cannot be imported. */
  devices: string[];
}

const INSPECTION = `
import json, os, platform
from importlib.metadata import PackageNotFoundError, version
def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
names = ["qscope", "torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy", "grpcio", "protobuf", "protovalidate"]
devices = []
try:
    import torch
    devices.append(f"cpu ({os.cpu_count()} cores)")
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
except Exception:
    pass
print(json.dumps({"version": platform.python_version(), "packages": {name: installed(name) for name in names}, "devices": devices}))
`;

/**
 * Asks an interpreter for its version, packages and devices. Imports torch there, which takes a second or two.
 *
 * @throws UserError when the program is not a Python.
 */
export async function inspectPython({ path, origin }: Interpreter): Promise<PythonFacts> {
  const { execa, ExecaError } = await import('execa');
  try {
    const { stdout } = await execa(path, ['-I', '-c', INSPECTION], { timeout: 60_000, stdin: 'ignore' });
    return JSON.parse(stdout);
  } catch (error) {
    const why = error instanceof ExecaError ? error.shortMessage : (error as Error).message;
    throw new UserError(`${path} (${origin}) does not work as a Python: ${why.split('\n')[0]}`, {
      hint: 'Run `npm run setup`, or name another interpreter with --python.',
      exitCode: ExitCode.unreachable,
      cause: error,
    });
  }
}
