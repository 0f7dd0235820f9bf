import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RealSandbox, SMALL, weights } from './small.js';

const LANGUAGES = `name: languages
seed: 1
model: embedded
compute: { threads: 1 }
language_features:
  sae: latest
  text: { source: embedded-heldout, context: 48 }
  languages: [en, zh, ru]
  documents: 12
`;

const TUNE = `name: tune
seed: 2
model: embedded
compute: { threads: 1 }
sft:
  data: { source: rows.jsonl }
  held_out: { source: rows.jsonl, limit: 6 }
  format: { chat: true }
  context: 64
  steps: 12
  micro_batch_rows: 4
  accumulate: 2
  optimizer: { learning_rate: 5e-4, warmup_steps: 2 }
  sae_loss: { sae: latest, features: latest, target_languages: [zh], layers: [1, 4] }
  checkpoint: { every_steps: 3 }
  metrics: { every_steps: 1 }
`;

const ANSWERS: [string, (n: number) => string][] = [
  ['en', (n) => `The sum is ${2 * n}.`],
  ['zh', (n) => `总和是${2 * n}。`],
  ['ru', (n) => `Сумма равна ${2 * n}.`],
];

interface Metrics {
  step?: string;
  values: Record<string, number>;
}

/** Digests of weight files by path: vitest compares buffers of megabytes byte by byte, for minutes. */
function digests(folder: string): [string, string][] {
  return [...weights(folder)].map(([path, bytes]) => [path, createHash('sha256').update(bytes).digest('hex')]);
}

describe('sft on the embedded model', () => {
  const box = new RealSandbox();
  const runsNamed = (name: string) => box.runFolders().filter((path) => basename(path).startsWith(`${name}-`));
  let calm: string;
  beforeAll(async () => {
    const rows = [];
    for (let n = 1; n <= 12; n += 1)
      for (const [lang, answer] of ANSWERS) rows.push({ question: `${n} + ${n}?`, answer: answer(n), lang });
    writeFileSync(join(box.folder, 'rows.jsonl'), `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`);
    const sae = await box.run(['train-sae', box.experiment(SMALL), '--quiet']);
    expect(sae.code, sae.stderr).toBe(0);
    const found = await box.run(['features', 'language', box.experiment(LANGUAGES, 'languages.yaml'), '--quiet']);
    expect(found.code, found.stderr).toBe(0);
    const trained = await box.run(['sft', box.experiment(TUNE, 'tune.yaml')]);
    expect(trained.code, trained.stderr).toBe(0);
    [calm] = runsNamed('tune') as [string];
  }, 300_000);
  afterAll(() => box.remove());

  it('writes a model that plain transformers loads, a record of it, and no pickle', () => {
    expect(existsSync(join(calm, 'artifacts/model/model.safetensors'))).toBe(true);
    for (const name of ['config.json', 'generation_config.json', 'tokenizer.json', 'chat_template.jinja'])
      expect(existsSync(join(calm, 'artifacts/model', name)), name).toBe(true);
    const record = JSON.parse(readFileSync(join(calm, 'artifacts/training.json'), 'utf8'));
    expect(record.data.languages_given).toEqual({ en: 12, ru: 12, zh: 12 });
    expect(record.arm.layers.map(({ layer }: { layer: number }) => layer)).toEqual([1, 4]);
    const files = readdirSync(calm, { recursive: true, encoding: 'utf8' });
    expect(files.filter((name) => /\.(pt|pth|bin|pkl)$/.test(name))).toEqual([]);
  });

  it('tells both parts of the loss at every step, and the held-out loss before and after', () => {
    const events = readFileSync(join(calm, 'events.jsonl'), 'utf8').trim().split('\n');
    const told: Metrics[] = events.flatMap((line) => JSON.parse(line).metrics?.entries ?? []);
    const steps = told.filter(({ values }) => 'loss' in values);
    expect(steps.map(({ step }) => Number(step))).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
    for (const { values } of steps)
      expect(values.loss).toBeCloseTo((values.ce as number) + (values.sae_loss as number), 4);
    const held = told.filter(({ values }) => 'held_out_loss' in values);
    expect(held.map(({ step }) => Number(step ?? 0))).toEqual([0, 12]);
    const [before, after] = held.map(({ values }) => values.held_out_loss as number);
    expect(after).toBeLessThan(before as number);
  });

  it('goes on after kill -9 to the weights of an undisturbed run', async () => {
    const cli = box.start(['sft', 'tune.yaml', '--json']);
    await cli.saw(/"checkpoint"/);
    const folder = runsNamed('tune').find((path) => path !== calm) as string;
    const { pid } = JSON.parse(readFileSync(join(folder, 'process.json'), 'utf8'));
    process.kill(-pid, 'SIGKILL');
    expect((await cli.ended).code).toBe(1);
    const resumed = await box.run(['runs', 'resume', basename(folder)]);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(resumed.stderr).toMatch(/resumed at step (3|6|9)/);
    expect(digests(folder)).toEqual(digests(calm));
  });

  it('stops within a step of SIGTERM, exits 75, and goes on', async () => {
    const known = runsNamed('tune');
    const cli = box.start(['sft', 'tune.yaml', '--json']);
    await cli.saw(/"sae_loss"/);
    const folder = runsNamed('tune').find((path) => !known.includes(path)) as string;
    const { pid } = JSON.parse(readFileSync(join(folder, 'process.json'), 'utf8'));
    process.kill(pid, 'SIGTERM');
    expect((await cli.ended).code).toBe(75);
    const resumed = await box.run(['runs', 'resume', basename(folder), '--quiet']);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(digests(folder)).toEqual(digests(calm));
  });
});
