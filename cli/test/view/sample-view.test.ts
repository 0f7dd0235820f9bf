import { create } from '@bufbuild/protobuf';
import { Chalk } from 'chalk';
import { expect, test } from 'vitest';
import { type PlanSample, PlanSampleSchema, PlanSchema } from '../../src/gen/qscope/v1/run_pb.js';
import { planLines } from '../../src/view/plan-view.js';
import { sampleLines } from '../../src/view/sample-view.js';
import { displayWidth } from '../../src/view/terminal-text.js';

const grey = { width: 80, paint: new Chalk({ level: 0 }) };
const coloured = { width: 80, paint: new Chalk({ level: 1 }) };

const sample = (segments: [text: string, answer?: boolean][], more: object = {}): PlanSample =>
  create(PlanSampleSchema, {
    segments: segments.map(([text, answer = false]) => ({ text, answer })),
    tokens: 20,
    answerTokens: 7,
    language: 'en',
    row: 4n,
    ...more,
  });

const chat = sample([
  ['<|im_start|>user\nWhat is 17 + 25?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n'],
  ['17 + 25 = 42.<|im_end|>', true],
  ['\n'],
]);

test('without colour carets stand below what is trained on', () => {
  expect(`\n${sampleLines([chat], grey).join('\n')}\n`).toMatchInlineSnapshot(`
    "
    sample 1 of 1: row 4, en, 20 tokens, 7 of them trained on
      <|im_start|>user↵
      What is 17 + 25?<|im_end|>↵
      <|im_start|>assistant↵
      <think>↵
      ↵
      </think>↵
      ↵
      17 + 25 = 42.<|im_end|>↵
      ^^^^^^^^^^^^^^^^^^^^^^^
    "
  `);
});

test('with colour it is underlined, and nothing is below it', () => {
  const lines = sampleLines([chat], coloured);
  expect(JSON.stringify(lines, null, 1)).toMatchInlineSnapshot(`
    "[
     "\\u001b[1msample 1 of 1: row 4, en, 20 tokens, 7 of them trained on\\u001b[22m",
     "  <|im_start|>user↵",
     "  What is 17 + 25?<|im_end|>↵",
     "  <|im_start|>assistant↵",
     "  <think>↵",
     "  ↵",
     "  </think>↵",
     "  ↵",
     "  \\u001b[32m\\u001b[4m17 + 25 = 42.<|im_end|>\\u001b[24m\\u001b[39m↵"
    ]"
  `);
});

test('a completion keeps its space, a tab is seen, and a prompt has a right answer', () => {
  const rows = [
    sample([['Paris is the capital of'], [' France<|endoftext|>', true]]),
    sample([['17\t+ 25 =']], { tokens: 5, answerTokens: 0, language: '', rightAnswer: '42' }),
  ];
  expect(`\n${sampleLines(rows, grey).join('\n')}\n`).toMatchInlineSnapshot(`
    "
    sample 1 of 2: row 4, en, 20 tokens, 7 of them trained on
      Paris is the capital of France<|endoftext|>
                             ^^^^^^^^^^^^^^^^^^^^

    sample 2 of 2: row 4, language unknown, 5 tokens
      17⇥+ 25 =
    right answer: 42
    "
  `);
});

test('long texts keep both ends, long conversations their first and last turns', () => {
  const words = Array.from({ length: 400 }, (_, n) => `word${n}`).join(' ');
  const turns = Array.from({ length: 30 }, (_, n): [string, boolean] => [`turn ${n}\n`, n % 2 === 1]);
  const [, ...long] = sampleLines([sample([[words], [' yes', true]])], grey);
  expect(long[0]).toMatch(/^ {2}word0 word1 /);
  expect(long.join('\n')).toMatch(/\[\.\.\. 2,?\d+ characters \.\.\.\]/);
  expect(long.at(-2)).toMatch(/word399 yes$/);
  expect(long.at(-1)?.trim()).toBe('^^^^');
  const talk = sampleLines([sample(turns)], grey).join('\n');
  expect(talk).toContain('turn 3');
  expect(talk).toContain('[... 22 parts ...]');
  expect(talk).not.toContain('turn 4');
  expect(talk).toContain('turn 26');
});

test('no line is wider than the terminal, in any script, and the carets stand below their characters', () => {
  const texts = [
    '这是一个很长的中文回答'.repeat(20),
    'ทดสอบภาษาไทยที่ไม่มีช่องว่าง'.repeat(20),
    'a'.repeat(300),
    'naïve café '.repeat(30),
    '\u0001\u202e\u200b'.repeat(50),
  ];
  for (const width of [30, 80]) {
    for (const text of texts) {
      const lines = sampleLines([sample([['before '], [text, true], [' after']])], { ...grey, width });
      for (const line of lines.slice(1)) expect(displayWidth(line)).toBeLessThanOrEqual(width);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not appear
      expect(lines.join('\n')).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e\u200b]/);
      const carets = lines.filter((line) => /^ *\^+$/.test(line)).join('');
      expect(carets.replaceAll(' ', '').length).toBe(displayWidth(shown(text)));
    }
  }
});

/** What is left of a text when its middle is left out, as `sample-view.ts` does. */
function shown(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the same replacement as on a terminal
  const characters = [...text.replace(/[\u0001\u202e\u200b]/g, '\ufffd')];
  return characters.length <= 480
    ? characters.join('')
    : [...characters.slice(0, 280), ...characters.slice(-140)].join('');
}

test('a plan of a verb that trains on rows', () => {
  const plan = create(PlanSchema, {
    facts: [
      { name: 'parameters', value: '11,184,128 in all, 11,184,128 trained' },
      { name: 'rows', value: '1,187 rows; left out: 12 (no answer), 1 (the answer is cut off by the context)' },
    ],
    samples: [chat],
    memory: [{ name: 'weights', bytes: 45_000_000n }],
    memoryBytes: 45_000_000n,
    availableBytes: 2_000_000_000n,
    fits: true,
    seconds: 130,
    timeBasis: 'measured just now',
    diskBytes: 1000n,
    diskAvailableBytes: 70_000_000_000n,
  });
  expect(`\n${planLines(plan, grey).join('\n')}\n`).toMatchInlineSnapshot(`
    "
    parameters  11,184,128 in all, 11,184,128 trained
    rows        1,187 rows; left out: 12 (no answer), 1 (the answer is cut off by
                the context)

    sample 1 of 1: row 4, en, 20 tokens, 7 of them trained on
      <|im_start|>user↵
      What is 17 + 25?<|im_end|>↵
      <|im_start|>assistant↵
      <think>↵
      ↵
      </think>↵
      ↵
      17 + 25 = 42.<|im_end|>↵
      ^^^^^^^^^^^^^^^^^^^^^^^

    memory
    weights    42.9 MiB
    in all     42.9 MiB
    there are   1.9 GiB
    fits

    time    about 2 min (measured just now)
    disk    up to 1000 B of 65.2 GiB free
    "
  `);
});
