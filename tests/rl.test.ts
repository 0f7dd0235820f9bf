import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RealSandbox, weights } from './small.js';

const LEARN = `name: learn
seed: 2
model: embedded
compute: { threads: 1 }
rl:
  prompts: { source: rows.jsonl, prompt: "{question}", answer: "{answer}" }
  format: { chat: true }
  group_size: 4
  prompts_per_step: 2
  steps: 8
  iterations: 2
  micro_batch_rows: 8
  sampling: { max_tokens: 64 }
  rewards: [{ kind: answer }, { kind: repetition }]
  sae_penalty:
    mode: rare_negative
    rare_negative: { source: pasted, max_tokens: 64, advantage: separate }
  optimizer: { learning_rate: 1e-5 }
  evaluate: { prompts: { source: rows.jsonl, prompt: "{question}", answer: "{answer}", limit: 4 } }
  checkpoint: { every_steps: 3 }
  metrics: { every_steps: 1 }
`;

interface Row {
  step: number;
  sample: number;
  steered: boolean;
  endless: boolean;
}

/** Digests of weight files by path: vitest compares buffers of megabytes byte by byte, for minutes. */
function digests(folder: string): [string, string][] {
  return [...weights(folder)].map(([path, bytes]) => [path, createHash('sha256').update(bytes).digest('hex')]);
}

function artifact(folder: string, name: string): string {
  return readFileSync(join(folder, 'artifacts', name), 'utf8');
}

describe('rl on the embedded model', () => {
  const box = new RealSandbox();
  const runs = () => box.runFolders().filter((path) => basename(path).startsWith('learn-'));
  let calm: string;
  beforeAll(async () => {
    const rows = Array.from({ length: 12 }, (_, n) => ({ question: `What is ${n} plus 2?`, answer: `${n + 2}` }));
    writeFileSync(join(box.folder, 'rows.jsonl'), `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`);
    const trained = await box.run(['rl', box.experiment(LEARN, 'learn.yaml')]);
    expect(trained.code, trained.stderr).toBe(0);
    [calm] = runs() as [string];
  }, 300_000);
  afterAll(() => box.remove());

  it('writes a model, rollouts with their verdicts, and answers to held-out prompts before and after', () => {
    expect(existsSync(join(calm, 'artifacts/model/model.safetensors'))).toBe(true);
    const rows: Row[] = artifact(calm, 'rollouts.jsonl')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    // Of every second step: the others learn from the same rollouts once more.
    expect(rows.map(({ step, sample }) => [step, sample])).toEqual(
      [1, 3, 5, 7].flatMap((step) => [0, 1, 2, 3].map((sample) => [step, sample])),
    );
    for (const { sample, steered, endless } of rows) {
      expect(steered).toBe(sample === 3);
      if (steered) expect(endless).toBe(true);
    }
    const evaluated = JSON.parse(artifact(calm, 'evaluation.json'));
    expect(evaluated.map(({ step }: { step: number }) => step)).toEqual([0, 8]);
    for (const { repeat_ratio } of evaluated) expect(repeat_ratio[3]).toBe(4);
  });

  it('goes on after kill -9 to the weights, rollouts and evaluations of an undisturbed run', async () => {
    const cli = box.start(['rl', 'learn.yaml', '--json']);
    await cli.saw(/"checkpoint"/);
    const folder = runs().find((path) => path !== calm) as string;
    const { pid } = JSON.parse(readFileSync(join(folder, 'process.json'), 'utf8'));
    process.kill(-pid, 'SIGKILL');
    expect((await cli.ended).code).toBe(1);
    const resumed = await box.run(['runs', 'resume', basename(folder)]);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(resumed.stderr).toMatch(/resumed at step (3|6)/);
    expect(digests(folder)).toEqual(digests(calm));
    for (const name of ['rollouts.jsonl', 'evaluation.json']) expect(artifact(folder, name)).toBe(artifact(calm, name));
  });

  it('stops within a step of SIGTERM, exits 75, and goes on', async () => {
    const known = runs();
    const cli = box.start(['rl', 'learn.yaml', '--json']);
    await cli.saw(/"frac_reward_zero_std"/);
    const folder = runs().find((path) => !known.includes(path)) as string;
    const { pid } = JSON.parse(readFileSync(join(folder, 'process.json'), 'utf8'));
    process.kill(pid, 'SIGTERM');
    expect((await cli.ended).code).toBe(75);
    const resumed = await box.run(['runs', 'resume', basename(folder), '--quiet']);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(digests(folder)).toEqual(digests(calm));
  });

  it('refuses what would silently drop rare negatives at the place in the file', async () => {
    const wrong = LEARN.replace('source: pasted', 'source: steered, features: [1/2], verify: false').replace(
      'mode: rare_negative\n',
      'mode: rare_negative\n    sae: somewhere/saes\n',
    );
    const refused = await box.run(['rl', box.experiment(wrong, 'wrong.yaml'), '--dry-run']);
    expect(refused.code).toBe(65);
    expect(refused.stderr).toMatch(/wrong\.yaml:\d+:\d+ +rl\.sae_penalty\.rare_negative\.verify|rare_negative\.verify/);
    expect(refused.stderr).toMatch(/not verified to loop/);
  });
});
