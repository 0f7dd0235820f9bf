import { readFileSync } from 'node:fs';
import { afterAll, expect, test } from 'vitest';
import { ExperimentError } from '../../src/experiment/diagnostic.js';
import { experimentTemplate } from '../../src/experiment/template.js';
import { Files } from './files.js';

// 2,000 damaged experiment files, the same ones on every run. Each must be valid after all, or be refused with
// places and exit code 65: never another exception, never more than two seconds of work.

const COUNT = 2000;
const files = new Files();
afterAll(() => files.remove());

/** mulberry32: small, and the same on every platform. */
function generator(seed: number) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit: number) => Math.floor(next() * limit);
  const pick = <Item>(items: readonly Item[]): Item => items[below(items.length)] as Item;
  return { below, pick };
}

type Random = ReturnType<typeof generator>;

const withoutComments = (text: string) => text.replace(/^ *#.*\n/gm, '').replace(/\n+/g, '\n');
const config = (name: string) => readFileSync(new URL(`../../../configs/${name}`, import.meta.url), 'utf8');
const originals = [
  config('embedded/train-sae.yaml'),
  config('qwen/base.yaml'),
  experimentTemplate('train_sae', { file: 'e.yaml', schema: 'schema.json' }),
  experimentTemplate('eval_sae', { file: 'e.yaml', schema: 'schema.json' }),
  'model: embedded\neval_sae:\n  sae: latest\n  text: &text {source: embedded, context: 64}\n  filter:\n    <<: {max_norm_ratio: 3}\n',
].map(withoutComments);

const keyPattern = /([a-z_0-9]+):/g;
const valuePattern = /(?<=: )[^\s{[][^\s,}\]]*/g;
const numberPattern = /(?<=: )\d[^\s,}\]]*/g;

/** Replaces one random match of a pattern. */
function replaceOne(text: string, pattern: RegExp, random: Random, by: (match: string) => string): string {
  const found = random.pick([...text.matchAll(pattern)]);
  return text.slice(0, found.index) + by(found[0]) + text.slice(found.index + found[0].length);
}

function splice(text: string, at: number, remove: number, insert: string): string {
  return text.slice(0, at) + insert + text.slice(at + remove);
}

