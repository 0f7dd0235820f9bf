import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Result, ROOT } from '../cli/test/support/cli.js';
import { RealSandbox, SMALL } from './small.js';

const SUITE = `name: suite
seed: 1
model: embedded
compute: { threads: 1 }
bench_redundancy:
  sae: latest
  context: 64
  shard_items: 32
  benchmarks:
    - { name: sums, source: sums.jsonl, prompt: "{a} + {b} =", answer: " {b}" }
    - { name: german, source: embedded-heldout, where: language=de, limit: 60 }
    - { name: chinese, source: embedded-heldout, where: language=zh, limit: 60 }
`;

describe('bench-redundancy on the embedded model', () => {
  const box = new RealSandbox();
  let measured: Result;
  let folder: string;
  beforeAll(async () => {
    const sums = Array.from({ length: 70 }, (_, n) => JSON.stringify({ a: n % 10, b: n % 7 }));
    writeFileSync(join(box.folder, 'sums.jsonl'), `${sums.join('\n')}\nno row\n{"a": 1}\n`);
    expect((await box.run(['train-sae', box.experiment(SMALL), '--quiet'])).code).toBe(0);
    measured = await box.run(['bench-redundancy', box.experiment(SUITE, 'suite.yaml')]);
    folder = box.runFolders().find((path) => path.includes('/suite-')) as string;
  });
  afterAll(() => box.remove());

  it('ends well, and shows prompts, rows left out and the table', () => {
    expect(measured.code).toBe(0);
    expect(measured.stderr).toContain('sums: 70 items, prompt {a} + {b} =, the first:\n0 + 0 =');
    expect(measured.stderr).toContain('sums: 2 rows left out');
    expect(measured.stderr).toMatch(/benchmark +items +features +per item +AUC +R-hat +advice/);
  });

  it('writes measures that keep their bounds', () => {
    const { benchmarks } = JSON.parse(readFileSync(join(folder, 'artifacts/redundancy.json'), 'utf8'));
    expect(benchmarks.map((row: { benchmark: string }) => row.benchmark)).toEqual(['sums', 'german', 'chinese']);
    for (const { items, features, r_hat, auc, drawn_gap } of benchmarks) {
      expect(r_hat).toBeGreaterThanOrEqual((items + 1) / (2 * features));
      expect(r_hat).toBeLessThan((items + 1) / features);
      expect(auc).toBeCloseTo((r_hat * features) / items, 10);
      expect(drawn_gap).toBeLessThan(5);
    }
    // Seventy sums of which no two are equal, yet all alike: they repeat each other more than texts do.
    expect(benchmarks[0].r_hat).toBeGreaterThan(benchmarks[1].r_hat);
    expect(benchmarks[0].twins).toBeGreaterThan(0);
  });

  it('lists the rows it left out by line', () => {
    const lines = readFileSync(join(folder, 'artifacts/faults.csv'), 'utf8').trim().split('\n');
    expect(lines[1]).toContain('sums.jsonl:71,not JSON');
    expect(lines[2]).toContain('sums.jsonl:72');
  });

  it('writes tables and JSON that every reader takes', () => {
    for (const name of readdirSync(join(folder, 'artifacts')).filter((one) => one.endsWith('.json'))) {
      JSON.parse(readFileSync(join(folder, 'artifacts', name), 'utf8'));
    }
    const [header] = readFileSync(join(folder, 'artifacts/overlap.csv'), 'utf8').split('\n', 1);
    expect(header?.trim()).toBe('benchmark,with,overlap,overlap_by_chance,excess,overlap_min');
    const subsets = JSON.parse(readFileSync(join(folder, 'artifacts/subsets.json'), 'utf8'));
    const [{ share, items, places }] = subsets.sums;
    expect(share).toBe(0.05);
    // Items are numbered from 0 and lines from 1.
    expect(places).toEqual(items.map((item: number) => `sums.jsonl:${item + 1}`));
  });

  it('measures how much of the model the answers use, where there are answers', () => {
    const { benchmarks } = JSON.parse(readFileSync(join(folder, 'artifacts/redundancy.json'), 'utf8'));
    const [sums, german] = benchmarks;
    expect(sums.answers).toBe(70);
    for (const name of ['mui', 'mui_neurons']) {
      expect(sums[name]).toBeGreaterThan(0);
      expect(sums[name]).toBeLessThan(1);
      // The only benchmark with answers: at its own size it is itself.
      expect(sums[`${name}_matched`]).toBeCloseTo(sums[name], 12);
    }
    expect(german).toMatchObject({ answers: null, mui: null, mui_neurons: null });
  });

  it('lists items that are there twice, by file and line, and says which benchmarks belong together', () => {
    const [header, ...rows] = readFileSync(join(folder, 'artifacts/near_duplicates.csv'), 'utf8').trim().split(/\r?\n/);
    expect(header).toBe('benchmark,place,item,with,with_place,with_item,jaccard,same_text');
    // Seventy sums of ten and seven: none has the words of another.
    const sums = rows.filter((row) => row.startsWith('sums,sums.jsonl:'));
    expect(sums.length).toBeGreaterThan(0);
    for (const row of sums) expect(Number(row.split(',').at(-2))).toBeGreaterThanOrEqual(0.9);
    const { benchmarks } = JSON.parse(readFileSync(join(folder, 'artifacts/redundancy.json'), 'utf8'));
    expect(benchmarks[0]).toMatchObject({ same_text_within: 0, same_text_elsewhere: 0 });
    expect(benchmarks[0].alike_within).toBeGreaterThanOrEqual(benchmarks[0].twins);
    const { order, clusters } = JSON.parse(readFileSync(join(folder, 'artifacts/clusters.json'), 'utf8'));
    expect([...order].sort()).toEqual(['chinese', 'german', 'sums']);
    expect(clusters.flat()).toEqual(order);
    for (const row of benchmarks) expect(clusters[row.cluster - 1]).toContain(row.benchmark);
  });

  it('has a report that shows every benchmark', async () => {
    const { code } = await box.run(['report', folder, '-o', join(box.folder, 'page.html')]);
    expect(code).toBe(0);
    const page = readFileSync(join(box.folder, 'page.html'), 'utf8');
    for (const text of ['Overlap by chance', 'Stability', 'Clusters', 'Near-duplicates', 'sums', 'german', 'chinese'])
      expect(page).toContain(text);
  });

  it('sets a panel of models beside the footprints', async () => {
    const rows = ['model,benchmark,item,score'];
    for (let model = 0; model < 5; model += 1) {
      for (let item = 0; item < 70; item += 1) rows.push(`m${model},sums,${item},${item % 7 <= model ? 1 : 0}`);
      // Every model is right on all of these: they rank nobody.
      for (let item = 0; item < 60; item += 1) rows.push(`m${model},even,${item},1`);
      for (let item = 0; item < 50; item += 1)
        rows.push(`m${model},odd,${item},${(item * 7 + model) % 5 <= model ? 1 : 0}`);
      rows.push(`m${model},elsewhere,0,1`);
    }
    writeFileSync(join(box.folder, 'scores.csv'), `${rows.join('\n')}\n`);
    const benchmarks = [
      '{ name: sums, source: sums.jsonl, prompt: "{a} + {b} =" }',
      '{ name: even, source: sums.jsonl, prompt: "{a} - {b} is", limit: 60 }',
      '{ name: odd, source: sums.jsonl, prompt: "{b} of {a}", limit: 50 }',
    ];
    const { code, stderr } = await box.run([
      'bench-redundancy',
      'suite.yaml',
      '--set',
      'name=panelled',
      '--set',
      `bench_redundancy.benchmarks=[${benchmarks.join(', ')}]`,
      '--set',
      'bench_redundancy.panel={ source: scores.csv, tide: sums, draws: 4 }',
    ]);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('5 scores are of benchmarks that are not measured here, by name: elsewhere (5)');
    expect(stderr).toContain('R unknown, every model has the same accuracy: even');
    const panelled = box.runFolders().find((path) => path.includes('/panelled-')) as string;
    const panel = JSON.parse(readFileSync(join(panelled, 'artifacts/panel.json'), 'utf8'));
    expect(panel.model_names).toEqual(['m0', 'm1', 'm2', 'm3', 'm4']);
    expect(panel.benchmarks).toEqual(['sums', 'even', 'odd']);
    expect(panel.r.even).toEqual([null, null]);
    expect(panel.r.sums[0]).toBeGreaterThan(0.5);
    expect(panel.direct[0][1]).toBeNull();
    expect(panel.partial[0]).toEqual([null, null, null]);
    expect(panel.r_spearman).toMatchObject({ value: null, n: 2 });
    expect((await box.run(['report', panelled, '-o', join(box.folder, 'panel.html')])).code).toBe(0);
    expect(readFileSync(join(box.folder, 'panel.html'), 'utf8')).toContain('A panel of models');
  });

  it('goes on after kill -9 with the shards it has, to the numbers of an undisturbed run', async () => {
    const settings = ['--set', 'bench_redundancy.shard_items=4', '--set', 'bench_redundancy.model_batch_tokens=64'];
    const calm = await box.run(['bench-redundancy', 'suite.yaml', '--set', 'name=calm', ...settings]);
    expect(calm.code, calm.stderr).toBe(0);
    const started = box.start(['bench-redundancy', 'suite.yaml', '--set', 'name=killed', ...settings, '--json']);
    const found = (name: string) => box.runFolders().find((path) => path.includes(`/${name}-`));
    const shards = (path: string | undefined, benchmark: string) => {
      const at = join(path ?? '', 'artifacts/activations', benchmark);
      return path && existsSync(at) ? readdirSync(at).filter((name) => /^shard-\d+\.json$/.test(name)) : [];
    };
    while (shards(found('killed'), 'german').length < 2) await sleep(2);
    const killed = found('killed') as string;
    process.kill(-JSON.parse(readFileSync(join(killed, 'process.json'), 'utf8')).pid, 'SIGKILL');
    expect((await started.ended).code).toBe(1);
    expect(existsSync(join(killed, 'artifacts/redundancy.json'))).toBe(false);
    const first = join(killed, 'artifacts/activations/german/shard-00000.json');
    const written = statSync(first).mtimeMs;
    const resumed = await box.run(['runs', 'resume', basename(killed), '--quiet']);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(statSync(first).mtimeMs).toBe(written);
    const undisturbed = found('calm') as string;
    for (const name of [
      'benchmarks.csv',
      'overlap.csv',
      'clusters.json',
      'near_duplicates.csv',
      'subsets.json',
      'stability.json',
      'faults.csv',
    ]) {
      const [one, other] = [killed, undisturbed].map((path) => readFileSync(join(path, 'artifacts', name), 'utf8'));
      expect(one, name).toBe(other);
    }
  });

  it('scores a panel of models itself, and goes on after kill -9 with what it has', async () => {
    const rows = Array.from({ length: 24 }, (_, n) => JSON.stringify({ a: n % 9, b: n % 7, c: (n % 9) + (n % 7) }));
    writeFileSync(join(box.folder, 'added.jsonl'), `${rows.join('\n')}\n{"a": 1, "b": 1}\n`);
    // Three models that differ: the embedded one, and two with fewer of its blocks.
    const embedded = join(ROOT, 'backend-py/qscope/embedded/model');
    for (const layers of [2, 4]) {
      const folder = join(box.folder, `blocks-${layers}`);
      cpSync(embedded, folder, { recursive: true });
      const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
      writeFileSync(
        join(folder, 'config.json'),
        JSON.stringify({ ...config, num_hidden_layers: layers, layer_types: undefined }),
      );
    }
    const score = (more: string) => `score: { answer: " {c}", ${more} }`;
    const benchmarks = [
      `{ name: share, source: added.jsonl, prompt: "2 + 4 = 6\\n5 + 9 = 14\\n{a} + {b} =", ${score('measure: tokens')} }`,
      `{ name: which, source: added.jsonl, prompt: "{b} + {a} =", ${score('measure: choice, choices: [" {c}", " 99"]')} }`,
      `{ name: exact, source: added.jsonl, prompt: "2 + 4 = 6\\n5 + 9 = 14\\n{a} + {b} =", ${score('measure: exact, max_tokens: 4, extract: "[0-9]+"')} }`,
    ];
    const settings = (name: string) => [
      'bench-redundancy',
      'suite.yaml',
      '--set',
      `name=${name}`,
      '--set',
      `bench_redundancy.benchmarks=[${benchmarks.join(', ')}]`,
      '--set',
      'bench_redundancy.panel={ models: [{ model: embedded }, { model: blocks-2 }, { model: ./blocks-4, name: four }], draws: 4 }',
    ];
    const calm = await box.run(settings('scored'));
    expect(calm.code, calm.stderr).toBe(0);
    expect(calm.stderr).toContain('scored four (3 of 3)');
    expect(calm.stderr).toContain(
      "share: 1 rows left out, listed in artifacts/faults.csv; the first: added.jsonl:25: no column 'c'",
    );
    const found = (name: string) => box.runFolders().find((path) => path.includes(`/${name}-`));
    const at = (name: string) => join(found(name) ?? '', 'artifacts');
    const panel = JSON.parse(readFileSync(join(at('scored'), 'panel.json'), 'utf8'));
    expect(panel.model_names).toEqual(['blocks-2', 'embedded', 'four']);
    // The embedded model adds where it is shown how; with two of its six blocks it does not.
    expect(panel.accuracy.exact[1]).toBeGreaterThan(panel.accuracy.exact[0]);
    expect(panel.accuracy.share[1]).toBeGreaterThan(panel.accuracy.share[0]);
    const lines = readFileSync(join(at('scored'), 'scores/four/which.csv'), 'utf8')
      .trim()
      .split(/\r?\n/);
    expect(lines[0]).toBe('model,benchmark,item,score');
    expect(lines).toHaveLength(25);

    const started = box.start([...settings('cut'), '--json']);
    const first = () => join(at('cut'), 'scores/embedded/share.csv');
    while (!existsSync(first())) await sleep(2);
    const cut = found('cut') as string;
    process.kill(-JSON.parse(readFileSync(join(cut, 'process.json'), 'utf8')).pid, 'SIGKILL');
    expect((await started.ended).code).toBe(1);
    expect(existsSync(join(cut, 'artifacts/panel.json'))).toBe(false);
    const resumed = await box.run(['runs', 'resume', basename(cut), '--quiet']);
    expect(resumed.code, resumed.stderr).toBe(0);
    const tables = readdirSync(join(at('scored'), 'scores'), { recursive: true, encoding: 'utf8' }).sort();
    expect(tables.filter((name) => name.endsWith('.csv'))).toHaveLength(9);
    expect(readdirSync(join(at('cut'), 'scores'), { recursive: true, encoding: 'utf8' }).sort()).toEqual(tables);
    for (const name of [...tables.filter((one) => one.endsWith('.csv')).map((one) => `scores/${one}`), 'panel.json'])
      expect(readFileSync(join(at('cut'), name), 'utf8'), name).toBe(readFileSync(join(at('scored'), name), 'utf8'));
  });

  it('refuses bad rows where asked to, with the line', async () => {
    const { code, stderr } = await box.run([
      'bench-redundancy',
      'suite.yaml',
      '--set',
      'bench_redundancy.bad_rows=refuse',
    ]);
    expect(code).toBe(65);
    expect(stderr).toContain('sums.jsonl:71: not JSON');
  });

  // More of them, recipe by recipe: backend-py/tests/recipes/test_refusals.py.
  it.each([
    ['bench_redundancy.benchmarks=[{name: a, source: sums.jsonl, prompt: "{z}"}]', 'has no item that can be used'],
    ['bench_redundancy.draws=1', 'draws'],
    ['bench_redundancy.panel={ source: a.csv, models: [{ model: embedded }] }', 'not both'],
    ['bench_redundancy.benchmarks=[{name: a, source: sums.jsonl, score: {measure: choice, answer: "{a}"}}]', 'choices'],
  ])('%s: one sentence and the place', async (setting, sentence) => {
    const { code, stderr } = await box.run(['bench-redundancy', 'suite.yaml', '--set', setting]);
    expect(code).toBe(65);
    expect(stderr).toContain(sentence);
    expect(stderr).not.toContain('Traceback');
  });
});
