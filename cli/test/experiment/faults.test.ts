import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { Files } from './files.js';

// Every kind of fault a person can make, with the place and the text that person sees.

const files = new Files();
afterAll(() => files.remove());

function aliasBomb(): string {
  const levels = Array.from({ length: 12 }, (_, n) => `a${n + 1}: &a${n + 1} [${`*a${n}, `.repeat(10)}]`);
  return ['a0: &a0 x', ...levels].join('\n');
}

test('an unknown key', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  batch_tokns: 8\n`)).toMatchInlineSnapshot(
    `"3:3 train_sae.batch_tokns: unknown field (did you mean batch_tokens?)"`,
  );
});

test('a key of another group', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  k: 8\n`)).toMatchInlineSnapshot(
    `"3:3 train_sae.k: unknown field (did you mean train_sae.sae.k?)"`,
  );
});

test('a key that resembles nothing', async () => {
  expect(await files.faults(`model: embedded\nzzzzzzzz: 1\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"2:1 zzzzzzzz: unknown field (the fields here are name, seed, model, model_options, compute, train_sae, eval_sae, extract_features, contrast_features, top_features, language_features, repetition_features, diagnose_features, explain_features, steer, bench_redundancy, classify, apply_classifier, synthesize, sft, rl, eval_responses)"`,
  );
});

test('camelCase', async () => {
  expect(await files.faults(`model: embedded\ntrainSae:\n  batchTokens: 8\n`)).toMatchInlineSnapshot(
    `"2:1 trainSae: unknown field (did you mean train_sae?)"`,
  );
});

test('a value where a group belongs', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae: 5\n`)).toMatchInlineSnapshot(
    `"2:12 train_sae: expected a mapping (text, layers, sae, tokens, ...), not a single value"`,
  );
});

test('a list where a group belongs', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  sae: [1]\n`)).toMatchInlineSnapshot(
    `"3:8 train_sae.sae: expected a mapping (expansion, d_sae, k), not a list"`,
  );
});

test('a group where a value belongs', async () => {
  expect(await files.faults(`model: {a: 1}\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"1:8 model: expected text, not a mapping"`,
  );
});

test('a value where a list belongs', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  layers: 3\n`)).toMatchInlineSnapshot(
    `"3:11 train_sae.layers: expected a list of values, each a whole number between 0 and 4294967295, not a single value (write [3])"`,
  );
});

test('text where a number belongs', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  sae: {k: many}\n`)).toMatchInlineSnapshot(
    `"3:12 train_sae.sae.k: expected a whole number between 1 and 65536, not the text "many""`,
  );
});

test('a quoted number', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  sae: {k: "50"}\n`)).toMatchInlineSnapshot(
    `"3:12 train_sae.sae.k: expected a whole number between 1 and 65536, not the text "50" (write 50 without quotes)"`,
  );
});

test('numbers as people write them', async () => {
  expect(
    await files.faults(
      `model: embedded\ntrain_sae:\n  tokens: 1_000_000\n  batch_tokens: 4,096\n  sae: {k: 3k}\n  optimizer: {beta1: '0,9'}\n`,
    ),
  ).toMatchInlineSnapshot(`
    "3:11 train_sae.tokens: expected a whole number between 1 and 1000000000000000, not the text "1_000_000" (write 1000000)
    4:17 train_sae.batch_tokens: expected a whole number between 1 and 16777216, not the text "4,096" (write 4096)
    5:12 train_sae.sae.k: expected a whole number between 1 and 65536, not the text "3k" (write 3000)
    6:22 train_sae.optimizer.beta1: expected a number at least 0 and below 1, not the text "0,9" (write 0.9)"
  `);
});

test('a fraction where a whole number belongs', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  sae: {k: 1.5}\n`)).toMatchInlineSnapshot(
    `"3:12 train_sae.sae.k: expected a whole number between 1 and 65536, not 1.5"`,
  );
});

