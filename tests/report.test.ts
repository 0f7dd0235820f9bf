import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Browser, findBrowser } from '../cli/test/support/browser.js';
import { all, parseHtml, textOf } from '../cli/test/support/html.js';
import { RealSandbox, SMALL } from './small.js';

const EVALUATED = `${SMALL}  evaluate:
    text: { source: embedded-heldout, context: 64 }
    tokens: 2048
  metrics: { every_steps: 2 }
`;

const browser = findBrowser();

describe('report of a train-sae run', () => {
  const box = new RealSandbox();
  let file: string;
  let page: string;
  beforeAll(async () => {
    await box.run(['train-sae', box.experiment(EVALUATED), '--quiet']);
    const { code, stdout, stderr } = await box.run(['report', 'latest']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringMatching(/^[\d.]+ KiB\n$/) });
    file = stdout.trim();
    page = readFileSync(file, 'utf8');
  });
  afterAll(() => box.remove());

  it('is one small page in the run folder, with every part', () => {
    expect(file).toBe(join(box.runFolder(), 'report.html'));
    expect(page.length).toBeLessThan(300_000);
    const parsed = parseHtml(page);
    expect(textOf(all(parsed, 'h1')[0] as never)).toMatch(/^small-\w+$/);
    expect(textOf(all(parsed, 'section', 'warning')[0] as never)).toMatch(/^One warning.*32 steps are few for an SAE/);
    expect(all(parsed, 'h2').map(textOf)).toEqual([
      'One warning',
      'The run',
      'Evaluation on held-out text',
      'Over the run',
      'Results in the run folder',
      'What the run said',
      'How to repeat it',
    ]);
  });

  it('shows the numbers that the run wrote', () => {
    const parsed = parseHtml(page);
    const evaluation = JSON.parse(readFileSync(join(box.runFolder(), 'artifacts/evaluation.json'), 'utf8'));
    const [table] = all(parsed, 'table', 'sortable');
    const rows = all(table as never, 'tr').map((row) => row.children.map((cell) => textOf(cell as never)));
    const fvu = rows[0]?.indexOf('FVU') as number;
    expect(rows.slice(1).map((row) => [row[0], row[fvu]])).toEqual(
      ['1', '4'].map((layer) => [layer, evaluation.layers[layer].fvu.toFixed(4)]),
    );
    const events = readFileSync(join(box.runFolder(), 'events.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const told = events
      .flatMap(({ metrics }) => metrics?.entries ?? [])
      .filter(({ layer, values }) => layer === 4 && 'fvu' in values)
      .map(({ step, values }) => [Number(step), values.fvu]);
    const plots = all(parsed, 'script').filter(({ attributes }) => attributes.has('type'));
    const plot = plots.map(({ children }) => JSON.parse(children[0] as string)).find(({ y }) => y[1] === 4);
    const shown = plot.values[0].map((step: number, index: number) => [step, plot.curves[1][2][index]]);
    expect(shown).toEqual(told.map(([step, value]) => [step, Number(value.toPrecision(5))]));
    expect(shown.length).toBe(16);
  });

  it('says how to repeat the run, and the experiment it shows is one that runs', async () => {
    const [command, , complete] = all(parseHtml(page), 'pre').slice(-3).map(textOf);
    expect(command).toBe('qscope train-sae small.yaml');
    writeFileSync(join(box.folder, 'again.yaml'), complete as string);
    expect((await box.run(['config', 'check', 'again.yaml'])).code).toBe(0);
    const frozen = JSON.parse(readFileSync(join(box.runFolder(), 'experiment.json'), 'utf8'));
    expect(complete).toContain(`seed: ${frozen.seed}\n`);
  });

  it('--json writes the same as data, -o another file, and a folder names a run too', async () => {
    const { stdout } = await box.run(['report', box.runFolder(), '--json', '--runs-dir', 'elsewhere']);
    const report = JSON.parse(stdout);
    expect(report.sections.map(({ heading }: { heading: string }) => heading)).toEqual(
      all(parseHtml(page), 'h2').map(textOf),
    );
    const other = await box.run(['report', 'latest', '-o', 'other.html']);
    expect(other.stdout.trim()).toBe(join(box.folder, 'other.html'));
    const sameButTheTime = (text: string) => text.replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d UTC/g, '');
    expect(sameButTheTime(readFileSync(join(box.folder, 'other.html'), 'utf8'))).toBe(sameButTheTime(page));
  });

  it.skipIf(!browser)(browser ? 'opens in Chromium without a complaint' : 'SKIPPED: no Chromium here', async () => {
    const chromium = await Browser.start(browser as string);
    try {
      const shown = await chromium.open(`file://${file}`);
      expect(await shown.evaluate(`document.querySelectorAll('.canvas .reader').length`)).toBe(
        all(parseHtml(page), 'figure').length,
      );
      expect(shown.complaints).toEqual([]);
      expect(shown.requests).toEqual([`file://${file}`]);
    } finally {
      await chromium.close();
    }
  });

  it.each([
    ['a run that is not there', ['report', 'nosuch'], 2, /^There is no run "nosuch" in .*\n.*qscope runs list/],
    [
      'a folder that is none of a run',
      ['report', './nowhere'],
      2,
      /^\.\/nowhere is not a run folder .*\nGive a run by its id/,
    ],
    [
      'a place that cannot be written',
      ['report', 'latest', '-o', '.'],
      1,
      /cannot be written to .*\nChoose another file/,
    ],
    ['a page and data at once', ['report', 'latest', '--json', '--open'], 2, /cannot be used with/],
  ])('refuses %s in one sentence with a remedy', async (_, args, expected, sentence) => {
    const { code, stdout, stderr } = await box.run(args);
    expect(stderr).toMatch(sentence);
    expect(stderr).not.toMatch(/at .*\.js:\d+|Traceback/);
    expect({ code, stdout }).toEqual({ code: expected, stdout: '' });
  });

  it('refuses a report.json that cannot be read, and a run without events', async () => {
    const folder = box.runFolder();
    const journal = readFileSync(join(folder, 'events.jsonl'), 'utf8');
    const copy = (name: string, events: string) => {
      const path = join(box.folder, 'copies', name);
      mkdirSync(join(path, 'artifacts'), { recursive: true });
      for (const file of ['run.json', 'experiment.json', 'config.yaml'])
        writeFileSync(join(path, file), readFileSync(join(folder, file)));
      writeFileSync(join(path, 'events.jsonl'), events);
      return path;
    };
    const lines = journal.trim().split('\n');
    const sequence = lines.length.toString();
    const announced = {
      sequence,
      time: '2026-03-01T14:05:00Z',
      artifact: { path: 'artifacts/report.json', kind: 'report' },
    };
    const end = { ...JSON.parse(lines.at(-1) as string), sequence: String(lines.length + 1) };
    const damaged = copy(
      'damaged-1',
      [...lines.slice(0, -1), JSON.stringify(announced), JSON.stringify(end), ''].join('\n'),
    );
    const without = await box.run(['report', damaged]);
    expect(without.code).toBe(0);
    expect(readFileSync(join(damaged, 'report.html'), 'utf8')).toContain('artifacts/report.json, but the file is gone');
    writeFileSync(join(damaged, 'artifacts/report.json'), '{"sections": [');
    const broken = await box.run(['report', damaged]);
    expect(broken.stderr).toMatch(/^The report artifacts\/report\.json cannot be read \(.*\)\.\nIt is damaged/);
    expect(broken.code).toBe(1);
    const empty = await box.run(['report', copy('empty-1', '')]);
    expect(empty.stderr).toMatch(/^The run empty-1 has no event to report yet\.\n.*qscope runs logs empty-1/);
    expect(empty.code).toBe(1);
    expect(existsSync(join(box.folder, 'copies/empty-1/report.html'))).toBe(false);
  });
});

