import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { scaleOf } from '../../../src/view/report/scale.js';
import { thin } from '../../../src/view/report/thin.js';

const value = fc.oneof(fc.double({ noNaN: false }), fc.integer({ min: -9, max: 9 }));
const columns = fc
  .tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 0, max: 300 }))
  .chain(([count, rows]) =>
    fc.array(fc.array(value, { minLength: rows, maxLength: rows }), { minLength: count, maxLength: count }),
  );

describe('thinning', () => {
  test('keeps everything that fits', () => {
    expect(thin([[5, 3, 9]], 3)).toEqual([0, 1, 2]);
    expect(thin([[]], 3)).toEqual([]);
  });

  test('keeps measured rows only, in order, at most as many as asked for, the ends and the extremes among them', () => {
    fc.assert(
      fc.property(columns, fc.integer({ min: 15, max: 80 }), (given, limit) => {
        const rows = given[0]?.length ?? 0;
        const kept = thin(given, limit);
        expect(kept.length).toBeLessThanOrEqual(limit);
        expect(
          kept.every((row, index) => Number.isInteger(row) && (index === 0 || row > (kept[index - 1] ?? -1))),
        ).toBe(true);
        if (rows > 0) expect([kept[0], kept.at(-1)]).toEqual([0, rows - 1]);
        for (const column of given) {
          const finite = column.filter(Number.isFinite);
          if (finite.length === 0) continue;
          const shown = kept.map((row) => column[row] as number).filter(Number.isFinite);
          expect(Math.min(...shown)).toBe(Math.min(...finite));
          expect(Math.max(...shown)).toBe(Math.max(...finite));
        }
      }),
    );
  });

  test('leaves no stretch empty: rows stay evenly spread', () => {
    const smooth = Array.from({ length: 10_000 }, (_, row) => Math.exp(-row / 3000));
    const kept = thin([smooth], 400);
    const gaps = kept.slice(1).map((row, index) => row - (kept[index] as number));
    expect(kept.length).toBeGreaterThan(390);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(2 * Math.ceil(10_000 / 396));
  });

  test('keeps every lone spike, in whichever curve it stands', () => {
    const spikes = [1234, 5555, 8001];
    const curves = [0, 1].map((which) =>
      Array.from({ length: 10_000 }, (_, row) =>
        row === spikes[which] || row === spikes[2] ? 0.6 : Math.sin(row / 900),
      ),
    );
    // Smaller than the waves: none is an extreme of its curve.
    expect(thin(curves, 400)).toEqual(expect.arrayContaining(spikes));
  });
});

describe('scales', () => {
  const numbers = fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 20 });

  test.each([false, true])('place every value inside the axis, log: %s', (log) => {
    fc.assert(
      fc.property(numbers, fc.boolean(), (values, round) => {
        const scale = scaleOf({ values, range: [40, 400], log, round, count: 5 });
        for (const each of values) {
          const at = scale.at(each);
          if (log && each <= 0) expect(at).toBeNaN();
          else {
            expect(at).toBeGreaterThanOrEqual(40 - 1e-6);
            expect(at).toBeLessThanOrEqual(400 + 1e-6);
          }
        }
        expect(scale.ticks.length).toBeLessThan(20);
        for (const tick of scale.ticks) expect(Number.isFinite(scale.at(tick))).toBe(true);
      }),
    );
  });

  test('ticks are round numbers, and the axis ends on them when asked', () => {
    const ticks = (values: number[], more: object = {}) =>
      scaleOf({ values, range: [0, 100], count: 5, round: true, ...more }).ticks;
    expect(ticks([0.087, 0.469])).toEqual([0, 0.1, 0.2, 0.3, 0.4, 0.5]);
    expect(ticks([0.9, 0.97])).toEqual([0.9, 0.92, 0.94, 0.96, 0.98]);
    expect(ticks([-8, 8], { round: false })).toEqual([-5, 0, 5]);
    expect(ticks([1, 1 + Number.EPSILON])).toEqual([0, 0.5, 1, 1.5]);
    expect(ticks([16, 16])).toEqual([0, 5, 10, 15, 20, 25]);
    expect(ticks([0, 0])).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(ticks([0.105, 0.19], { log: true })).toEqual([0.1, 0.15, 0.2]);
    expect(ticks([12, 69], { log: true })).toEqual([10, 20, 50, 100]);
    expect(ticks([1e-6, 3], { log: true })).toEqual([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10]);
  });
});
