import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Result } from '../cli/test/support/cli.js';
import { RealSandbox, SMALL } from './small.js';

const STUDY = `name: study
seed: 1
model: embedded
compute: { threads: 1 }
classify:
  sae: latest
  attribute: sum
  context: 48
  shard_texts: 32
  draws: 2
  bootstrap: 200
  curve: [0.5, 1]
  evaluation_share: 0.3
  calibration_share: 0.2
  false_positive_rates: [0.02, 0.1]
  data:
    - { source: data.jsonl, text: "{body}", label: kind, positive: [sum], negative: [prose], language: "{lang}" }
`;

const APPLY = `name: answers
model: embedded
compute: { threads: 1 }
apply_classifier:
  classifier: study
  source: fresh.csv
  keep: [id]
  shard_texts: 16
`;

const WORDS = 'the page shows how a window is opened and where its menu can be found in any program'.split(' ');

/** Sums and prose, in two "languages", all different. */
function row(n: number) {
  const lang = n % 4 < 2 ? 'en' : 'xx';
  const body =
    n % 2
      ? `${n} + ${n % 13} = ${n + (n % 13)}, ${n % 7} + ${n % 5} = ${(n % 7) + (n % 5)}`
      : Array.from({ length: 9 }, (_, k) => WORDS[(n * 7 + k * (1 + (n % 3))) % WORDS.length]).join(' ');
  return { body: `${body} (${n})`, kind: n % 2 ? 'sum' : 'prose', lang };
}

interface MethodRow {
  method: string;
  chosen: boolean;
  n: number;
  f1: number;
  f1_low: number;
  f1_high: number;
  auc: number;
}

