import { create } from '@bufbuild/protobuf';
import { Chalk } from 'chalk';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { LogLevel, type RunEvent, RunEventSchema, RunState } from '../../src/gen/qscope/v1/run_event_pb.js';
import { PlanSchema, type Run, RunSchema } from '../../src/gen/qscope/v1/run_pb.js';
import { JsonReporter } from '../../src/view/json-reporter.js';
import { layerTable } from '../../src/view/layer-table.js';
import { PlainReporter } from '../../src/view/plain-reporter.js';
import { planLines } from '../../src/view/plan-view.js';
import { joinFields, progressFields } from '../../src/view/progress-line.js';
import { RunModel } from '../../src/view/run-model.js';

let sequence = 0n;
type Happening = Exclude<RunEvent['event'], { case: undefined }>;

function event<C extends Happening['case']>(name: C, value: object): RunEvent {
  sequence += 1n;
  return create(RunEventSchema, { sequence, event: { case: name, value } as never });
}

const progress = (current: number, more: object = {}) =>
  event('progress', {
    phase: 'training',
    current,
    total: 5_000_000,
    unit: 'tokens',
    rate: 14_200,
    etaSeconds: 201,
    ...more,
  });

const metrics = (layer: number, values: Record<string, number>) =>
  event('metrics', { entries: [{ step: 7n, layer, values }] });

const run = (fields: object): Run => create(RunSchema, { runId: 'demo-1a2b', folder: '/runs/demo-1a2b', ...fields });

function modelOf(...events: RunEvent[]): RunModel {
  const model = new RunModel();
  for (const each of events) model.apply(each);
  return model;
}

const training = () =>
  modelOf(progress(1_234_567), metrics(-1, { fvu: 0.2131, l0: 32, dead_share: 0.004, tokens_per_second: 14_200 }));

describe('the live line', () => {
  test('the bar shrinks first, then fields go from the right', () => {
    const lines = [100, 77, 57, 37, 20].map((width) => joinFields(progressFields(training(), width)));
    expect(`\n${lines.join('\n')}\n`).toMatchInlineSnapshot(`
      "
      training  [##--------]  1.2M/5.0M  14.2k tok/s  ETA 3:21  FVU 0.213  dead 0.4%  L0 32.0
      training  [#-------]  1.2M/5.0M  14.2k tok/s  ETA 3:21  FVU 0.213  dead 0.4%
      training  [##--------]  1.2M/5.0M  14.2k tok/s  ETA 3:21
      training  [##--------]  1.2M/5.0M
      training  [#-------]
      "
    `);
  });

  test('keeps to its width whatever the numbers', () => {
    const model = modelOf(
      progress(999_999_999, { phase: 'evaluating', total: 1e12, rate: 123_456, etaSeconds: 9e6 }),
      metrics(-1, { fvu: 12345.678, l0: 1023.5, dead_share: 1 }),
    );
    for (let width = 15; width < 120; width++) {
      expect(joinFields(progressFields(model, width)).length).toBeLessThanOrEqual(width);
    }
  });

  test('shows what there is before rates and totals are known', () => {
    expect(joinFields(progressFields(new RunModel(), 80))).toBe('');
    const loading = modelOf(progress(0, { phase: 'loading', total: 0, rate: 0, etaSeconds: -1, unit: '' }));
    expect(joinFields(progressFields(loading, 80))).toBe('loading');
    const first = modelOf(progress(0, { rate: 0, etaSeconds: -1 }));
    expect(joinFields(progressFields(first, 80))).toBe('training  [----------]  0/5.0M  tokens');
  });
});

