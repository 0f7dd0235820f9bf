import { create, toJsonString } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from 'vitest';
import { ExperimentSchema } from '../../../src/gen/qscope/v1/experiment_pb.js';
import { type Report, ReportSchema, type ReportSection, ReportTone } from '../../../src/gen/qscope/v1/report_pb.js';
import { LogLevel, type RunEvent, RunEventSchema, RunState } from '../../../src/gen/qscope/v1/run_event_pb.js';
import { RunSchema } from '../../../src/gen/qscope/v1/run_pb.js';
import { runReport } from '../../../src/view/report/build.js';
import { reportPage } from '../../../src/view/report/page.js';
import { RunStory } from '../../../src/view/report/story.js';
import { all, parseHtml } from '../../support/html.js';
import { everyKind, OPTIONS } from './fixture.js';

type Happening = Exclude<RunEvent['event'], { case: undefined }>;

/** A run as its journal tells it, a second from event to event. */
class Journal {
  readonly story = new RunStory();
  private sequence = 0n;
  private seconds = 0;

  say<C extends Happening['case']>(name: C, value: object): this {
    this.sequence += 1n;
    this.seconds += 1;
    const time = timestampFromDate(new Date(Date.UTC(2026, 2, 1, 14, 5, this.seconds)));
    this.story.apply(create(RunEventSchema, { sequence: this.sequence, time, event: { case: name, value } as never }));
    return this;
  }

  wait(seconds: number): this {
    this.seconds += seconds;
    return this;
  }

  running = () => this.say('stateChanged', { state: RunState.RUNNING });

  metrics = (step: number, layers: Record<number, Record<string, number>>) =>
    this.say('metrics', {
      entries: Object.entries(layers).map(([layer, values]) => ({ step: BigInt(step), layer: Number(layer), values })),
    });
}

const NOW = new Date(Date.UTC(2026, 2, 1, 15, 0));
const EXPERIMENT = create(ExperimentSchema, {
  name: 'small',
  seed: 3,
  model: 'embedded',
  task: { case: 'trainSae', value: { layers: [1, 4], tokens: 4096n } },
});

function reportOf({ story }: Journal, run: object = {}, files: Record<string, string> = {}): Promise<Report> {
  const { sequence: lastSequence } = story;
  const facts = { runId: 'small-1a2b', verb: 'train-sae', folder: '/runs/small-1a2b', state: RunState.SUCCEEDED };
  return runReport({
    run: create(RunSchema, { ...facts, lastSequence, ...run }),
    story,
    origin: {
      yaml: 'name: small\n',
      experiment: EXPERIMENT,
      versions: { qscope: '0.1.0', torch: '2.13.0', git: 'c0ffee' },
    },
    now: NOW,
    read: (path) => files[path],
  });
}

const headings = ({ sections }: Report) => sections.map(({ heading }) => heading);

function find(report: Report, heading: string): ReportSection {
  const within = (sections: ReportSection[]): ReportSection[] =>
    sections.flatMap((section) => [section, ...within(section.sections)]);
  const found = within(report.sections).find((section) => section.heading === heading);
  if (!found) throw new Error(`no section "${heading}" in ${headings(report).join(', ')}`);
  return found;
}

const plotOf = (report: Report, heading: string) => {
  const { content } = find(report, heading);
  if (content.case !== 'linePlot') throw new Error(`${heading} is no plot`);
  return content.value;
};

const trained = () =>
  new Journal()
    .running()
    .say('log', { level: LogLevel.INFO, text: 'loading embedded' })
    .metrics(10, {
      1: { fvu: 0.5, l0: 8 },
      4: { fvu: 0.6, l0: 8 },
      [-1]: { fvu: 0.55, tokens: 5120, tokens_per_second: 900 },
    })
    .metrics(20, {
      1: { fvu: 0.3, l0: 8 },
      4: { fvu: 0.4, l0: 7.5 },
      [-1]: { fvu: 0.35, tokens: 10_240, tokens_per_second: 950 },
    });