test('numbers outside the range of their rules', async () => {
  expect(
    await files.faults(
      `model: embedded\ntrain_sae:\n  sae: {k: 0, expansion: 1025}\n  aux_k: {token_share: 0, coefficient: 1.5}\n`,
    ),
  ).toMatchInlineSnapshot(`
    "3:12 train_sae.sae.k: must be between 1 and 65536, not 0
    3:26 train_sae.sae.expansion: must be between 1 and 1024, not 1025
    4:24 train_sae.aux_k.token_share: must be above 0 and at most 1, not 0
    4:40 train_sae.aux_k.coefficient: must be between 0 and 1, not 1.5"
  `);
});

test('numbers outside the range of their type', async () => {
  expect(
    await files.faults(
      `model: embedded\nseed: 4294967296\ntrain_sae:\n  layers: [-1]\n  tokens: 99999999999999999999999999\n`,
    ),
  ).toMatchInlineSnapshot(`
    "2:7 seed: must be between 0 and 4294967295, not 4294967296
    4:12 train_sae.layers[0]: must be between 0 and 4294967295, not -1
    5:11 train_sae.tokens: must be between 1 and 1000000000000000, not 99999999999999999999999999"
  `);
});

test('infinity, NaN and overflow', async () => {
  expect(
    await files.faults(
      `model: embedded\ntrain_sae:\n  filter: {max_norm_ratio: .inf}\n  optimizer: {clip_norm: .nan, epsilon: 1e999}\n`,
    ),
  ).toMatchInlineSnapshot(`
    "3:28 train_sae.filter.max_norm_ratio: expected a number at least 0, not .inf (only finite numbers can be saved and compared)
    4:26 train_sae.optimizer.clip_norm: expected a number at least 0, not .nan (only finite numbers can be saved and compared)
    4:41 train_sae.optimizer.epsilon: expected a number above 0 and at most 1, not 1e999 (only finite numbers can be saved and compared)"
  `);
});

test('truth values of YAML 1.1', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  text: {pack: yes, repeat: off}\n`)).toMatchInlineSnapshot(`
    "3:16 train_sae.text.pack: expected true or false, not "yes" (write true)
    3:29 train_sae.text.repeat: expected true or false, not "off" (write false)"
  `);
});

test('a number where text belongs', async () => {
  expect(await files.faults(`model: embedded\nname: 12\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"2:7 name: expected text, not the number 12 (put it in quotes: "12")"`,
  );
});

test('a key without a value', async () => {
  expect(await files.faults(`model:\ntrain_sae:\n  tokens:\n`)).toMatchInlineSnapshot(`
    "1:7 model: has no value (give text, or remove the line)
    3:10 train_sae.tokens: has no value (give a whole number between 1 and 1000000000000000, or remove the line)"
  `);
});

test('null by name', async () => {
  expect(await files.faults(`model: ~\ntrain_sae:\n  kernel: null\n`)).toMatchInlineSnapshot(`
    "1:8 model: expected text, not ~ (remove the line to take the default)
    3:11 train_sae.kernel: expected one of auto, dense, sparse, not null (remove the line to take the default)"
  `);
});

test('enum values', async () => {
  expect(
    await files.faults(
      `model: embedded\ncompute: {device: gpu}\ntrain_sae:\n  kernel: Dense\n  formats: [SAE_FORMAT_NATIVE, 2]\n`,
    ),
  ).toMatchInlineSnapshot(`
    "2:19 compute.device: expected one of auto, cpu, cuda, not "gpu" (did you mean cpu?)
    4:11 train_sae.kernel: expected one of auto, dense, sparse, not "Dense" (did you mean dense?)
    5:13 train_sae.formats[0]: expected one of native, qwen_scope, saelens, not "SAE_FORMAT_NATIVE"
    5:32 train_sae.formats[1]: expected one of native, qwen_scope, saelens, not 2"
  `);
});

test('a missing required field', async () => {
  expect(await files.faults(`train_sae:\n`)).toMatchInlineSnapshot(
    `"1:1 model: is required (add model: embedded, a local folder, or a Hugging Face model id)"`,
  );
});

test('a missing required field of a group', async () => {
  expect(await files.faults(`model: embedded\neval_sae:\n  tokens: 5\n`)).toMatchInlineSnapshot(
    `"2:1 eval_sae.sae: is required (add sae: Run id or folder, SAE folder or file, or a Qwen-Scope repository id)"`,
  );
});

test('an empty required field', async () => {
  expect(await files.faults(`model: ''\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"1:8 model: is required (embedded, a local folder, or a Hugging Face model id)"`,
  );
});

test('no task', async () => {
  expect(await files.faults(`model: embedded\n`)).toMatchInlineSnapshot(
    `"1:1 one of train_sae, eval_sae, extract_features, contrast_features, top_features, language_features, repetition_features, diagnose_features, explain_features, steer, bench_redundancy, classify, apply_classifier, synthesize, sft, rl, eval_responses is required"`,
  );
});

test('two tasks', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\neval_sae: {sae: x}\n`)).toMatchInlineSnapshot(
    `"3:1 eval_sae: only one of train_sae and eval_sae may be given (train_sae is at e.yaml:2)"`,
  );
});