describe('the table of layers', () => {
  const evaluated = () =>
    modelOf(
      ...[0, 10].flatMap((layer) => [
        metrics(layer, {
          fvu: 0.2,
          l0: 32,
          dead_share: 0.01,
          loss: 0.5,
          aux_loss: 0,
          grad_norm: 1e-5,
          learning_rate: 1e-4,
        }),
        metrics(layer, {
          eval_fvu: 0.21 + layer / 100,
          eval_cosine: 0.9,
          eval_l0: 31.96,
          eval_ce_recovered: 0.98765,
          eval_ce_delta: 0.01,
          eval_kl: 0.00001,
          eval_dead_share: 0.0125,
          eval_fvu_all_tokens: Number.NaN,
        }),
      ]),
      metrics(-1, { eval_fvu: 0.26, tokens: 5e6 }),
    );

  test('prefers what the evaluation measured and leaves out from the right', () => {
    expect(`\n${layerTable(evaluated()).join('\n')}\n`).toMatchInlineSnapshot(`
      "
      layer     FVU  cosine    L0  dead  CE rec.    CE +      KL  FVU all    loss  aux loss  gradient  learning_rate
          0  0.2100  0.9000  32.0  1.3%   0.9877  0.0100  1.0e-5      NaN  0.5000         0   1.00e-5        1.00e-4
         10  0.3100  0.9000  32.0  1.3%   0.9877  0.0100  1.0e-5      NaN  0.5000         0   1.00e-5        1.00e-4
        all  0.2600
      "
    `);
    expect(`\n${layerTable(evaluated(), 60).join('\n')}\n`).toMatchInlineSnapshot(`
      "
      layer     FVU  cosine    L0  dead  CE rec.    CE +      KL
          0  0.2100  0.9000  32.0  1.3%   0.9877  0.0100  1.0e-5
         10  0.3100  0.9000  32.0  1.3%   0.9877  0.0100  1.0e-5
        all  0.2600
      "
    `);
    for (const line of layerTable(evaluated(), 80)) expect(line.length).toBeLessThanOrEqual(80);
  });

  test('shows names that nobody foresaw', () => {
    expect(layerTable(modelOf(metrics(3, { fvu: 0.5, novelty: 123.456 })))).toEqual([
      'layer     FVU  novelty',
      '    3  0.5000    123.5',
    ]);
  });

  test('is empty before any layer has reported', () => {
    expect(layerTable(new RunModel())).toEqual([]);
  });
});

