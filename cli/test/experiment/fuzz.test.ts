import { afterAll, expect, test } from 'vitest';
import { ExperimentError } from '../../src/experiment/diagnostic.js';
import { kinds, mutants, originals, rlOriginals, sftOriginals, steeringOriginals } from '../support/mutations.js';
import { Files } from './files.js';

// Damaged experiment files, the same ones on every run. Each must be valid after all, or be refused with places and exit
// code 65: never another exception, never more than two seconds of work.

const SETS = [
  { what: 'damaged files', count: 2000, from: originals },
  { what: 'damaged steering specs', count: 500, from: steeringOriginals },
  { what: 'damaged files of sft', count: 500, from: sftOriginals },
  { what: 'damaged files of rl', count: 500, from: rlOriginals },
];
const files = new Files();
afterAll(() => files.remove());

test('the undamaged files are valid', async () => {
  for (const text of SETS.flatMap(({ from }) => from)) await files.load(files.write('e.yaml', text));
});

test.each(SETS)('$count $what are valid or refused with places, quickly', { timeout: 120_000 }, async (set) => {
  const counts = Object.fromEntries(kinds.map((kind) => [kind, { valid: 0, refused: 0, slowestMs: 0 }]));

  for (const { index, kind, content } of mutants(set.count, set.from)) {
    files.write('e.yaml', content);
    const count = counts[kind] as { valid: number; refused: number; slowestMs: number };
    const before = process.cpuUsage();
    let refusal: unknown;
    await files.load('e.yaml').then(
      () => {
        count.valid += 1;
      },
      (error) => {
        count.refused += 1;
        refusal = error;
      },
    );
    if (refusal !== undefined) checkRefusal(refusal, content, `${kind}, file ${index}`);
    // Work done, not time passed: the machine may be busy with something else.
    const { user, system } = process.cpuUsage(before);
    count.slowestMs = Math.max(count.slowestMs, Math.round((user + system) / 1000));
  }

  console.table(counts);
  const all = Object.values(counts);
  expect(Math.max(...all.map(({ slowestMs }) => slowestMs))).toBeLessThan(2000);
  const refused = all.reduce((sum, count) => sum + count.refused, 0);
  expect(refused).toBeGreaterThan(set.count * 0.85);
  // A mutation that refuses nothing would test nothing.
  for (const { refused: ofKind } of all) expect(ofKind).toBeGreaterThan(0);
});

function checkRefusal(error: unknown, content: string | Uint8Array, name: string): void {
  if (!(error instanceof ExperimentError)) throw new Error(`${name}: not an ExperimentError`, { cause: error });
  expect(error.exitCode, name).toBe(65);
  expect(error.diagnostics.length, name).toBeGreaterThan(0);
  const lines = Buffer.from(content).toString('utf8').split('\n');
  for (const { file, line, column, message } of error.diagnostics) {
    expect(file, name).toBe('e.yaml');
    expect(message, name).not.toBe('');
    expect(line, name).toBeGreaterThanOrEqual(1);
    expect(line, name).toBeLessThanOrEqual(lines.length);
    expect(column, name).toBeGreaterThanOrEqual(1);
    expect(column, name).toBeLessThanOrEqual((lines[line - 1] as string).length + 1);
  }
  // The report itself must stay readable, and reach a terminal without control characters.
  const report = error.render();
  expect(report.length, name).toBeLessThan(100_000);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not appear
  expect(report, name).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f]/);
}
