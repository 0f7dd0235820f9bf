import { readFileSync } from 'node:fs';
import { presets } from '../../src/experiment/presets.js';
import { experimentTemplate } from '../../src/experiment/template.js';

// Damaged experiment files, the same ones for the same seed.

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
export const originals: readonly string[] = [
  config('embedded/train-sae.yaml'),
  config('qwen/base.yaml'),
  experimentTemplate('train_sae', { file: 'e.yaml', schema: 'schema.json' }),
  experimentTemplate('eval_sae', { file: 'e.yaml', schema: 'schema.json' }),
  'model: embedded\neval_sae:\n  sae: latest\n  text: &text {source: embedded, context: 64}\n  filter:\n    <<: {max_norm_ratio: 3}\n',
].map(withoutComments);

/** Steering specs: every kind of edit, place and condition. */
export const steeringOriginals: readonly string[] = [
  config('embedded/steer.yaml'),
  experimentTemplate('steer', { file: 'e.yaml', schema: 'schema.json' }),
  `model: embedded
steer:
  prompts: [Hello, "What is 2 + 3?"]
  format: { chat: true, system: Be brief., thinking: on }
  steering:
    conflict: priority
    abort_when: [{ layer: 5, feature: 9, above: 2.5 }]
    edits:
      - layers: [1, 2]
        features: [3, 4]
        op: clamp_max
        strength: 0.5
        unit: max
        where:
          phase: generated
          include_last_prompt_token: true
          only: { classes: [answer, think], tokens: [" the"], positions: [0, -1] }
          except: { classes: [special] }
        when:
          - { layer: 1, feature: 7, above: 0.5 }
      - { layers: [3], vector: [0.5, -1.5, 2e-3], op: projection_cap, low: -1, high: 1.5, unit: norm }
      - { feature_file: features.json, top: 3, strength: -2 }
  sweep: [-1, 0.5, 2]
  controls: [zero, foreign]
`,
].map(withoutComments);

/** Experiments of sft: with every group, as presets write them, and short. */
export const sftOriginals: readonly string[] = [
  ...Object.values(presets.sft).map((preset) =>
    experimentTemplate('sft', { file: 'e.yaml', schema: 's.json', preset }),
  ),
  `model: embedded
compute: { processes: 2, sharding: fsdp2 }
sft:
  data: { source: rows.csv, prompt: "{question}", completion: " {answer}", columns: [question, answer], where: lang!=zh }
  held_out: { source: rows.csv, messages: turns, skip: 100, limit: 20 }
  format: { chat: true, system: Be brief., thinking: on }
  epochs: 1.5
  trainable: { method: lora, lora: { rank: 8, alpha: 16, targets: [q_proj, v_proj], merge: false }, layers: [4, 5] }
  optimizer: { learning_rate: 5e-5, decay: linear, warmup_steps: 10, max_grad_norm: 0.5 }
  sae_loss:
    sae: latest
    features: latest
    target_languages: [zh, ko]
    layers: [4, 5]
    threshold: zero
    weight: 0.03
    feature_reduction: sum
  arm: random_features
  alarms: { patience: 3, dead_signal: stop, collapse: off }
`,
].map(withoutComments);

/** Experiments of rl: with every group, as presets write them, and short. */
export const rlOriginals: readonly string[] = [
  ...Object.values(presets.rl).map((preset) => experimentTemplate('rl', { file: 'e.yaml', schema: 's.json', preset })),
  `model: embedded
rl:
  prompts: { source: prompts.jsonl, prompt: "{question}", answer: "{answer}" }
  group_size: 4
  sampling: { temperature: 1, max_tokens: 96 }
  overlong: { mode: filter, cache: 16 }
  dynamic_sampling: { enabled: true, max_rounds: 3 }
  importance_correction: { mode: token_truncate, cap: 2 }
  rewards:
    - { kind: answer, rule: pattern, pattern: "= (.+)$", weight: 2 }
    - { kind: endless }
    - { kind: python, name: own, path: "./grade.py:grade", weight: -0.5 }
  graders: { processes: 1, seconds: 2.5 }
  sae_penalty:
    mode: rare_negative
    sae: latest
    rare_negative:
      features: [3/1207, 3/88]
      strength: 0.4
      calibrate: { prompts: 16, strengths: [0.2, 0.4, 1], loop_rate: 0.9 }
      on_miss: resample
      ratio: behavior
      advantage: separate
      min_token_prob: 1e-4
  evaluate: { prompts: { source: held-out.jsonl }, every_steps: 5, sampling: { temperature: 0 } }
`,
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

export interface Mutant {
  index: number;
  kind: string;
  content: string | Uint8Array;
}

export const kinds = Object.keys(mutations);

/** Damaged files, every kind of damage in turn. */
export function* mutants(count: number, from: readonly string[] = originals, seed = 20_251_121): Generator<Mutant> {
  const random = generator(seed);
  for (let index = 0; index < count; index++) {
    const kind = kinds[index % kinds.length] as string;
    const content = mutations[kind]?.(random.pick(from), random) as string | Uint8Array;
    yield { index, kind, content };
  }
}