describe('classify on the embedded model', () => {
  const box = new RealSandbox();
  let studied: Result;
  let folder: string;
  const journal = (at: string) =>
    existsSync(join(at, 'events.jsonl')) ? readFileSync(join(at, 'events.jsonl'), 'utf8') : '';
  const artifact = (name: string, at = folder) => readFileSync(join(at, 'artifacts', name), 'utf8');
  const runOf = (name: string) => box.runFolders().filter((path) => basename(path).startsWith(`${name}-`));

  beforeAll(async () => {
    const rows = Array.from({ length: 240 }, (_, n) => JSON.stringify(row(n)));
    rows.push(
      'no row',
      '{"body": "a text without a label", "lang": "en"}',
      JSON.stringify({ ...row(0), body: row(0).body.toUpperCase() }),
      JSON.stringify({ ...row(1), kind: 'prose' }),
      JSON.stringify({ ...row(500), kind: 'unsure' }),
    );
    writeFileSync(join(box.folder, 'data.jsonl'), `${rows.join('\n')}\n`);
    const fresh = Array.from({ length: 60 }, (_, n) => `${n},"${row(n + 1000).body}"`);
    writeFileSync(join(box.folder, 'fresh.csv'), `id,text\n${fresh.join('\n')}\n60\n61,""\n`);
    expect((await box.run(['train-sae', box.experiment(SMALL), '--quiet'])).code).toBe(0);
    studied = await box.run(['classify', box.experiment(STUDY, 'study.yaml')]);
    folder = runOf('study')[0] as string;
    // Training and a study: more than the usual two minutes where other work has the machine.
  }, 600_000);
  afterAll(() => box.remove());

  it('ends well, says what it left out, and names a winner', () => {
    expect(studied.code, studied.stderr).toBe(0);
    expect(studied.stderr).toContain('2 rows left out, listed in artifacts/faults.csv; the first: data.jsonl:241');
    expect(studied.stderr).toContain('2 rows left out: their text stands with both labels');
    expect(studied.stderr).toContain('1 rows repeat a text');
    expect(studied.stderr).toContain('1 rows have neither label: unsure (1)');
    expect(studied.stderr).toContain('xx: 0.02 of the calibration texts without the attribute is less than one text');
    expect(studied.stderr).toMatch(/method +layer +F1 +95 % +AUC +prec\. +recall +R@10%/);
    expect(studied.stderr).toMatch(/\nbest F1: .+ \(/);
    const table = studied.stderr.split('\n').filter((line) => /^[ *](OR|probe|diff|TF-IDF)/.test(line));
    expect(table.length).toBe(3 * 9);
    for (const line of table) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('measures every method on texts nothing else saw, with intervals', () => {
    const { data, groups } = JSON.parse(artifact('classification.json'));
    expect(data).toMatchObject({ texts: 239, repeated: 1, contradictory: 2, leaks: 0, rows_left_out: 2 });
    expect(groups.map((one: { group: string }) => one.group)).toEqual(['all', 'en', 'xx']);
    for (const { methods, texts, winner_by_f1 } of groups) {
      expect(methods.map((one: MethodRow) => one.method)).toEqual([
        ...[1, 2, 5, 10].map((count) => `OR-rule, K=${count}`),
        'OR over 2 layers',
        'probe, SAE features',
        'probe, residuals',
        'diff-in-means',
        'TF-IDF words',
      ]);
      for (const { n, f1, f1_low, f1_high, auc } of methods as MethodRow[]) {
        expect(n).toBe(texts.evaluation.positive + texts.evaluation.negative);
        expect(f1_low).toBeLessThanOrEqual(f1);
        expect(f1).toBeLessThanOrEqual(f1_high);
        expect(auc).toBeGreaterThanOrEqual(0);
      }
      const best = Math.max(...methods.map((one: MethodRow) => one.f1));
      expect(methods.find((one: MethodRow) => one.method === winner_by_f1).f1).toBe(best);
      expect(methods.filter((one: MethodRow) => one.chosen).length).toBe(1);
    }
    // Digits against words: the residual stream of any language model knows.
    expect(groups[0].methods[6].f1).toBeGreaterThan(0.95);
    expect(artifact('faults.csv').trim().split(/\r?\n/)).toEqual([
      'place,why',
      'data.jsonl:241,not JSON',
      `data.jsonl:242,"no column 'kind' with a value (columns there: body, lang)"`,
    ]);
    expect(artifact('transfer.csv').trim().split('\n').length).toBe(1 + 2 * 4);
    expect(existsSync(join(folder, 'artifacts/classifiers/xx.json'))).toBe(true);
  });

  it('has a report', async () => {
    const { code, stderr } = await box.run(['report', folder, '-o', join(box.folder, 'page.html')]);
    expect(code, stderr).toBe(0);
    const page = readFileSync(join(box.folder, 'page.html'), 'utf8');
    for (const heading of ['Ways of telling', 'At a fixed rate of false positives', 'Features two languages share'])
      expect(page).toContain(heading);
  });

  it.each([
    ['reading', (at: string) => existsSync(join(at, 'artifacts/activations/shard-00001.json'))],
    ['looking at layers', (at: string) => journal(at).includes('"studying"')],
    ['fitting baselines', (at: string) => journal(at).includes('"measuring"')],
    ['writing', (at: string) => existsSync(join(at, 'artifacts/methods.csv'))],
  ])('was killed while %s, goes on, and gives the same', async (moment, reached) => {
    const name = `cut-${moment.split(' ')[0]}`;
    const cut = box.start(['classify', 'study.yaml', '--name', name, '--json']);
    while (!runOf(name)[0] || !reached(runOf(name)[0] as string)) await sleep(1);
    const at = runOf(name)[0] as string;
    process.kill(-JSON.parse(readFileSync(join(at, 'process.json'), 'utf8')).pid, 'SIGKILL');
    expect((await cut.ended).code).toBe(1);
    expect(existsSync(join(at, 'artifacts/report.json'))).toBe(false);
    const { code, stderr } = await box.run(['runs', 'resume', basename(at)]);
    expect(code, stderr).toBe(0);
    for (const file of ['methods', 'layers', 'features', 'curve', 'transfer', 'overlap', 'faults'])
      expect(artifact(`${file}.csv`, at), file).toBe(artifact(`${file}.csv`));
    for (const file of ['classifier.json', 'classifiers/xx.json', 'features.json'])
      expect(artifact(file, at), file).toBe(artifact(file));
    const [again, before] = [at, folder].map((place) => readFileSync(join(place, 'artifacts/predictions.parquet')));
    expect(again?.equals(before as Buffer)).toBe(true);
  });

  it('leaves features behind that other commands take', async () => {
    const { kind, entries } = JSON.parse(artifact('features.json'));
    expect(kind).toBe('classify');
    const { features } = JSON.parse(artifact('classifier.json'));
    const places = entries.map((one: { layer: number; feature: number }) => `${one.layer}/${one.feature}`);
    for (const { layer, feature } of features) expect(places).toContain(`${layer}/${feature}`);
    const TOP = `name: seen
model: embedded
compute: { threads: 1 }
top_features:
  sae: latest
  feature_set: ${folder}
  text: { source: embedded-heldout, context: 32 }
  documents: 40
`;
    const shown = await box.run(['features', 'top', box.experiment(TOP, 'top.yaml'), '--quiet']);
    expect(shown.code, shown.stderr).toBe(0);
    const STEER = `name: steered
model: embedded
compute: { threads: 1 }
steer:
  sae: latest
  prompts: [the page]
  sampling: { max_tokens: 4 }
  steering: { edits: [{ feature_file: ${folder}, layers: [4], top: 2, unit: max, strength: 1 }] }
`;
    const steered = await box.run(['steer', box.experiment(STEER, 'steer.yaml'), '--quiet']);
    expect(steered.code, steered.stderr).toBe(0);
  });

  describe('apply', () => {
    const answersOf = (at: string) =>
      artifact('answers.jsonl', at)
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));

    it('answers in order, says which features fired, and lists what it left out', async () => {
      const { code, stderr } = await box.run(['classify', 'apply', box.experiment(APPLY, 'apply.yaml')]);
      expect(code, stderr).toBe(0);
      const at = runOf('answers')[0] as string;
      const found = answersOf(at);
      expect(found.map((one) => one.row)).toEqual(Array.from({ length: 60 }, (_, n) => n));
      expect(found[3]).toMatchObject({ place: 'fresh.csv:5', kept: { id: '3' } });
      const { features } = JSON.parse(artifact('classifier.json'));
      const known = features.map((one: { layer: number; feature: number }) => `${one.layer}/${one.feature}`);
      for (const { positive, label, fired } of found) {
        expect(label).toBe(positive ? 'sum' : 'not-sum');
        expect(fired.length > 0).toBe(positive);
        for (const { layer, feature, activation } of fired) {
          expect(known).toContain(`${layer}/${feature}`);
          expect(activation).toBeGreaterThan(0);
        }
      }
      const right = found.filter((one) => one.positive === (one.row % 2 === 1)).length;
      expect(right).toBeGreaterThan(45);
      expect(artifact('faults.csv', at)).toBe(
        'place,why\r\nfresh.csv:62,"1 cells, but 2 columns"\r\nfresh.csv:63,its text is empty\r\n',
      );
    });

    it('holds a rate of false positives when asked to: never more is positive', async () => {
      const set = ['--set', 'apply_classifier.false_positive_rate=0.1', '--name', 'held'];
      expect((await box.run(['classify', 'apply', 'apply.yaml', ...set, '--quiet'])).code).toBe(0);
      const [any, held] = [runOf('answers')[0], runOf('held')[0]].map((at) => answersOf(at as string));
      for (const [n, one] of (held as { positive: boolean }[]).entries())
        if (one.positive) expect(any?.[n].positive).toBe(true);
    });

    it('was killed, goes on, and writes the same bytes', async () => {
      const small = ['--set', 'apply_classifier.shard_texts=2'];
      const whole = ['classify', 'apply', 'apply.yaml', ...small, '--quiet', '--name'];
      expect((await box.run([...whole, 'calm'])).code).toBe(0);
      const cut = box.start([...whole, 'cut-apply', '--json']);
      const note = () => join(runOf('cut-apply')[0] ?? '', 'artifacts/progress.json');
      while (!runOf('cut-apply')[0] || !existsSync(note())) await sleep(2);
      const at = runOf('cut-apply')[0] as string;
      process.kill(-JSON.parse(readFileSync(join(at, 'process.json'), 'utf8')).pid, 'SIGKILL');
      expect((await cut.ended).code).toBe(1);
      // As if it had died in the middle of a line.
      appendFileSync(join(at, 'artifacts/answers.jsonl'), '{"row": 99, "pla');
      const { code, stderr } = await box.run(['runs', 'resume', basename(at)]);
      expect(code, stderr).toBe(0);
      const calm = runOf('calm')[0] as string;
      for (const name of ['answers.jsonl', 'faults.csv', 'summary.json'])
        expect(artifact(name, at), name).toBe(artifact(name, calm));
    });

    it('answers a single text', async () => {
      writeFileSync(join(box.folder, 'one.csv'), 'id,text\n7,3 + 4 = 7\n');
      const set = ['--set', 'apply_classifier.source=one.csv', '--name', 'single', '--quiet'];
      expect((await box.run(['classify', 'apply', 'apply.yaml', ...set])).code).toBe(0);
      expect(answersOf(runOf('single')[0] as string)).toMatchObject([{ row: 0, kept: { id: '7' } }]);
    });

    // More of them, recipe by recipe: backend-py/tests/recipes/test_refusals.py.
    it.each([
      ['apply_classifier.classifier=none', 'There is no run "none"', ''],
      ['apply_classifier.bad_rows=refuse', 'fresh.csv:62: 1 cells, but 2 columns', 'bad_rows: skip'],
    ])('%s: one sentence and a remedy', async (setting, sentence, remedy) => {
      const file = box.experiment(APPLY, 'apply.yaml');
      const { code, stderr } = await box.run(['classify', 'apply', file, '--set', setting]);
      expect(stderr).toContain(sentence);
      expect(stderr).toContain(remedy);
      expect(code).toBe(65);
      expect(stderr).not.toContain('Traceback');
    });
  });

  const KIND = 'source: data.jsonl, text: "{body}", label: kind';
  it.each([
    ['classify.bad_rows=refuse', 'data.jsonl:241: not JSON', 'bad_rows: skip'],
    [`classify.data=[{${KIND}, positive: [zzz]}]`, 'are of one class, without', "say in 'positive' which labels"],
    ['classify.data=[{source: data.jsonl}]', 'positive', ''],
    ['classify.evaluation_share=0.89', 'leave nothing to find features on', ''],
  ])('%s: one sentence and a remedy', async (setting, sentence, remedy) => {
    const { code, stderr } = await box.run(['classify', 'study.yaml', '--set', setting]);
    expect(stderr).toContain(sentence);
    expect(stderr).toContain(remedy);
    expect(code).toBe(65);
    expect(stderr).not.toContain('Traceback');
  });
});
