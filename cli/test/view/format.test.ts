import { expect, test } from 'vitest';
import { bytes, clock, count, decimals, percent, significant, spell } from '../../src/view/format.js';
import { table } from '../../src/view/table.js';

test('counts', () => {
  expect([0, 950, 1000, 14_200, 999_949, 999_950, 1_234_567, 5e9, 0.5].map(count)).toEqual([
    '0',
    '950',
    '1.0k',
    '14.2k',
    '999.9k',
    '1.0M',
    '1.2M',
    '5.0G',
    '0.500',
  ]);
});

test('bytes', () => {
  expect([0, 1023, 1024, 1536, 1024 ** 2 - 1, 3.5 * 1024 ** 3].map(bytes)).toEqual([
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '1.0 MiB',
    '3.5 GiB',
  ]);
});

test('time', () => {
  expect([0, 59.6, 201, 3675, 90_000].map(clock)).toEqual(['0:00', '1:00', '3:21', '1:01:15', '1 d 1 h']);
  expect([0.2, 40, 99.4, 400, 5970, 8000, 200_000].map(spell)).toEqual([
    'less than a second',
    '40 s',
    '99 s',
    '7 min',
    '1.7 h',
    '2.2 h',
    '2.3 days',
  ]);
});

test('shares and numbers, also those that are none', () => {
  expect([0, 0.004, 1, Number.NaN].map(percent)).toEqual(['0.0%', '0.4%', '100.0%', 'NaN']);
  expect([0, 0.21349, 0.00001, 1e7, -1, Number.NEGATIVE_INFINITY].map((value) => decimals(value, 4))).toEqual([
    '0.0000',
    '0.2135',
    '1.0e-5',
    '1.0e+7',
    '-1.0000',
    '-inf',
  ]);
  expect([3, 0.12345, 1e-5, 1234.56, 2.5e9].map(significant)).toEqual(['3', '0.1235', '1.00e-5', '1235', '2.50e+9']);
});

test('a table leaves out columns from the right, never the first', () => {
  const columns = ['name', 'long heading', 'x'].map((heading) => ({ heading, align: 'right' as const }));
  const rows = [['a', 'b', 'c']];
  expect(table(columns, rows)).toEqual(['name  long heading  x', '   a             b  c']);
  expect(table(columns, rows, 20)).toEqual(['name  long heading', '   a             b']);
  expect(table(columns, rows, 1)).toEqual(['name', '   a']);
});