describe('report of a run that has not ended well', () => {
  const box = new RealSandbox();
  afterAll(() => box.remove());

  it('a working run: as of now, and the run goes on', async () => {
    const long = ['--set', 'train_sae.tokens=50000000', '--set', 'train_sae.metrics.every_steps=2'];
    const cli = box.start(['train-sae', box.experiment(SMALL), ...long]);
    await cli.saw(/training +\d/);
    const { code, stderr } = await box.run(['report', 'latest']);
    expect(stderr).toMatch(/the run still works\n$/);
    expect(code).toBe(0);
    const page = parseHtml(readFileSync(join(box.runFolder(), 'report.html'), 'utf8'));
    expect(textOf(all(page, 'section', 'warning')[0] as never)).toMatch(
      /^The run still works.*All numbers are as of .* UTC, event \d+/s,
    );
    expect((await box.run(['runs', 'show', 'latest'])).stdout).toMatch(/state +running/);
    cli.child.kill('SIGINT');
    await cli.ended;
    await box.run(['report', 'latest']);
    const stopped = readFileSync(join(box.runFolder(), 'report.html'), 'utf8');
    expect(stopped).toContain('The run was stopped before its end');
    expect(stopped).toMatch(/Go on with: qscope runs resume small-\w+/);
  });

  it('a failed run: why, and the end of its log', async () => {
    await box.run([
      'train-sae',
      box.experiment(SMALL.replace('name: small', 'name: failing')),
      '--set',
      'model=./nowhere',
    ]);
    const { code, stdout } = await box.run(['report', 'failing']);
    expect(code).toBe(0);
    const page = parseHtml(readFileSync(stdout.trim(), 'utf8'));
    const [error] = all(page, 'section', 'error');
    expect(textOf(error as never)).toMatch(/^The run failed.*nowhere.*The place: model/s);
    expect(all(page, 'section')[0]).toBe(error);
  });
});