const mutations: Record<string, (text: string, random: Random) => string | Uint8Array> = {
  'byte flip': (text, random) => {
    const bytes = Buffer.from(text);
    const flips = 1 + random.below(4);
    for (let flip = 0; flip < flips; flip++) {
      const at = random.below(bytes.length);
      bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
    }
    return bytes;
  },
  'random bytes': (text, random) => {
    const noise = Buffer.from(Array.from({ length: 1 + random.below(40) }, () => random.below(256)));
    const at = random.below(text.length);
    return Buffer.concat([Buffer.from(text.slice(0, at)), noise, Buffer.from(text.slice(at))]);
  },
  'deleted span': (text, random) => splice(text, random.below(text.length), 1 + random.below(60), ''),
  truncation: (text, random) => text.slice(0, random.below(text.length)),
  'inserted syntax': (text, random) =>
    splice(
      text,
      random.below(text.length),
      0,
      random.pick([
        '{',
        '}',
        '[',
        ']',
        '"',
        "'",
        '\t',
        ': ',
        '- ',
        '&',
        '*',
        '!',
        '|',
        '%',
        '@',
        '`',
        '? ',
        '\n---\n',
        '\n...\n',
        '<<: ',
        '\0',
      ]),
    ),
  'duplicated line': (text, random) => {
    const lines = text.split('\n').filter((line) => line !== '');
    const at = random.below(lines.length);
    return lines.toSpliced(random.below(lines.length + 1), 0, lines[at] as string).join('\n');
  },
  'swapped lines': (text, random) => {
    const lines = text.split('\n');
    const [a, b] = [random.below(lines.length), random.below(lines.length)];
    [lines[a], lines[b]] = [lines[b] as string, lines[a] as string];
    return lines.join('\n');
  },
  'key typo': (text, random) =>
    replaceOne(text, keyPattern, random, (match) => {
      const key = match.slice(0, -1);
      const at = random.below(key.length);
      const letter = random.pick([...'abcdefghijklmnopqrstuvwxyz_']);
      const typo = random.pick([
        splice(key, at, 1, ''),
        splice(key, at, 0, letter),
        splice(key, at, 1, letter),
        key.toUpperCase(),
      ]);
      return `${typo}:`;
    }),
  'type swap': (text, random) =>
    replaceOne(text, valuePattern, random, (match) =>
      random.pick([
        `[${match}]`,
        `{a: ${match}}`,
        `{${match}}`,
        '~',
        '',
        'yes',
        '2001-01-01',
        '!!binary aGk=',
        `!tag ${match}`,
        '1.5.2',
        '0x',
        '"\\ud800"',
        '$' + '{env:NOT_SET}',
      ]),
    ),
  'huge number': (text, random) =>
    replaceOne(text, numberPattern, random, (match) =>
      random.pick([
        '9'.repeat(1 + random.below(random.pick([30, 50_000]))),
        `-${match}e5`,
        `${match}e${random.below(1_000_000)}`,
        '.inf',
        '-.inf',
        '.nan',
        '-1',
        '18446744073709551616',
        `0x${'f'.repeat(1 + random.below(50_000))}`,
        `0.${'0'.repeat(400)}1.`,
      ]),
    ),
  'deep nesting': (text, random) => {
    const depth = 65 + random.below(random.pick([200, 2_000, 20_000]));
    const deep = random.pick([
      '['.repeat(depth),
      '{a: '.repeat(depth),
      '- '.repeat(depth),
      `${'['.repeat(depth)}${']'.repeat(depth)}`,
      '? '.repeat(depth),
    ]);
    const block = Array.from({ length: 65 + random.below(400) }, (_, level) => `${' '.repeat(level)}a:\n`).join('');
    return random.pick([
      () => replaceOne(text, valuePattern, random, () => deep),
      () => `${text}deep:\n${block}`,
      () => deep + text,
    ])();
  },
  'alias bomb': (text, random) => {
    const width = 2 + random.below(12);
    const levels = 8 + random.below(60);
    const form = random.pick(['list', 'map', 'merge', 'self', 'chain']);
    const level = (n: number) => {
      if (form === 'list') return `a${n}: &a${n} [${`*a${n - 1}, `.repeat(width)}]`;
      if (form === 'map')
        return `a${n}: &a${n} {${Array.from({ length: width }, (_, i) => `k${i}: *a${n - 1}`).join(', ')}}`;
      if (form === 'merge') return `a${n}: &a${n} {<<: [${`*a${n - 1}, `.repeat(width)}], k${n}: 1}`;
      if (form === 'self') return `a${n}: &a${n} [*a${n}, *a${n - 1}]`;
      return `a${n}: &a${n} {x: *a${n - 1}}`;
    };
    const bomb = ['a0: &a0 {x: 1}', ...Array.from({ length: levels }, (_, n) => level(n + 1))].join('\n');
    return `${bomb}\n${text}`;
  },
  repetition: (text, random) => {
    const unit = random.pick([
      'a: b\n',
      '- \n',
      '---\n',
      '[',
      ']',
      '{,',
      '"',
      '&a ',
      '*a ',
      '! ',
      '%a\n',
      ': ',
      "' ",
      '#\n',
      '\r\n',
      '"\\q',
      '{a: ',
      'é',
      '"a" ',
      '\t',
      '<<: ',
      '1,',
      `${text}`,
    ]);
    const size = 1000 + random.below(random.pick([2_000, 20_000, 300_000]));
    const at = random.pick([0, text.length]);
    return splice(text, at, 0, unit.repeat(Math.ceil(size / unit.length)));
  },
};

test(`${COUNT} damaged files are valid or refused with places, quickly`, { timeout: 120_000 }, async () => {
  await files.load(files.write('e.yaml', originals[0] as string));
  const random = generator(20_251_121);
  const kinds = Object.keys(mutations);
  const counts = Object.fromEntries(kinds.map((kind) => [kind, { valid: 0, refused: 0, slowestMs: 0 }]));

  for (let index = 0; index < COUNT; index++) {
    const kind = kinds[index % kinds.length] as string;
    const content = mutations[kind]?.(random.pick(originals), random) as string | Uint8Array;
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
  expect(refused).toBeGreaterThan(COUNT * 0.9);
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