test('a duplicate key', async () => {
  expect(
    await files.faults(`model: embedded\ntrain_sae:\n  tokens: 1\n  sae: {k: 1}\n  tokens: 2\n`),
  ).toMatchInlineSnapshot(`"5:3 "tokens" is given twice (the first is on line 3; keep one)"`);
});

test('a repeated list item', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  layers: [1, 2, 1]\n`)).toMatchInlineSnapshot(
    `"3:18 train_sae.layers: the value at position 3 is given twice (keep one)"`,
  );
});

test('an empty list that needs a value', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  formats: []\n`)).toMatchInlineSnapshot(
    `"3:12 train_sae.formats: needs at least 1 value (Layouts written at the end: native, qwen_scope, saelens)"`,
  );
});

test('a pattern', async () => {
  expect(await files.faults(`model: embedded\nname: ../up\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"2:7 name: "../up" is not allowed here (Name of the run (letters, digits, dot, dash, underscore))"`,
  );
});

test('a rule across fields, at the group', async () => {
  expect(
    await files.faults(
      `model: embedded\ntrain_sae:\n  tokens: 9\n  sae: {d_sae: 16, k: 17}\n  optimizer:\n    warmup_share: 0.6\n    decay_share: 0.6\n`,
    ),
  ).toMatchInlineSnapshot(`
    "4:3 train_sae.sae: k must not exceed d_sae: only d_sae features exist
    5:3 train_sae.optimizer: warmup_share + decay_share must not exceed 1: the two phases would overlap"
  `);
});

test('a tab as indentation', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n\ttokens: 5\n`)).toMatchInlineSnapshot(
    `"3:1 a tab indents this line (indent with spaces)"`,
  );
});

test('broken flow syntax', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae: {tokens: 5\n`)).toMatchInlineSnapshot(
    `"2:12 this { is never closed"`,
  );
});

test('an open quote', async () => {
  expect(await files.faults(`model: "embedded\ntrain_sae:\n`)).toMatchInlineSnapshot(`"1:8 this " is never closed"`);
});

test('wrong indentation', async () => {
  expect(await files.faults(`model: embedded\n  seed: 3\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"1:8 not valid YAML: nested mappings are not allowed in compact mappings (the next line is indented too far, or this text holds a colon and needs quotes)"`,
  );
});

test('an unknown alias and a glob without quotes', async () => {
  expect(await files.faults(`model: *base\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"1:8 the alias *base names no anchor above it (a text that starts with * needs quotes: "*base")"`,
  );
});

test('an alias of itself', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae: &a\n  text: *a\n`)).toMatchInlineSnapshot(
    `"3:9 the alias *a refers to itself (a text that starts with * needs quotes: "*a")"`,
  );
});

test('a merge key of a list', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n  <<: [1, 2]\n`)).toMatchInlineSnapshot(
    `"3:7 << needs a mapping, usually an alias of one"`,
  );
});

test('tags', async () => {
  expect(await files.faults(`model: !!python/object:os.system embedded\ntrain_sae: !mine {}\n`)).toMatchInlineSnapshot(`
    "1:8 unknown tag !!python/object:os.system (experiments need no YAML tags; remove it)
    2:12 unknown tag !mine (experiments need no YAML tags; remove it)"
  `);
});

