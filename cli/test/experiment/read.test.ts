import { afterAll, expect, test } from 'vitest';
import { Diagnostics } from '../../src/experiment/diagnostic.js';
import { emitYaml } from '../../src/experiment/emit.js';
import { pathsOf } from '../../src/experiment/fields.js';
import { nearest } from '../../src/experiment/nearest.js';
import { type ReadContext, readMessage } from '../../src/experiment/read.js';
import { Source } from '../../src/experiment/source.js';
import { parseYaml } from '../../src/experiment/yaml.js';
import { ExperimentSchema } from '../../src/gen/qscope/v1/experiment_pb.js';
import { type MetricsBatch, MetricsBatchSchema } from '../../src/gen/qscope/v1/run_event_pb.js';
import { Files } from './files.js';

// The reader follows descriptors, so what experiments do not use yet is tried on other messages of the contract.

const files = new Files();
afterAll(() => files.remove());

function read(text: string) {
  const diagnostics = new Diagnostics();
  const source = new Source({ file: 'e.yaml', folder: '/', text });
  const tree = parseYaml(source, diagnostics);
  const context: ReadContext = {
    diagnostics,
    meant: new Set(),
    incomplete: false,
    environment: {},
    cwd: '/',
    origins: new Map(),
    places: new Map([['', { source, offset: 0 }]]),
  };
  const message = readMessage(MetricsBatchSchema, tree, '', context) as MetricsBatch;
  diagnostics.throwIfAny();
  return message;
}

test('lists of groups, and maps, are read and written', () => {
  const text =
    'entries:\n  - step: 3\n    layer: -1\n    values:\n      fvu: 0.25\n      "a: b": 1\n  - step: 4\n    layer: 0\n    values: {}\n';
  const message = read(text);
  expect(message.entries).toMatchObject([{ step: 3n, layer: -1, values: { fvu: 0.25, 'a: b': 1 } }, { step: 4n }]);
  expect(emitYaml(MetricsBatchSchema, message)).toBe(text);
});

test('faults inside lists of groups and maps have their places', () => {
  expect(() => read('entries:\n  - {step: -1, values: {fvu: low}}\n  - 3\n')).toThrowError(
    expect.objectContaining({
      diagnostics: [
        expect.objectContaining({ path: 'entries[0].step', line: 2, column: 12 }),
        expect.objectContaining({ path: 'entries[0].values.fvu', line: 2, column: 30 }),
        expect.objectContaining({ path: 'entries[1]', line: 3, column: 5 }),
      ],
    }),
  );
});

test.each([
  ['batch_tokns', ['tokens', 'batch_tokens'], 'batch_tokens'],
  ['batchTokens', ['tokens', 'batch_tokens'], 'batch_tokens'],
  ['batch-tokens', ['tokens', 'batch_tokens'], 'batch_tokens'],
  ['sede', ['name', 'seed'], 'seed'],
  ['K', ['d_sae', 'k'], 'k'],
  ['zzz', ['name', 'seed'], undefined],
  ['x'.repeat(100_000), ['name'], undefined],
])('the nearest name of %.20s', (word, names, expected) => {
  expect(nearest(word, names)).toBe(expected);
});

test('fields are found wherever they are, the nearest first', () => {
  expect(pathsOf('beta1', ExperimentSchema)).toEqual([
    'train_sae.optimizer.beta1',
    'sft.optimizer.beta1',
    'rl.optimizer.beta1',
  ]);
  expect(pathsOf('filter', ExperimentSchema)).toEqual(['train_sae.filter', 'eval_sae.filter']);
  expect(pathsOf('nothing', ExperimentSchema)).toEqual([]);
});

test('lines and columns', () => {
  const source = new Source({ file: 'e', folder: '/', text: 'ab\r\n\ncd' });
  expect([0, 1, 4, 5, 6, 7].map((offset) => source.position(offset))).toEqual([
    { line: 1, column: 1 },
    { line: 1, column: 2 },
    { line: 2, column: 1 },
    { line: 3, column: 1 },
    { line: 3, column: 2 },
    { line: 3, column: 3 },
  ]);
  expect([1, 2, 3, 4].map((line) => source.line(line))).toEqual(['ab', '', 'cd', '']);
});
