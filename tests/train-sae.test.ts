import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Result } from '../cli/test/support/cli.js';
import { RealSandbox, SMALL, weights } from './small.js';

describe('train-sae on the embedded model', () => {
  const box = new RealSandbox();
  let trained: Result;
  beforeAll(async () => {
    trained = await box.run(['train-sae', box.experiment(SMALL), '--json']);
  });
  afterAll(() => box.remove());

  it('ends well and writes every layout asked for', () => {
    expect(trained.stderr).toBe('');
    expect(trained.code).toBe(0);
    const saes = join(box.runFolder(), 'artifacts/sae');
    for (const file of [
      'native/layer1/sae.safetensors',
      'native/layer4/sae.json',
      'qwen_scope/layer1.sae.pt',
      'qwen_scope/layer4.sae.json',
      'saelens/layer4/cfg.json',
    ]) {
      expect(existsSync(join(saes, file)), file).toBe(true);
    }
  });

  it('writes nothing but events to stdout, numbered from 1 without gaps', () => {
    const events = trained.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(events.map(({ sequence }) => Number(sequence))).toEqual(events.map((_, index) => index + 1));
    expect(events.at(-1).stateChanged.state).toBe('RUN_STATE_SUCCEEDED');
  });

  it('learns: the FVU falls from first to last metrics at every layer, and L0 never exceeds k', () => {
    const metrics = trained.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).metrics?.entries)
      .filter(Boolean)
      .map((entries) => new Map(entries.map((entry: Entry) => [entry.layer ?? 0, entry.values])));
    for (const layer of [1, 4]) {
      const first = metrics[0].get(layer);
      const last = metrics.at(-1).get(layer);
      expect(last.fvu).toBeLessThan(first.fvu * 0.9);
      expect(last.l0).toBeLessThanOrEqual(8);
      expect(last.l0).toBeGreaterThan(4);
    }
  });

  it('is told by `runs list`, `runs show` and `runs logs`', async () => {
    const [list, show, logs] = [
      await box.run(['runs', 'list']),
      await box.run(['runs', 'show', 'latest']),
      await box.run(['runs', 'logs', 'latest']),
    ];
    expect([list.code, show.code, logs.code]).toEqual([0, 0, 0]);
    expect(list.stdout).toMatch(/small-\w+.*succeeded/i);
    expect(show.stdout).toMatch(/succeeded/i);
    expect(logs.stdout).toMatch(/tokens read/);
  });

  it('gives the same weights in the process that was kept ready as in one started with its own number of threads', async () => {
    const other = new RealSandbox();
    try {
      const args = ['train-sae', other.experiment(SMALL), '--quiet', '--set', 'compute.threads=0'];
      expect((await other.run(args, { OMP_NUM_THREADS: '1' })).code).toBe(0);
      expect(weights(other.runFolder())).toEqual(weights(box.runFolder()));
    } finally {
      other.remove();
    }
  });

  it('gives the same weights again with the same seed, and others with another', async () => {
    const again = new RealSandbox();
    const other = new RealSandbox();
    try {
      await Promise.all([
        again.run(['train-sae', again.experiment(SMALL), '--quiet']),
        other.run(['train-sae', other.experiment(SMALL), '--quiet', '--set', 'seed=4']),
      ]);
      const reference = weights(box.runFolder());
      expect(reference.size).toBe(4);
      expect(weights(again.runFolder())).toEqual(reference);
      expect(weights(other.runFolder())).not.toEqual(reference);
    } finally {
      again.remove();
      other.remove();
    }
  });

  it('feeds eval-sae, whose numbers are in range and in the file', async () => {
    const text = `name: measured
model: embedded
compute: { threads: 1 }
eval_sae:
  sae: latest
  text: { source: embedded-heldout, context: 64 }
  tokens: 2048
`;
    const { code, stdout, stderr } = await box.run(['eval-sae', box.experiment(text, 'eval.yaml')]);
    expect(stderr + stdout).not.toMatch(/NaN/);
    expect(code).toBe(0);
    const folder = box.runFolders().find((path) => path.includes('measured-')) ?? '';
    const report = JSON.parse(readFileSync(join(folder, 'artifacts/evaluation.json'), 'utf8'));
    expect(Object.keys(report.layers)).toEqual(['1', '4']);
    for (const row of Object.values<Record<string, number>>(report.layers)) {
      expect(row.fvu).toBeGreaterThan(0);
      expect(row.fvu).toBeLessThan(1);
      expect(row.l0).toBeLessThanOrEqual(8);
      expect(row.ce_zero).toBeGreaterThan(row.ce_clean as number);
      expect(row.kl).toBeGreaterThan(0);
    }
  });
});

describe('train-sae refuses', () => {
  const box = new RealSandbox();
  afterAll(() => box.remove());

  // Texts that do not do: backend-py/tests/recipes/test_train_sae.py.
  it.each([
    ['a layer the model does not have', '--set train_sae.layers=[1,99]', /train_sae\.layers\[1\].*\n?.*Layer 99/s],
    ['k above the width', '--set train_sae.sae.d_sae=64 --set train_sae.sae.k=65', /k must not exceed d_sae/],
    ['a model that is not there', '--set model=./nowhere', /nowhere: no such folder/],
  ])('%s, in one sentence and without a stack trace', async (_, set, sentence) => {
    const { code, stdout, stderr } = await box.run(['train-sae', box.experiment(SMALL), ...set.split(' ')]);
    expect(stdout + stderr).toMatch(sentence);
    expect(stdout + stderr).not.toMatch(/Traceback|at .*\.js:\d+/);
    expect([1, 65]).toContain(code);
  });
});

interface Entry {
  layer?: number;
  values: Record<string, number>;
}