describe('a run that went well', () => {
  test('tells what it was, its values, its curves and how to repeat it', async () => {
    const report = await reportOf(
      trained().say('artifact', { path: 'artifacts/sae/native', kind: 'sae', description: '2 SAEs' }),
    );
    expect(report.title).toBe('small-1a2b');
    expect(report.subtitle).toBe('train-sae on embedded: succeeded, after 0:04, 20 steps');
    expect(headings(report)).toEqual([
      'The run',
      'Newest values by layer',
      'Over the run',
      'Results in the run folder',
      'What the run said',
      'How to repeat it',
    ]);
    const facts = find(report, 'The run').content.value as { facts: Array<{ name: string; value: string }> };
    expect(Object.fromEntries(facts.facts.map(({ name, value }) => [name, value]))).toEqual({
      run: 'small-1a2b',
      state: 'succeeded',
      verb: 'train-sae',
      model: 'embedded',
      began: '2026-03-01 14:05 UTC',
      'worked for': '0:04',
      steps: '20',
      tokens: '10.2k',
      seed: '3',
      qscope: '0.1.0',
      torch: '2.13.0',
    });
    expect(find(report, 'How to repeat it').content.value).toMatchObject({ text: 'qscope train-sae small.yaml' });
    expect(find(report, 'How to repeat it').text).toContain('qscope at commit c0ffee');
    expect(find(report, 'small.yaml, with every value').content.value).toMatchObject({
      text: expect.stringMatching(/^name: small\nseed: 3\nmodel: embedded\n.*layers: \[ ?1, 4 ?\]/s),
    });
  });

  test('one curve a layer, or one for the run where no layer has any; the exact values', async () => {
    const report = await reportOf(trained());
    expect(find(report, 'Over the run').sections.map(({ heading }) => heading)).toEqual([
      'Fraction of variance unexplained (FVU)',
      'Active features per token (L0)',
      'Tokens per second',
    ]);
    const fvu = plotOf(report, 'Fraction of variance unexplained (FVU)');
    expect(fvu.series.map(({ name, x, y }) => ({ name, x, y }))).toEqual([
      { name: 'layer 1', x: [10, 20], y: [0.5, 0.3] },
      { name: 'layer 4', x: [10, 20], y: [0.6, 0.4] },
    ]);
    expect(fvu.ordered).toBe(true);
    expect(plotOf(report, 'Tokens per second').series).toMatchObject([{ name: 'tokens_per_second', y: [900, 950] }]);
  });

  test('steps that were done again after a resume count once, the resume is marked, and the pause is no work', async () => {
    const journal = trained()
      .say('checkpoint', { path: 'checkpoints/step-000000010', step: 10n, bytes: 2048n })
      .wait(5000)
      .running()
      .metrics(20, { 1: { fvu: 0.29 } })
      .metrics(30, { 1: { fvu: 0.2 } });
    const report = await reportOf(journal);
    const [curve] = plotOf(report, 'Fraction of variance unexplained (FVU)').series;
    expect([curve?.x, curve?.y]).toEqual([
      [10, 20, 30],
      [0.5, 0.29, 0.2],
    ]);
    expect(plotOf(report, 'Fraction of variance unexplained (FVU)').markers).toMatchObject([
      { x: 10, label: 'resumed' },
    ]);
    expect(report.subtitle).toContain('after 0:06');
  });

  test('a long run of many layers keeps its page below 300 kB', async () => {
    const journal = new Journal().running();
    const names = ['fvu', 'l0', 'dead_share', 'loss', 'aux_loss', 'grad_norm'];
    for (let step = 10; step <= 20_000; step += 10) {
      const layer = (index: number) =>
        Object.fromEntries(names.map((name) => [name, Math.exp(-step / 9e3) + Math.sin(index + step) / 9]));
      journal.metrics(step, Object.fromEntries(Array.from({ length: 36 }, (_, index) => [index, layer(index)])));
    }
    const report = await reportOf(journal);
    const plot = plotOf(report, 'Fraction of variance unexplained (FVU)');
    expect(plot.series).toHaveLength(36);
    expect(plot.series[0]?.x.length).toBeGreaterThan(40);
    expect(reportPage(report, OPTIONS).length).toBeLessThan(300_000);
    expect(find(report, 'Over the run').text).toMatch(
      /^By step, one curve a layer\. Of 2,000 points of a curve \d+ are drawn/,
    );
  });
});

describe('a run that did not end well', () => {
  test('says first that it failed, why, what to do, and the end of its log', async () => {
    const failure = {
      message: 'The loss became NaN.',
      remedy: 'Lower the learning rate.',
      field: 'train_sae.optimizer',
    };
    const report = await reportOf(trained(), { state: RunState.FAILED, failure, logTail: ['step 4', '<step 5>'] });
    expect(report.sections[0]).toMatchObject({
      heading: 'The run failed',
      tone: ReportTone.ERROR,
      text: 'The loss became NaN.\n\nLower the learning rate.\n\nThe place: train_sae.optimizer',
      content: { case: 'verbatim', value: { text: 'step 4\n<step 5>' } },
    });
    const bug = await reportOf(trained(), {
      state: RunState.FAILED,
      failure: { message: 'm', traceback: 'Traceback\n' },
      logTail: ['x'],
    });
    expect(bug.sections[0]?.content.value).toMatchObject({ text: 'Traceback' });
  });

  test('a run that still works says as of when', async () => {
    const progress = { phase: 'training', current: 10_240, total: 40_960, unit: 'tokens' };
    const report = await reportOf(trained(), { state: RunState.RUNNING, progress });
    expect(report.sections[0]).toMatchObject({
      heading: 'The run still works',
      text: expect.stringContaining(
        'as of 2026-03-01 15:00 UTC, event 4, 25.0% through training (10.2k of 41.0k tokens). For newer ones',
      ),
    });
    expect(report.subtitle).toContain('running');
  });

  test('a stopped run says how to go on', async () => {
    const report = await reportOf(trained(), { state: RunState.CANCELLED, resumable: true });
    expect(report.sections[0]?.text).toBe('It was stopped on request.\n\nGo on with: qscope runs resume small-1a2b');
  });

  test('warnings come once each, with how often they were given', async () => {
    const journal = trained();
    for (const text of ['FVU > 1', 'low memory', 'FVU > 1']) journal.say('log', { level: LogLevel.WARNING, text });
    const [first] = (await reportOf(journal)).sections;
    expect([first?.heading, first?.text]).toEqual(['2 warnings', 'FVU > 1 (2 times)\n\nlow memory']);
  });

  test('a run with one event makes a page all the same', async () => {
    const report = await reportOf(new Journal().running(), { state: RunState.FAILED });
    expect(headings(report)).toEqual(['The run failed', 'The run', 'How to repeat it']);
    parseHtml(reportPage(report, OPTIONS));
  });
});

