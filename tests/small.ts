import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type Result, ROOT, Sandbox } from '../cli/test/support/cli.js';

/** The real Python that set-up installed; the sandbox's default is a stand-in for unit tests. */
export const PYTHON = join(ROOT, 'backend-py/.venv/bin/python');
// The package of this checkout, also where several share one environment.
const ENV = { QSCOPE_PYTHON: PYTHON, PYTHONPATH: join(ROOT, 'backend-py') };

/** A few seconds of real training: two layers of the embedded model on the embedded text. */
export const SMALL = `name: small
seed: 3
model: embedded
compute: { threads: 1 }
train_sae:
  text: { source: embedded, context: 64 }
  layers: [1, 4]
  sae: { expansion: 4, k: 8 }
  tokens: 16384
  batch_tokens: 512
  optimizer: { learning_rate: 2e-3 }
  checkpoint: { every_steps: 8 }
  formats: [native, qwen_scope, saelens]
`;

/** The command line with the real worker. */
export class RealSandbox extends Sandbox {
  /** Writes an experiment file and returns its name. */
  experiment(text: string, name = 'small.yaml'): string {
    writeFileSync(join(this.folder, name), text);
    return name;
  }

  override start(args: readonly string[], env: NodeJS.ProcessEnv = {}, under: readonly string[] = []) {
    return super.start(args, { ...ENV, ...env }, under);
  }

  override run(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Result> {
    return this.start(args, env).ended;
  }

  /**
   * Starts the background worker, for the commands that follow: each would else start one of its own and wait for its
   * imports. It ends with the sandbox. For tests that are not about workers.
   */
  async keepWorker(env: NodeJS.ProcessEnv = {}): Promise<void> {
    const { code, stderr } = await this.run(['worker', 'start'], env);
    expect(code, stderr).toBe(0);
  }

  /** Folders of the runs made so far, in order of name. */
  runFolders(): string[] {
    return existsSync(this.runs)
      ? readdirSync(this.runs)
          .filter((name) => existsSync(join(this.runs, name, 'run.json')))
          .map((name) => join(this.runs, name))
      : [];
  }

  /** The one run made so far. */
  runFolder(): string {
    const [folder, ...others] = this.runFolders();
    if (!folder || others.length > 0) throw new Error(`${others.length + (folder ? 1 : 0)} runs in ${this.runs}`);
    return folder;
  }
}

/** Contents of every weight file of a run, by path. */
export function weights(folder: string): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  const visit = (at: string) => {
    for (const entry of readdirSync(join(folder, at), { withFileTypes: true })) {
      const path = join(at, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (entry.name.endsWith('.safetensors')) found.set(path, readFileSync(join(folder, path)));
    }
  };
  visit('artifacts');
  return found;
}
