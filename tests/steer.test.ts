import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RealSandbox, SMALL } from './small.js';

const RUN = `name: steer
seed: 1
model: embedded
compute: { threads: 1 }
steer:
  sae: SAES
  prompts: [The installation guide, Die Datei wird]
  samples: 2
  steering: { edits: [{ layers: [4], features: [11], unit: norm, strength: 1 }] }
  sampling: { max_tokens: 12 }
  controls: [zero, flipped, random, foreign, prompt, diff_in_means, sdcv]
  baselines:
    positives: { source: embedded-heldout, where: language=de, context: 64 }
    negatives: { source: embedded-heldout, where: language=en, context: 64 }
    tokens: 512
    prompt_prefix: "Auf Deutsch: "
  languages: [en, de]
  sweep: [0.5, 2]
  batch_rows: 5
  side_effects: { text: { source: embedded-heldout, context: 64 }, tokens: 512 }
`;

interface Row {
  arm: string;
  factor: number;
  prompt: number;
  sample: number;
  text: string;
  changed_positions: number;
}

describe('steer on the embedded model', () => {
  const box = new RealSandbox();
  let saes: string;
  beforeAll(async () => {
    const { code, stderr } = await box.run(['train-sae', box.experiment(SMALL), '--json']);
    expect(code, stderr).toBe(0);
    saes = join(box.runFolder(), 'artifacts/sae/native');
  });
  afterAll(() => box.remove());

  const live = (...args: string[]) =>
    box.run(['steer', '--sae', saes, '-n', '8', '-t', '0', ...args], { OMP_NUM_THREADS: '1' });

  it('streams text to stdout and tells on stderr what was changed', async () => {
    const { code, stdout, stderr } = await live('-f', '4:11=2', '-p', 'The installation guide');
    expect(code, stderr).toBe(0);
    expect(stdout.trim().split('\n').length).toBeGreaterThanOrEqual(2);
    expect(stderr).toMatch(/^steered$/m);
    expect(stderr).toMatch(/^unsteered$/m);
    expect(stderr).toMatch(/layer 4: \d+ prompt and 7 generated tokens changed/);
    expect(stderr).toMatch(/\d+ tokens, first token after [\d.]+ s/);
    for (const line of stderr.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('writes one message a line with --json', async () => {
    const { code, stdout, stderr } = await live('-f', '4:11=2', '-p', 'The file', '--no-baseline', '--json');
    expect([code, stderr]).toEqual([0, '']);
    const kinds = stdout
      .trim()
      .split('\n')
      .map((line) => Object.keys(JSON.parse(line))[0]);
    expect(kinds).toEqual(['notice', 'started', ...Array(8).fill('step'), 'rowEnded', 'finished']);
  });

  describe('beside a worker that stays, with its model', () => {
    beforeAll(() => box.keepWorker({ OMP_NUM_THREADS: '1' }));

    it('gives the unsteered text at strength 0', async () => {
      const { stdout } = await live('-f', '4:11=0', '-p', 'The file');
      const [steered, unsteered] = stdout.split('\n');
      expect(steered).toBe(unsteered);
    });

    it.each([
      [['-f', '9:1'], 2, 'Layer 9 does not exist'],
      [['-f', '4:99999'], 2, 'There is no feature 99999 at layer 4'],
      [['-f', '3:1'], 2, 'there is no SAE of layer 3'],
      [['-f', 'three'], 2, 'three is not a feature'],
      [['-f', '4:1', '--phase', 'generated', '-n', '1'], 1, 'nothing was steered'],
      [['-f', '4:1', '-n', '600'], 2, "exceed the model's 512 positions"],
      [['-f', '4:1', '-n', '0'], 65, 'must be between 1 and'],
    ])('says in a sentence what is wrong with %j', async (args, expected, message) => {
      const { code, stderr } = await live('-p', 'The file', ...args);
      expect(stderr).toContain(message);
      expect(code).toBe(expected);
      expect(stderr).not.toMatch(/^\s+at /m);
    });
  });

  it('runs every arm and strength of a file, with the same random numbers', async () => {
    const runs = new RealSandbox();
    try {
      const file = runs.experiment(RUN.replace('SAES', saes), 'steer.yaml');
      const plan = await runs.run(['plan', file]);
      expect(plan.stdout).toContain('60 (2 prompts x 2 samples x 15 arms and strengths)');
      const { code, stderr } = await runs.run(['steer', file, '--json']);
      expect([code, stderr]).toEqual([0, '']);
      const rows = readRows(runs.runFolder());
      expect(rows.length).toBe(60);
      const of = (arm: string, factor: number) =>
        rows.filter((row) => row.arm === arm && row.factor === factor).map(({ text }) => text);
      expect(of('zero', 0.5)).toEqual(of('unsteered', 0));
      expect(of('steered', 2)).not.toEqual(of('unsteered', 0));
      for (const row of rows) {
        const silent = ['unsteered', 'zero', 'prompt'].includes(row.arm);
        expect(row.changed_positions > 0, JSON.stringify(row)).toBe(!silent);
      }
      const { arms } = JSON.parse(readFileSync(join(runs.runFolder(), 'artifacts/steering.json'), 'utf8'));
      expect(arms.length).toBe(15);
      for (const { arm, n, kl, perplexity_ratio: ratio } of arms) {
        expect(n).toBe(4);
        // What stands before the prompts is not in the neutral text: the arm has no cost there.
        if (arm === 'prompt') expect([kl, ratio]).toEqual([undefined, undefined]);
        else if (['zero', 'unsteered'].includes(arm)) expect([Math.abs(kl) < 1e-9, ratio]).toEqual([true, 1]);
        else expect(kl).toBeGreaterThan(0);
      }
      const page = await runs.run(['report', 'latest']);
      expect(page.code, page.stderr).toBe(0);
      const html = readFileSync(join(runs.runFolder(), 'report.html'), 'utf8');
      for (const part of ['Arms and strengths', 'Dose and response', 'Die Datei wird', 'diff_in_means'])
        expect(html).toContain(part);
    } finally {
      runs.remove();
    }
  });
});

function readRows(folder: string): Row[] {
  return readFileSync(join(folder, 'artifacts/generations.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}