describe('artifacts', () => {
  const evaluated = () => trained().say('artifact', { path: 'artifacts/evaluation.json', kind: 'evaluation' });
  const found = () => trained().say('artifact', { path: 'artifacts/report.json', kind: 'report' });
  const EVALUATION = {
    tokens: 2048,
    filtered_tokens: 2016,
    source: { source: 'embedded-heldout' },
    layers: { 1: { fvu: 0.1, kl: null, fvu_all_tokens: 0.2 }, 4: { fvu: 0.3, kl: 0.01, fvu_all_tokens: 0.4 } },
    density: {
      1: { log10_edges: [-1, -0.5, 0], features: [3, 1], silent: [4] },
      4: { log10_edges: [], features: [], silent: [8] },
    },
  };

  test('an evaluation becomes a table with its n, the density a plot', async () => {
    const report = await reportOf(evaluated(), {}, { 'artifacts/evaluation.json': JSON.stringify(EVALUATION) });
    const section = find(report, 'Evaluation on held-out text');
    expect(section.text).toMatch(/^One pass over 2,048 tokens of embedded-heldout/);
    const [table] = all(parseHtml(reportPage(report, OPTIONS)), 'table', 'sortable');
    const rows = all(table as never, 'tr').map((row) =>
      row.children.map((cell) => (cell as never as { children: [] }).children.join('')),
    );
    expect(rows.slice(1)).toEqual([
      ['1', '0.1000', ''],
      ['4', '0.3000', '0.0100'],
    ]);
    expect(plotOf(report, 'How often features fire').series).toMatchObject([
      { name: 'layer 1', x: [-0.75, -0.25], y: [3 / 8, 1 / 8] },
    ]);
    expect(find(report, 'How often features fire').text).toContain('Never fired: 4 in layer 1, 8 in layer 4.');
    expect(headings(report)).not.toContain('Newest values by layer');
  });

  test('what the recipe found stands before the measures, under its own title', async () => {
    const text = toJsonString(ReportSchema, everyKind());
    const report = await reportOf(found(), {}, { 'artifacts/report.json': text });
    expect(report.title).toBe(everyKind().title);
    expect(report.subtitle).toBe(everyKind().subtitle);
    const order = headings(report);
    expect(order.indexOf('The run')).toBe(0);
    expect(order.slice(1, 1 + everyKind().sections.length)).toEqual(headings(everyKind()));
    expect(order.indexOf('Over the run')).toBeGreaterThan(order.indexOf('The spec as it ran'));
  });

  test('a file that is gone is said, not failed over', async () => {
    const report = await reportOf(found());
    expect(report.sections[0]?.text).toBe(
      'The run wrote artifacts/report.json, but the file is gone; this page goes without it.',
    );
  });

  test.each([
    ['report', '{"sections": 3}', /report\.json cannot be read \(.*sections/],
    ['report', 'not json', /cannot be read/],
    [
      'report',
      '{"sections": [{"matrix": {"row_labels": ["a"], "column_labels": ["b"], "values": [1, 2]}}]}',
      /sections\[0\]\.matrix: a matrix needs one value for each row and column/,
    ],
    ['evaluation', '{"layers": {}}', /evaluation\.json cannot be read/],
    [
      'evaluation',
      JSON.stringify({ ...EVALUATION, density: { 1: { log10_edges: [0], features: [1, 2], silent: [] } } }),
      /cannot be/,
    ],
    ['evaluation', '{', /cannot be read/],
  ])('an unreadable %s is one sentence with a remedy: %s', async (kind, text, sentence) => {
    const path = `artifacts/${kind}.json`;
    const journal = trained().say('artifact', { path, kind });
    await expect(reportOf(journal, {}, { [path]: text })).rejects.toMatchObject({
      name: 'UserError',
      message: expect.stringMatching(sentence),
      hint: expect.stringMatching(/file/),
    });
  });
});
