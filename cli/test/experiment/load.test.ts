import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { create, equals, fromJson, toJson } from '@bufbuild/protobuf';
import { afterAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { ExperimentSchema } from '../../src/gen/qscope/v1/experiment_pb.js';
import { LearningRateDecay } from '../../src/gen/qscope/v1/posttraining_pb.js';
import { SaeFormat, TrainSaeSchema } from '../../src/gen/qscope/v1/sae_pb.js';
import { Files } from './files.js';

const files = new Files();
afterAll(() => files.remove());

const minimal = 'model: embedded\ntrain_sae:\n';

async function train(names: string | string[], options = {}) {
  const { experiment } = await files.load(names, options);
  if (experiment.task.case !== 'trainSae') throw new Error('not a training experiment');
  return experiment.task.value;
}

test('what is not given takes its default, also in groups nobody named', async () => {
  const { experiment, origins } = await files.load(files.write('e.yaml', minimal));
  expect(toJson(ExperimentSchema, experiment)).toMatchObject({
    name: 'run',
    modelOptions: { precision: 'PRECISION_AUTO' },
    compute: { device: 'DEVICE_AUTO' },
    trainSae: {
      text: { source: 'embedded', context: 512, pack: true },
      sae: { expansion: 16, k: 50 },
      tokens: '5000000',
      auxK: { coefficient: 0.03125 },
      optimizer: { epsilon: 6.25e-10 },
      filter: { dropFirstToken: true, maxNormRatio: 10 },
      formats: ['SAE_FORMAT_NATIVE', 'SAE_FORMAT_QWEN_SCOPE'],
      evaluate: { text: { source: 'embedded' } },
    },
  });
  expect(origins.get('train_sae.sae.k')).toEqual({ kind: 'default' });
  expect(origins.get('model')).toEqual({ kind: 'file', file: 'e.yaml', line: 1, column: 1 });
});

test('the resolved file is complete: loading it again gives the same experiment', async () => {
  const text = `${minimal}  layers: [0, 3]\n  tokens: 900000000000001\n  optimizer: {epsilon: 1e-12}\n  text: {field: "yes", split: '007'}\n`;
  const first = await files.load(files.write('e.yaml', text));
  const second = await files.load(files.write('resolved.yaml', first.resolvedYaml));
  expect(equals(ExperimentSchema, first.experiment, second.experiment)).toBe(true);
  expect([...second.origins.values()].filter(({ kind }) => kind === 'default')).toEqual([]);
  expect(Object.keys(parse(first.resolvedYaml).train_sae)).toEqual(TrainSaeSchema.fields.map(({ name }) => name));
});

test('the frozen JSON form holds nothing that is lost on the way', async () => {
  const { experiment } = await files.load(files.write('e.yaml', `${minimal}  tokens: 999999999999999\n`));
  const back = fromJson(ExperimentSchema, JSON.parse(JSON.stringify(toJson(ExperimentSchema, experiment))));
  expect(equals(ExperimentSchema, back, create(ExperimentSchema, experiment))).toBe(true);
});

test('numbers of YAML 1.2', async () => {
  const text = `${minimal}  tokens: 5e6\n  batch_tokens: 0x10\n  sae: {k: 010}\n  optimizer: {learning_rate: 1e-4}\n  filter: {max_norm_ratio: 3}\n`;
  expect(await train(files.write('e.yaml', text))).toMatchObject({
    tokens: 5_000_000n,
    batchTokens: 16,
    sae: { k: 10 },
    optimizer: { learningRate: 1e-4 },
    filter: { maxNormRatio: 3 },
  });
});

test('later files go over earlier ones: groups merge, lists and values are replaced', async () => {
  files.write('base.yaml', `${minimal}  layers: [1, 2]\n  sae: {k: 8, expansion: 4}\n  tokens: 10\n`);
  files.write('more.yaml', 'train_sae:\n  layers: [3]\n  sae: {k: 9}\n  filter:\n');
  files.write('last.yaml', 'seed: 4\ntrain_sae:\n  tokens: 11\n');
  const names = ['base.yaml', 'more.yaml', 'last.yaml'];
  expect(await train(names)).toMatchObject({ layers: [3], sae: { k: 9, expansion: 4 }, tokens: 11n });
  const { locate, sourceText } = await files.load(names);
  expect(locate('train_sae.sae.k')).toEqual({ file: 'more.yaml', line: 3, column: 12 });
  expect(locate('train_sae.sae.expansion')).toEqual({ file: 'base.yaml', line: 4, column: 26 });
  expect(locate('train_sae.layers[0]')).toEqual({ file: 'more.yaml', line: 2, column: 12 });
  // A fault of a field that nobody wrote is shown at the group around it.
  expect(locate('train_sae.aux_k.k')).toEqual({ file: 'last.yaml', line: 2, column: 1 });
  expect(locate('compute.threads')).toMatchObject({ file: 'base.yaml', line: 1, column: 1 });
  expect(sourceText).toContain('# more.yaml\ntrain_sae:\n  layers: [3]');
});

test('a group may bring defaults of its own, which what is written goes over', async () => {
  const rl = 'model: embedded\nrl: {prompts: {source: a.jsonl}, rewards: [{kind: answer}]';
  const { experiment, origins, locate } = await files.load(
    files.write('e.yaml', `${rl}, sampling: {temperature: 0.5}, optimizer: }\n`),
  );
  expect(experiment.task.value).toMatchObject({
    sampling: { temperature: 0.5, topP: 1, maxTokens: 512 },
    optimizer: { decay: LearningRateDecay.CONSTANT, weightDecay: 0.1 },
  });
  expect(origins.get('rl.sampling.max_tokens')).toEqual({ kind: 'default' });
  expect(origins.get('rl.sampling.temperature')).toMatchObject({ kind: 'file', line: 2 });
  // A default is nobody's line: its fault would be shown at the group.
  expect(locate('rl.sampling.max_tokens')).toEqual(locate('rl.sampling'));
  const steered = await files.load(
    files.write('e.yaml', 'model: embedded\nsteer: {steering: {edits: [{layers: [1], features: [0]}]}}\n'),
  );
  expect(steered.experiment.task.value).toMatchObject({ sampling: { temperature: 0.8, maxTokens: 64 } });
  expect(await files.faults(`${rl}, sampling: [1]}\n`)).toMatchInlineSnapshot(
    `"2:71 rl.sampling: expected a mapping (temperature, top_p, top_k, max_tokens, ...), not a list"`,
  );
});

test('a group that means something by being there is not made of defaults', async () => {
  const sft = 'model: embedded\nsft: {data: {source: a.jsonl}';
  const plain = await files.load(files.write('e.yaml', `${sft}}\n`));
  expect(plain.experiment.task.value).toMatchObject({ optimizer: { decay: LearningRateDecay.COSINE } });
  expect(plain.experiment.task.value).not.toHaveProperty('saeLoss');
  expect([...plain.origins.keys()].filter((path) => path.startsWith('sft.sae_loss'))).toEqual([]);
  const named = files.write('e.yaml', `${sft}, sae_loss: {sae: s, features: f, target_languages: [zh]}}\n`);
  expect((await files.load(named)).experiment.task.value).toMatchObject({ saeLoss: { topK: 2, weight: 0.016 } });
  expect(await files.faults(`${sft}, sae_loss: }\n`)).toMatchInlineSnapshot(`
    "2:32 sft.sae_loss.sae: is required (add sae: Run id or folder, SAE folder or file, or a Qwen-Scope repository id)
    2:32 sft.sae_loss.features: is required (add features: Run of \`qscope features language\` on the model that is trained, or its features.json: which features stand for a language, and their mean pre-activations)
    2:32 sft.sae_loss.target_languages: needs at least 1 value (Languages that answers in other languages are not to switch to, for example [zh])"
  `);
  expect(await files.faults(`${sft}, arm: filter}\n`)).toMatchInlineSnapshot(
    `"2:1 sft: random_features, filter and token_probability take the target languages from sae_loss"`,
  );
});

test('one file is kept as it was written', async () => {
  const text = `# why\n${minimal}`;
  expect((await files.load(files.write('e.yaml', text))).sourceText).toBe(text);
});

test('a file goes over the one it extends, which is named relative to it', async () => {
  files.write('shared/root.yaml', `${minimal}  tokens: 1\n  batch_tokens: 2\n`);
  files.write('shared/base.yaml', 'extends: ./root.yaml\ntrain_sae: {batch_tokens: 3, sae: {k: 7}}\n');
  files.write('own/e.yaml', 'extends: ../shared/base.yaml\ntrain_sae: {sae: {expansion: 2}}\n');
  expect(await train('own/e.yaml')).toMatchObject({ tokens: 1n, batchTokens: 3, sae: { k: 7, expansion: 2 } });
});

test('faults of the extended file carry its own name', async () => {
  files.write('shared/bad.yaml', `${minimal}  tokns: 1\n`);
  files.write('e.yaml', 'extends: shared/bad.yaml\ntrain_sae: {sae: {k: 0}}\n');
  expect(await files.faultsOf('e.yaml')).toMatchInlineSnapshot(`
    "shared/bad.yaml:3:3 train_sae.tokns: unknown field (did you mean tokens?)
    2:22 train_sae.sae.k: must be between 1 and 65536, not 0"
  `);
});

test('extends: circles, missing files, wrong values', async () => {
  files.write('a.yaml', 'extends: ./b.yaml\n');
  files.write('b.yaml', 'extends: ./a.yaml\n');
  expect(await files.faultsOf('a.yaml')).toMatchInlineSnapshot(
    `"b.yaml:1:10 extends: the files extend each other in a circle: a.yaml -> b.yaml -> a.yaml"`,
  );
  expect(await files.faults(`extends: ./gone.yaml\n${minimal}`)).toMatchInlineSnapshot(
    `"1:10 there is no file gone.yaml"`,
  );
  expect(await files.faults(`extends: [a.yaml]\n${minimal}`)).toMatchInlineSnapshot(
    `"1:10 extends: expected the path of one YAML file (write extends: ./base.yaml)"`,
  );
  expect(await files.faults(`extends: ''\n${minimal}`)).toMatchInlineSnapshot(
    `"1:10 extends: expected the path of one YAML file (write extends: ./base.yaml)"`,
  );
  for (let n = 0; n < 30; n++) files.write(`chain${n}.yaml`, `extends: ./chain${n + 1}.yaml\n`);
  expect(await files.faultsOf('chain0.yaml')).toMatchInlineSnapshot(
    `"chain16.yaml:1:10 extends: too many files extend each other"`,
  );
});

test('--set goes over all files, in order, with values of every kind', async () => {
  files.write('e.yaml', `${minimal}  layers: [5]\n`);
  const set = [
    'train_sae.layers=[0, 2]',
    'train_sae.sae={k: 3}',
    'train_sae.sae.expansion=2',
    'train_sae.tokens=1',
    'train_sae.tokens=2',
    'train_sae.formats=[saelens]',
    'train_sae.optimizer.learning_rate=1e-4',
    'name=it',
  ];
  const { experiment, origins, sourceText } = await files.load('e.yaml', { set });
  expect(experiment.name).toBe('it');
  expect(experiment.task.value).toMatchObject({
    layers: [0, 2],
    sae: { k: 3, expansion: 2 },
    tokens: 2n,
    formats: [SaeFormat.SAELENS],
    optimizer: { learningRate: 1e-4 },
  });
  expect(origins.get('train_sae.tokens')).toEqual({ kind: 'set', file: '--set', line: 5, column: 11 });
  expect(sourceText.endsWith('# --set name=it\n')).toBe(true);
});

test('--set: faults', async () => {
  files.write('e.yaml', minimal);
  const set = [
    'train_sae.k=3',
    'train_sae.sea.k=3',
    'tokens=3',
    'train_sae.tokens.x=3',
    'train_sae.layers[0]=3',
    'no equals sign',
    '=3',
    'train_sae.tokens=',
    'train_sae.sae.k=lots',
    'train_sae.batch_tokens=[1',
  ];
  expect(await files.faultsOf('e.yaml', { set })).toMatchInlineSnapshot(`
    "--set:1:11 train_sae.k: unknown field (did you mean train_sae.sae.k?)
    --set:2:11 train_sae.sea: unknown field (did you mean train_sae.sae?)
    --set:3:1 tokens: unknown field (did you mean train_sae.tokens?)
    --set:4:18 train_sae.tokens.x: train_sae.tokens holds a value, not fields (write train_sae.tokens=VALUE)
    --set:5:11 train_sae.layers[0]: unknown field (lists are replaced as a whole: train_sae.layers=[...])
    --set:6:1 expected PATH=VALUE, not "no equals sign" (for example --set train_sae.sae.k=32)
    --set:7:1 expected PATH=VALUE, not "=3" (for example --set train_sae.sae.k=32)
    --set:8:18 train_sae.tokens: has no value (give a whole number between 1 and 1000000000000000, or remove the line)
    --set:9:17 train_sae.sae.k: expected a whole number between 1 and 65536, not the text "lots"
    --set:10:24 this [ is never closed"
  `);
  expect(await files.faultsOf('e.yaml', { set: ['train_sae.text.source=*.jsonl'] })).toMatchInlineSnapshot(
    `"--set:1:23 the alias *.jsonl names no anchor above it (a text that starts with * needs quotes)"`,
  );
});

test('environment variables in fields that hold a path', async () => {
  const text = `model: \${env:MODEL}\ntrain_sae:\n  text: {source: "\${env:TEXT:-./own.txt}"}\n`;
  files.write('sub/e.yaml', text);
  const { experiment, origins } = await files.load('sub/e.yaml', { environment: { MODEL: './m' } });
  expect(experiment.model).toBe(path.join(files.folder, 'm'));
  expect(origins.get('model')).toMatchObject({ kind: 'file', variable: 'MODEL' });
  expect(experiment.task.value).toMatchObject({ text: { source: path.join(files.folder, 'sub', 'own.txt') } });
});

test('environment variables: faults', async () => {
  const text = `model: \${env:MODEL}\nname: \${env:USER}\ntrain_sae:\n  text: {source: "\${env:A}/b"}\n`;
  expect(await files.faults(text)).toMatchInlineSnapshot(`
    "1:8 model: the environment variable MODEL is not set (set it, or write \${env:MODEL:-default})
    2:7 name: only fields that hold a path may name an environment variable
    4:18 train_sae.text.source: the environment variable must be the whole value"
  `);
});

test('paths are resolved against the file that names them; names stay names', async () => {
  mkdirSync(path.join(files.folder, 'sub', 'embedded'), { recursive: true });
  files.write('sub/data/text.txt', 'x');
  files.write('sub/Org/model/config.json', '{}');
  const source = async (value: string, options = {}) => {
    files.write('sub/e.yaml', `model: embedded\ntrain_sae:\n  text: {source: ${JSON.stringify(value)}}\n`);
    const task = await train('sub/e.yaml', options);
    return task.text?.source;
  };
  const sub = path.join(files.folder, 'sub');
  expect(await source('embedded')).toBe('embedded');
  expect(await source('embedded-heldout')).toBe('embedded-heldout');
  expect(await source('HuggingFaceFW/fineweb')).toBe('HuggingFaceFW/fineweb');
  expect(await source('Org/model')).toBe(path.join(sub, 'Org/model'));
  expect(await source('data/text.txt')).toBe(path.join(sub, 'data/text.txt'));
  expect(await source('data/gone.txt')).toBe('data/gone.txt');
  expect(await source('./gone.txt')).toBe(path.join(sub, 'gone.txt'));
  expect(await source('..')).toBe(files.folder);
  expect(await source('data/*.jsonl')).toBe(path.join(sub, 'data/*.jsonl'));
  expect(await source('~/corpus')).toBe(path.join(homedir(), 'corpus'));
  expect(await source('/data/x.txt')).toBe('/data/x.txt');
  expect(await source('embedded', { set: ['train_sae.text.source=./x.txt'] })).toBe(path.join(files.folder, 'x.txt'));
});

test('anchors, aliases and merge keys', async () => {
  const text = [
    'model: embedded',
    'train_sae:',
    '  text: &text {source: embedded, context: 64, pack: false}',
    '  evaluate:',
    '    text:',
    '      <<: *text',
    '      source: embedded-heldout',
    '    tokens: 10',
  ].join('\n');
  expect(await train(files.write('e.yaml', text))).toMatchObject({
    text: { source: 'embedded', context: 64, pack: false },
    evaluate: { text: { source: 'embedded-heldout', context: 64, pack: false }, tokens: 10n },
  });
  const { locate } = await files.load('e.yaml');
  expect(locate('train_sae.evaluate.text.context')).toMatchObject({ line: 3, column: 43 });
});

test('Windows line ends and a byte order mark change nothing', async () => {
  const plain = await files.load(files.write('e.yaml', `${minimal}  tokens: 7\n`));
  const other = await files.load(files.write('e.yaml', `\ufeff${minimal}  tokens: 7\n`.replaceAll('\n', '\r\n')));
  expect(equals(ExperimentSchema, plain.experiment, other.experiment)).toBe(true);
});