describe('reporters', () => {
  let out: string;
  let err: string;
  beforeEach(() => {
    out = '';
    err = '';
    vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
      out += text;
      return true;
    });
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      err += text;
      return true;
    });
  });
  afterEach(() => vi.restoreAllMocks());

  const story = () => [
    event('stateChanged', { state: RunState.RUNNING, message: 'started' }),
    event('log', { level: LogLevel.DEBUG, text: 'for our own eyes' }),
    event('log', { level: LogLevel.INFO, text: '6 layers, d_in 64' }),
    progress(0),
    metrics(0, { fvu: 0.5 }),
    event('log', { level: LogLevel.WARNING, text: 'FVU > 1 at layer 3' }),
    event('artifact', { path: 'artifacts/sae/native', kind: 'sae/native', description: '6 SAEs' }),
    event('stateChanged', { state: RunState.SUCCEEDED }),
  ];

  test('plain: what stays goes to stderr, the result to stdout', () => {
    const reporter = new PlainReporter();
    reporter.begin(run({}));
    for (const each of story()) reporter.event(each);
    reporter.end(run({ state: RunState.SUCCEEDED }));
    expect(err).toMatchInlineSnapshot(`
      "Run demo-1a2b in /runs/demo-1a2b
      started
      6 layers, d_in 64
      training    0.0%  0/5.0M  14.2k tok/s  ETA 3:21
      warning: FVU > 1 at layer 3
      "
    `);
    expect(out).toMatchInlineSnapshot(`
      "layer     FVU
          0  0.5000

      Results in /runs/demo-1a2b:
        artifacts/sae/native  6 SAEs
      "
    `);
  });

  test('plain: a line per 5 % or 30 s, and at the start and end of a phase', () => {
    let now = 0;
    const reporter = new PlainReporter({ now: () => now });
    for (let percent = 0; percent <= 100; percent++) {
      reporter.event(progress(50_000 * percent));
      now += 100;
    }
    expect(err.trim().split('\n')).toHaveLength(21);
    err = '';
    for (let second = 0; second <= 60; second++) {
      reporter.event(progress(1000, { phase: 'evaluating' }));
      now += 1000;
    }
    expect(err.trim().split('\n')).toHaveLength(3);
  });

  test('plain and quiet: warnings only', () => {
    const reporter = new PlainReporter({ quiet: true });
    reporter.begin(run({}));
    for (const each of story()) reporter.event(each);
    reporter.end(run({ state: RunState.SUCCEEDED }));
    expect({ out, err }).toEqual({ out: '', err: 'warning: FVU > 1 at layer 3\n' });
  });

  test('plain and quiet: a run that was cut short says why', () => {
    const reporter = new PlainReporter({ quiet: true });
    reporter.event(event('stateChanged', { state: RunState.CANCELLING, message: 'stopping' }));
    reporter.event(event('stateChanged', { state: RunState.CANCELLED, message: 'the worker ended' }));
    reporter.end(run({ state: RunState.CANCELLED }));
    expect({ out, err }).toEqual({ out: '', err: 'the worker ended\n' });
  });

  test('json: one event a line, as the contract writes it', () => {
    const reporter = new JsonReporter();
    reporter.begin();
    const given = story();
    for (const each of given) reporter.event(each);
    reporter.note('for people');
    reporter.end(run({ state: RunState.SUCCEEDED }));
    const lines = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toHaveLength(given.length);
    expect(lines[4]).toEqual({
      sequence: expect.any(String),
      metrics: { entries: [{ step: '7', values: { fvu: 0.5 } }] },
    });
    expect(err).toBe('for people\n');
  });

  test('json: numbers that JSON does not know are spelled', () => {
    new JsonReporter().event(metrics(0, { fvu: Number.NaN, loss: Number.POSITIVE_INFINITY }));
    expect(out).toContain('"fvu":"NaN"');
    expect(out).toContain('"loss":"Infinity"');
  });

  test('a failure of ours shows the traceback in place of the log', () => {
    new PlainReporter().end(
      run({
        state: RunState.FAILED,
        failure: { message: 'ValueError: bad', remedy: 'Please report it.', traceback: 'Traceback\n  line 1\n' },
        logTail: ['not shown'],
      }),
    );
    expect(err).toBe(
      'The run failed: ValueError: bad\nPlease report it.\n\n  Traceback\n    line 1\n\nLog: /runs/demo-1a2b/run.log\n',
    );
  });
});

test('a plan reads from what to whether', () => {
  const plan = create(PlanSchema, {
    facts: [
      { name: 'model', value: 'embedded' },
      { name: 'layers', value: '0-5 of 6' },
    ],
    memory: [
      { name: 'language model', bytes: 12_000_000n },
      { name: 'Adam moments, float32', bytes: 3_400_000_000n },
    ],
    memoryBytes: 3_412_000_000n,
    availableBytes: 2_000_000_000n,
    fits: false,
    seconds: 7300,
    timeBasis: 'measured just now',
    diskBytes: 1000n,
    diskAvailableBytes: 70_000_000_000n,
    warnings: ['Lower d_sae.'],
  });
  expect(`\n${planLines(plan, { width: 80, paint: new Chalk({ level: 0 }) }).join('\n')}\n`).toMatchInlineSnapshot(`
    "
    model   embedded
    layers  0-5 of 6

    memory
    language model         11.4 MiB
    Adam moments, float32   3.2 GiB
    in all                  3.2 GiB
    there are               1.9 GiB
    DOES NOT FIT

    time    about 2.0 h (measured just now)
    disk    up to 1000 B of 65.2 GiB free

    warning: Lower d_sae.
    "
  `);
});
