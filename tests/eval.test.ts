import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../cli/test/support/cli.js';
import { RealSandbox } from './small.js';

const ROWS = join(ROOT, 'configs/embedded/rows/exercises-heldout.jsonl');
const EVAL = `name: eval
seed: 1
model: embedded
compute: { threads: 1 }
eval_responses:
  measures: [repeat, codeswitch, accuracy]
  prompts: { source: ${ROWS}, prompt: "{question}", answer: "{answer}", limit: 24 }
  format: { chat: true }
  sampling: { temperature: 1, max_tokens: 96 }
  samples: 2
  batch_rows: 8
`;
/** What a run leaves behind, byte for byte the same whatever was killed on the way. */
const EQUAL = ['responses.jsonl', 'results.json', 'findings.jsonl'];

const SAVED = [
  { response: 'The sum is 12.', ids: [1, 2, 3], truncated: false, answer: '12', language: 'en' },
  {
    response: 'so on '.repeat(16),
    ids: Array(16).fill([7, 8, 9, 10]).flat(),
    truncated: true,
    answer: '3',
    language: 'en',
  },
  { response: 'The 文件 is 4', ids: [4, 5], truncated: false, answer: '4', language: 'en' },
];

interface Share {
  value: number;
  low: number;
  high: number;
  n: number;
  count: number;
}

function resultsOf(folder: string) {
  return JSON.parse(readFileSync(join(folder, 'artifacts/results.json'), 'utf8'));
}

function bytes(folder: string, name: string): string {
  return readFileSync(join(folder, 'artifacts', name), 'utf8');
}

describe('eval of the embedded model', () => {
  const box = new RealSandbox();
  let whole: string;
  let table: string[];
  beforeAll(async () => {
    await box.keepWorker();
    const { code, stderr } = await box.run(['eval', box.experiment(EVAL, 'eval.yaml')]);
    expect(code, stderr).toBe(0);
    whole = box.runFolder();
    const lines = stderr.split('\n');
    table = lines.slice(
      lines.findIndex((line) => line.startsWith('48 responses to 24 prompts')),
      lines.indexOf('done'),
    );
  });
  afterAll(() => box.remove());

  it('shows shares with their interval and n, in 80 columns', () => {
    expect(table[1]).toMatch(/^ +share {2}95 % interval +n$/);
    const text = table.join('\n');
    for (const words of [
      'repeat: endless',
      'cut off at the limit',
      'repeated 3-grams',
      'switch: de to any',
      'right (last-number)',
    ]) {
      expect(text).toContain(words);
    }
    expect(text).toMatch(/^switch: all to any +[\d.]+ % {2}[\d.]+ - [\d.]+ % +48$/m);
    expect(text.replace(/\s+/g, ' ')).toContain('not independent of each other');
    for (const line of table) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('says the same in results.json, in its events and on its page', async () => {
    const { repeat, codeswitch, accuracy } = resultsOf(whole);
    const rows = bytes(whole, 'responses.jsonl')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(rows.length).toBe(48);
    expect(repeat.cut_off.value).toBeCloseTo(rows.filter(({ truncated }) => truncated).length / 48, 12);
    expect(codeswitch.micro_average[0].count).toBe(
      codeswitch.pairs.reduce((sum: number, { count }: Share) => sum + count, 0),
    );
    expect(accuracy.right.n + accuracy.without_answer).toBe(48);
    const page = join(box.folder, 'page.html');
    expect((await box.run(['report', whole, '-o', page])).code).toBe(0);
    const html = readFileSync(page, 'utf8');
    for (const words of ['Shares', 'endless', 'Wilson', 'artifacts/findings.jsonl']) expect(html).toContain(words);
  });

  it('goes on after kill -9 to the same bytes', { timeout: 240_000 }, async () => {
    for (const wanted of [1, 3]) {
      const name = `killed-${wanted}`;
      const attempt = box.start(['eval', 'eval.yaml', '--set', `name=${name}`]);
      const folder = await started(name);
      await until(() => batchesOf(folder) >= wanted);
      const { pid } = JSON.parse(readFileSync(join(folder, 'process.json'), 'utf8'));
      process.kill(-pid, 'SIGKILL');
      expect((await attempt.ended).code).toBe(1);
      const { code, stderr } = await box.run(['runs', 'resume', basename(folder)]);
      expect(code, stderr).toBe(0);
      expect(stderr).toContain('are kept from before');
      for (const one of EQUAL) expect(bytes(folder, one)).toBe(bytes(whole, one));
    }
  });

  it('reads its own responses again, by run and by file, and finds the same', async () => {
    const named = ['--json', '--set', 'compute.threads=1'];
    const { code, stdout, stderr } = await box.run([
      'eval',
      'repeat',
      '--also',
      'accuracy',
      '--responses',
      basename(whole),
      '--name',
      'again',
      ...named,
    ]);
    expect(code, stderr).toBe(0);
    const again = await started('again');
    for (const measure of ['repeat', 'accuracy']) expect(resultsOf(again)[measure]).toEqual(resultsOf(whole)[measure]);
    const events = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const values = events.find(({ metrics }) => metrics)?.metrics.entries[0].values;
    expect(values.accuracy).toBe(resultsOf(whole).accuracy.right.value);
    expect(values.repeat_ratio).toBe(resultsOf(whole).repeat.endless.value);
  });

  async function started(name: string): Promise<string> {
    let found: string | undefined;
    await until(() => {
      found = box.runFolders().find((path) => basename(path).startsWith(`${name}-`));
      return found !== undefined && existsSync(join(found, 'process.json'));
    });
    return found as string;
  }

  function batchesOf(folder: string): number {
    const path = join(folder, 'artifacts/progress.json');
    return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).state.batches : 0;
  }
});

describe('eval of saved responses', () => {
  const box = new RealSandbox();
  beforeAll(async () => {
    await box.keepWorker();
    writeFileSync(join(box.folder, 'out.jsonl'), `${SAVED.map((row) => JSON.stringify(row)).join('\n')}\nno row\n`);
  });
  afterAll(() => box.remove());

  it('loads no model, leaves out what is no row, and counts by hand', async () => {
    const { code, stderr } = await box.run([
      'eval',
      'repeat',
      '--also',
      'codeswitch',
      '--also',
      'accuracy',
      '--responses',
      'out.jsonl',
    ]);
    expect(code, stderr).toBe(0);
    expect(stderr).not.toContain('attention:');
    expect(stderr).toContain('1 rows left out, listed in artifacts/faults.csv');
    const { model, responses, repeat, codeswitch, accuracy } = resultsOf(box.runFolder());
    expect({ model, responses }).toEqual({ model: '', responses: 3 });
    expect([repeat.endless.count, repeat.endless.n, repeat.over]).toEqual([1, 3, 'tokens']);
    expect([codeswitch.pairs[0].expected, codeswitch.pairs[0].count]).toEqual(['en', 1]);
    expect([accuracy.right.count, accuracy.right.n]).toEqual([2, 3]);
  });

  it.each([
    [['codeswitch', '--responses', 'out.jsonl', '--target', 'xx'], "The language 'xx' is not known."],
    [['accuracy', '--responses', 'out.jsonl', '--rule', 'boxed'], "There is no rule 'boxed' for answers."],
    [['repeat', '--model', 'embedded', '--prompts', 'out.jsonl'], 'which column'],
  ])('%j is one sentence with a remedy and a place, exit code 65', async (args, sentence) => {
    const { code, stderr } = await box.run(['eval', ...args]);
    expect(stderr).toContain(sentence);
    expect(stderr).not.toContain('Traceback');
    expect(code).toBe(65);
  });
});

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(20);
}
