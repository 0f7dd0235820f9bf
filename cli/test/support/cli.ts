import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
export const FAKE_WORKER = join(ROOT, 'cli/test/support/fake-worker.mjs');
export const EXPERIMENT = join(ROOT, 'configs/embedded/quickstart.yaml');

export interface Result {
  stdout: string;
  stderr: string;
  code: number | null;
}

export interface RunningCli {
  child: ChildProcess;
  /** Resolves once the pattern stands in what was written so far. */
  saw(pattern: RegExp): Promise<void>;
  ended: Promise<Result>;
}

/** A temporary home for runs and sockets, and the command line inside it as a subprocess. */
export class Sandbox {
  readonly folder = mkdtempSync(join(tmpdir(), 'qs-'));
  readonly runs = join(this.folder, 'runs');

  /** `under` is a command that runs the command line, as in `prlimit --fsize=1`. */
  start(args: readonly string[], env: NodeJS.ProcessEnv = {}, under: readonly string[] = []): RunningCli {
    const [command, ...rest] = [...under, process.execPath, join(ROOT, 'cli/bin/qscope.js'), ...args];
    const child = spawn(command as string, rest, {
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env.PATH,
        HOME: this.folder,
        XDG_RUNTIME_DIR: this.folder,
        QSCOPE_RUNS: this.runs,
        QSCOPE_PYTHON: FAKE_WORKER,
        ...env,
      },
    });
    const written = { stdout: '', stderr: '' };
    const watchers = new Set<() => void>();
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        written[name] += text;
        for (const look of watchers) look();
      });
    }
    const ended = new Promise<Result>((resolve) => {
      child.on('close', (code) => resolve({ ...written, code }));
    });
    const saw = (pattern: RegExp) =>
      new Promise<void>((resolve, reject) => {
        const look = () => {
          if (!pattern.test(written.stdout + written.stderr)) return;
          watchers.delete(look);
          resolve();
        };
        watchers.add(look);
        void ended.then(() => reject(new Error(`ended without ${pattern}:\n${written.stdout}${written.stderr}`)));
        look();
      });
    return { child, saw, ended };
  }

  run(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Result> {
    return this.start(args, env).ended;
  }

  /** Process ids of the workers whose sockets lie here. */
  workers(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => {
        try {
          const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
          return command.includes(`${this.folder}/`) && command.includes('--socket');
        } catch {
          return false;
        }
      });
  }

  remove(): void {
    for (const pid of this.workers()) process.kill(pid, 'SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}