test('several documents', async () => {
  expect(await files.faults(`model: embedded\ntrain_sae:\n---\nmodel: embedded\n`)).toMatchInlineSnapshot(
    `"3:1 the file holds several YAML documents (keep one; remove the line with three dashes)"`,
  );
});

test('an old YAML version', async () => {
  expect(await files.faults(`%YAML 1.1\n---\nmodel: embedded\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"1:1 the file asks for YAML 1.1 (experiments are YAML 1.2; remove the %YAML line)"`,
  );
});

test('an empty file', async () => {
  expect(await files.faults(``)).toMatchInlineSnapshot(
    `"1:1 the file is empty, not an experiment (start from \`qscope config init\`)"`,
  );
});

test('a file of comments', async () => {
  expect(await files.faults(`# nothing\n\n# here\n`)).toMatchInlineSnapshot(
    `"1:1 the file is empty, not an experiment (start from \`qscope config init\`)"`,
  );
});

test('a list', async () => {
  expect(await files.faults(`- model\n- embedded\n`)).toMatchInlineSnapshot(
    `"1:1 the file holds a list, not an experiment (start from \`qscope config init\`)"`,
  );
});

test('a single text', async () => {
  expect(await files.faults(`embedded`)).toMatchInlineSnapshot(
    `"1:1 the file holds a single value, not an experiment (start from \`qscope config init\`)"`,
  );
});

test('a NUL byte', async () => {
  expect(await files.faults(`model: embed\0ded\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"1:13 the text holds the control character U+0000 (remove it; is this a text file?)"`,
  );
});

test('escapes no path can hold', async () => {
  expect(await files.faults(`model: "a\\0b"\nname: "\\ud800"\ntrain_sae:\n`)).toMatchInlineSnapshot(`
    "1:8 model: the text holds characters that no path or name can hold (remove the escapes \\0 and \\uD800 to \\uDFFF)
    2:7 name: the text holds characters that no path or name can hold (remove the escapes \\0 and \\uD800 to \\uDFFF)"
  `);
});

test('a key that is no name', async () => {
  expect(await files.faults(`model: embedded\n? [a, b]\n: 1\n: 2\ntrain_sae:\n`)).toMatchInlineSnapshot(`
    "2:3 a key must be a plain name
    4:1 a key must be a plain name"
  `);
});

test('names of object internals', async () => {
  expect(
    await files.faults(`model: embedded\n__proto__: {a: 1}\nconstructor: 1\ntrain_sae:\n  toString: 3\n`),
  ).toMatchInlineSnapshot(`
    "2:1 __proto__: unknown field (the fields here are name, seed, model, model_options, compute, train_sae, eval_sae, extract_features, contrast_features, top_features, language_features, repetition_features, diagnose_features, explain_features, steer, bench_redundancy, classify, apply_classifier, synthesize, sft, rl, eval_responses)
    3:1 constructor: unknown field (the fields here are name, seed, model, model_options, compute, train_sae, eval_sae, extract_features, contrast_features, top_features, language_features, repetition_features, diagnose_features, explain_features, steer, bench_redundancy, classify, apply_classifier, synthesize, sft, rl, eval_responses)
    5:3 train_sae.toString: unknown field (the fields here are text, layers, sae, tokens, batch_tokens, aux_k, optimizer, filter, buffer, checkpoint, metrics, formats, kernel, evaluate)"
  `);
});

test('Windows line ends count as one line', async () => {
  expect(await files.faults(`model: embedded\r\ntrain_sae:\r\n  tokens: 0\r\n`)).toMatchInlineSnapshot(
    `"3:11 train_sae.tokens: must be between 1 and 1000000000000000, not 0"`,
  );
});

test('a byte order mark is no column', async () => {
  expect(await files.faults(`\ufeffmodle: embedded\ntrain_sae:\n`)).toMatchInlineSnapshot(
    `"1:1 modle: unknown field (did you mean model?)"`,
  );
});

test('nesting beyond reason', async () => {
  expect(await files.faults(`model: ${'['.repeat(5000)}\n`)).toMatchInlineSnapshot(
    `"1:72 the YAML is nested more than 64 levels deep"`,
  );
});

test('aliases that multiply', async () => {
  expect(await files.faults(aliasBomb())).toMatchInlineSnapshot(
    `"2:10 the YAML, with its aliases expanded, is far larger than any experiment"`,
  );
});

test('bytes that are not UTF-8', async () => {
  const text = Buffer.from('model: embedded\nname: caf\xe9\ntrain_sae:\n', 'latin1');
  expect(await files.faults(text)).toMatchInlineSnapshot(`"2:10 the file is not UTF-8 text (save it as UTF-8)"`);
});

test('UTF-16', async () => {
  const text = Buffer.from('\ufeffmodel: embedded\n', 'utf16le');
  expect(await files.faults(text)).toMatchInlineSnapshot(`"1:1 the file is not UTF-8 text (save it as UTF-8)"`);
});

test('a file of 10 MB', async () => {
  expect(await files.faults('# padding\n'.repeat(1_000_000))).toMatchInlineSnapshot(
    `"1:1 e.yaml is larger than 128 KiB, too large for an experiment file"`,
  );
});

test('a folder, a missing file, and both reported at once', async () => {
  mkdirSync(path.join(files.folder, 'folder'));
  files.write('train-sae.yaml', 'model: embedded\ntrain_sae:\n');
  expect(await files.faultsOf(['folder', 'train_sae.yml', 'no/such.yaml'])).toMatchInlineSnapshot(`
    "folder:1:1 folder is a folder (name a YAML file inside it)
    train_sae.yml:1:1 there is no file train_sae.yml (did you mean train-sae.yaml?)
    no/such.yaml:1:1 there is no file no/such.yaml"
  `);
});

test('an experiment for another command', async () => {
  const text = 'model: embedded\neval_sae: {sae: latest}\n';
  expect(await files.faults(text, { verb: 'train_sae' })).toMatchInlineSnapshot(
    `"2:1 eval_sae: this is an experiment for qscope eval-sae, not for qscope train-sae (run it with qscope eval-sae)"`,
  );
});

test('an empty element of a list says how to mend it', async () => {
  const told = await files.faults('model: embedded\nsteer:\n  prompts: [Hello, ""]\n');
  expect(told).toContain('3:20 steer.prompts[1]: must not be empty');
  expect(told).toContain('write something there, or leave it out');
});

test('no task, where the command says which', async () => {
  expect(await files.faults('model: embedded\n', { verb: 'eval_sae' })).toMatchInlineSnapshot(
    `"1:1 one of train_sae, eval_sae, extract_features, contrast_features, top_features, language_features, repetition_features, diagnose_features, explain_features, steer, bench_redundancy, classify, apply_classifier, synthesize, sft, rl, eval_responses is required"`,
  );
});

test('all faults of a file at once, in its order', async () => {
  const text = [
    'name: bad name',
    'modle: embedded',
    'train_sae:',
    '  sae: {k: 1_000, d_sae: -1}',
    '  layers: [1, 1]',
    '  kernel: sparce',
  ].join('\n');
  expect(await files.faults(text, { set: ['train_sae.tokns=3'] })).toMatchInlineSnapshot(`
    "1:7 name: "bad name" is not allowed here (Name of the run (letters, digits, dot, dash, underscore))
    2:1 modle: unknown field (did you mean model?)
    4:12 train_sae.sae.k: expected a whole number between 1 and 65536, not the text "1_000" (write 1000)
    4:26 train_sae.sae.d_sae: must be between 0 and 16777216, not -1 (Number of features; 0 takes expansion x d_in)
    5:15 train_sae.layers: the value at position 2 is given twice (keep one)
    6:11 train_sae.kernel: expected one of auto, dense, sparse, not "sparce" (did you mean sparse?)
    --set:1:11 train_sae.tokns: unknown field (did you mean train_sae.tokens?)"
  `);
});

test('noise is cut off and counted', async () => {
  const text = Array.from({ length: 500 }, (_, n) => `unknown_${n}: 1`).join('\n');
  const error = await files.load(files.write('e.yaml', text)).catch((caught) => caught);
  expect(error.diagnostics.length).toBe(100);
  // 500 unknown names, the missing model and the missing task.
  expect(error.omitted).toBe(402);
  expect(error.render()).toContain('the experiment has 502 faults; the first 100 are shown');
});
