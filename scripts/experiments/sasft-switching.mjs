// Does the SAE loss keep a model from learning to switch language, and what does that cost? Trains the embedded model on
// rows of which a share slides into Chinese: plainly, with the SAE loss in eight variants, and with what it is compared
// with. Weights are chosen in one way, on other prompts and another seed, before any test prompt is read; the variants of
// the SAE loss share that of the one with mean thresholds, two layers and two features, so that they differ in one thing.
//
//   qscope train-sae configs/embedded/train-sae.yaml
//   node scripts/experiments/sasft-switching.mjs --sae RUN [--seeds 0,1,2] [--arms plain,...] [--at-once 1]
//   node scripts/experiments/picture.mjs runs/sasft-switching/switch-plain-0-* "Around the first switched token" FILE.png
//
// Prints tables in Markdown. Started again with the same --runs, it goes on after the last run that was finished.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { each, Lab, mean, numbers, python, readJson, root, sd, table, wilson } from './lab.mjs';

/** The variant of the SAE loss that has its weight chosen. */
const CHOSEN = 'sasft-mean-last2-top2';
const { values: given } = parseArgs({
  options: {
    sae: { type: 'string', default: 'latest' },
    seeds: { type: 'string', default: '0,1,2' },
    arms: { type: 'string' },
    samples: { type: 'string', default: '3' },
    steps: { type: 'string', default: '0' },
    chinese: { type: 'string', default: `plain,${CHOSEN},random,token_probability,filter` },
    'at-once': { type: 'string', default: '1' },
    runs: { type: 'string', default: path.join(root, 'runs', 'sasft-switching') },
  },
});
/** Weights that are tried, and the seed they are tried with. 0.016 is SASFT's own over the tokens of a step. */
const WEIGHTS = { sae: [0.016, 0.05, 0.15, 0.5], kl: [0.03, 0.1, 0.3], entropy: [0.01, 0.03, 0.1], token: [0.3, 1, 3] };
const VALIDATION = 100;
const VALIDATION_SAMPLES = 8;
/** A weight may raise the held-out loss by so much over plain training, on the validation rows. */
const ALLOWED = 0.01;

const sasft = (threshold, layers, top_k) => ({
  name: `sasft-${threshold}-last${layers.length}-top${top_k}`,
  label: `SASFT, alpha ${threshold}, last ${layers.length === 1 ? 'layer' : 'two layers'}, ${top_k} feature${top_k > 1 ? 's' : ''}`,
  grid: WEIGHTS.sae,
  like: CHOSEN,
  options: (weight) => ({ arm: 'sae', sae_loss: { threshold, layers, top_k, weight } }),
});
const ARMS = [
  { name: 'plain', label: 'plain SFT', grid: [0], options: () => ({ arm: 'plain' }) },
  ...['mean', 'zero'].flatMap((threshold) => [[5], [4, 5]].flatMap((l) => [1, 2].map((k) => sasft(threshold, l, k)))),
  {
    name: 'random',
    label: 'random features, as often active, last two layers, 2',
    grid: WEIGHTS.sae,
    options: (weight) => ({ arm: 'random_features', sae_loss: { weight } }),
  },
  ...[
    ['kl', 'KL to the model before', WEIGHTS.kl],
    ['entropy', 'entropy bonus', WEIGHTS.entropy],
    ['token_probability', 'penalty on the probability of Chinese tokens', WEIGHTS.token],
  ].map(([arm, label, grid]) => ({ name: arm, label, grid, options: (weight) => ({ arm, arm_weight: weight }) })),
  { name: 'filter', label: 'rows that switch left out', grid: [0], options: () => ({ arm: 'filter' }) },
].filter((arm) => !given.arms || ['plain', CHOSEN, ...given.arms.split(',')].includes(arm.name));

mkdirSync(given.runs, { recursive: true });
const lab = new Lab(given.runs);
const sae = given.sae === 'latest' ? 'latest' : path.resolve(given.sae);
const rows = path.join(path.resolve(given.runs), 'rows');
if (!existsSync(path.join(rows, 'test.jsonl'))) {
  execFileSync(python, [path.join(root, 'scripts', 'embedded-model', 'switching.py'), rows], { stdio: 'inherit' });
}
const features = path.join(
  lab.once('languages', 'artifacts/features.json', () =>
    lab.qscope(
      'features',
      'language',
      path.join(root, 'configs/embedded/features-language.yaml'),
      '--set',
      `language_features.sae=${sae}`,
    ),
  ),
  'artifacts/features.json',
);

const source = (file, where) => ({ source: path.join(rows, `${file}.jsonl`), prompt: '{question}', where });

/** Trains one arm; the folder of its run. */
function train(name, seed, file, options) {
  const { sae_loss, ...rest } = options;
  return lab.start(
    name,
    'artifacts/model/config.json',
    ['sft', path.join(root, 'configs/embedded/sft-switching.yaml')],
    lab.write(`${name}.yaml`, {
      name,
      seed,
      sft: {
        data: source('train', ''),
        held_out: source(file, 'kind=text'),
        steps: Number(given.steps),
        sae_loss: { sae, features, ...sae_loss },
        ...rest,
      },
    }),
  );
}

/** What a trained model does with prompts of a file. */
async function measure(name, seed, run, measures, prompts, sampling, rest = {}) {
  const folder = await lab.start(
    name,
    'artifacts/results.json',
    ['eval'],
    lab.write(`${name}.yaml`, {
      name,
      seed,
      model: path.join(run, 'artifacts/model'),
      eval_responses: { measures, prompts, format: { chat: true }, sampling, batch_rows: 160, ...rest },
    }),
  );
  return readJson(path.join(folder, 'artifacts/results.json'));
}

// Sampled as SASFT samples: T 1, top_p 0.8; any Chinese character counts.
const switching = (name, seed, run, file, samples, rest = {}) =>
  measure(
    name,
    seed,
    run,
    ['codeswitch'],
    source(file, 'kind=text'),
    { temperature: 1, top_p: 0.8, max_tokens: 40 },
    { samples, codeswitch: { targets: ['zh'], paper: true }, ...rest },
  );
const micro = (results) => results.codeswitch.micro_average[0];
const lastLoss = (run) => {
  const losses = readJson(path.join(run, 'artifacts/training.json')).held_out_loss;
  return losses[Math.max(...Object.keys(losses).map(Number))];
};

// -- weights: the lowest switching ratio on the validation prompts whose held-out loss is within bounds ----------------

const trials = ARMS.flatMap((arm) =>
  arm.grid.map((weight, at) => ({ arm, weight, name: `${arm.name}-w${at}` })),
).filter(({ arm }) => (arm.like ?? arm.name) === arm.name && (arm.grid.length > 1 || arm.name === 'plain'));
const atOnce = Number(given['at-once']);
await each(trials, atOnce, async (trial) => {
  const run = await train(`tune-${trial.name}`, VALIDATION, 'validation', trial.arm.options(trial.weight));
  trial.switches = micro(
    await switching(`tuneswitch-${trial.name}`, VALIDATION, run, 'validation', VALIDATION_SAMPLES),
  );
  trial.loss = lastLoss(run);
});
const allowed = trials.find((trial) => trial.arm.name === 'plain').loss * (1 + ALLOWED);
for (const arm of ARMS) {
  const own = trials.filter((trial) => trial.arm.name === (arm.like ?? arm.name));
  const within = own.filter((trial) => trial.loss <= allowed);
  // Of equal ratios the smaller weight; where none is within bounds, the smallest.
  within.sort((a, b) => a.switches.value - b.switches.value || a.weight - b.weight);
  arm.weight = (within[0] ?? own[0])?.weight ?? arm.grid[0];
}

// -- the test ----------------------------------------------------------------------------------------------------------

const seeds = numbers(given.seeds);
const points = seeds.flatMap((seed) => ARMS.map((arm) => ({ arm, seed })));
await each(points, atOnce, async (point) => {
  const { arm, seed } = point;
  const name = `${arm.name}-${seed}`;
  const run = await train(`sft-${name}`, seed, 'test', arm.options(arm.weight));
  point.loss = lastLoss(run);
  // Where plain training switches, what do the features do before? The page of these runs shows it.
  const onset = arm.name === 'plain' ? { onset: { sae, features } } : {};
  const { codeswitch: found, onset: around } = await switching(
    `switch-${name}`,
    seed,
    run,
    'test',
    Number(given.samples),
    onset,
  );
  point.onset = around;
  point.switches = found.micro_average[0];
  point.pairs = found.pairs;
  const sums = await measure(`sums-${name}`, seed, run, ['accuracy'], source('test', 'kind=sum'), {
    temperature: 0,
    max_tokens: 32,
  });
  point.right = sums.accuracy.right;
  point.run = run;
});
const chinese = points.filter(({ arm }) => given.chinese.split(',').includes(arm.name));
await each(chinese, atOnce, async (point) => {
  const name = `${point.arm.name}-${point.seed}`;
  // What the loss costs the language itself: the held-out loss before a first step is that of the model as it is.
  const run = await lab.start(
    `chinese-${name}`,
    'artifacts/training.json',
    ['sft'],
    lab.write(`chinese-${name}.yaml`, {
      name: `chinese-${name}`,
      model: path.join(point.run, 'artifacts/model'),
      sft: {
        data: { ...source('train', ''), completion: '{response}', limit: 1 },
        held_out: { ...source('test', 'kind=chinese'), completion: '{response}' },
        format: { chat: true },
        context: 256,
        steps: 1,
        arm: 'plain',
        checkpoint: { every_steps: 0, keep: 1 },
      },
    }),
  );
  point.chinese = readJson(path.join(run, 'artifacts/training.json')).held_out_loss['0'];
});
lab.write('points.json', { given, trials, points });

const share = (one) => `${(100 * one.value).toFixed(2)} (${(100 * one.low).toFixed(2)}-${(100 * one.high).toFixed(2)})`;
const spread = (list, digits, times = 1) =>
  `${(times * mean(list)).toFixed(digits)}${list.length > 1 ? ` ± ${(times * sd(list)).toFixed(digits)}` : ''}`;
const of = (arm) => points.filter((point) => point.arm === arm);
const pooled = (own) => {
  const [count, n] = ['count', 'n'].map((key) => own.reduce((sum, point) => sum + point.switches[key], 0));
  const [low, high] = wilson(count, n);
  return { value: count / n, low, high, n };
};

console.log(`\n### Weights (seed ${VALIDATION}, validation prompts, n = ${trials[0].switches.n} a row)\n`);
console.log(`Held-out loss allowed: ${allowed.toFixed(4)} nats, 1 % above plain training.\n`);
table(
  ['arm', 'weight', 'switching ratio, %', 'held-out loss', 'chosen'],
  trials.map(({ arm, weight, switches, loss }) => [
    arm.label,
    weight,
    share(switches),
    loss.toFixed(4),
    weight === arm.weight ? 'yes' : '',
  ]),
);
const plain = of(ARMS[0]);
console.log(
  `\n### Arms (seeds ${given.seeds}; ${plain[0].switches.n} responses and ${plain[0].right.n} sums a seed)\n`,
);
table(
  [
    'arm',
    'weight',
    'switching ratio, % (pooled, 95 %)',
    'by seed, %',
    'against plain',
    'held-out loss',
    'Chinese held-out loss',
    'sums right, %',
  ],
  ARMS.map((arm) => {
    const own = of(arm);
    const falls = own.map(
      (point) => point.switches.value / plain.find((one) => one.seed === point.seed).switches.value - 1,
    );
    return [
      arm.label,
      arm.weight || '',
      share(pooled(own)),
      own.map((point) => (100 * point.switches.value).toFixed(1)).join(', '),
      arm.name === 'plain' ? '' : `${spread(falls, 0, 100)} %`,
      spread(
        own.map((point) => point.loss),
        4,
      ),
      own[0].chinese
        ? spread(
            own.map((point) => point.chinese),
            4,
          )
        : '',
      spread(
        own.map((point) => point.right.value),
        1,
        100,
      ),
    ];
  }),
);
const languages = plain[0].pairs.map((pair) => pair.expected);
console.log('\n### Switching ratio by language of the prompt, % (mean over seeds)\n');
table(
  ['arm', ...languages],
  ARMS.map((arm) => [
    arm.label,
    ...languages.map((language) =>
      spread(
        of(arm).map((point) => point.pairs.find((pair) => pair.expected === language).value),
        1,
        100,
      ),
    ),
  ]),
);

console.log('\n### Features of Chinese around the first switched token, plain SFT\n');
console.log('Pre-activation less its mean on the language of the response; responses that stay are read as deep.\n');
const tokens = (curve, offset) => {
  const at = curve.offset.indexOf(offset);
  const [value, error] = [curve.mean[at], curve.standard_error[at]];
  return value === null ? '' : `${value.toFixed(1)}${error === null ? '' : ` ± ${error.toFixed(1)}`}`;
};
const OFFSETS = [-8, -4, -2, -1, 0, 1, 4];
table(
  ['seed', 'layer', 'features of', 'responses', ...OFFSETS.map((offset) => `token ${offset}`), 'AUC before'],
  plain
    .filter((point) => point.onset)
    .flatMap(({ seed, onset: { curves, before } }) =>
      curves
        .filter((curve) => curve.switched || curve.features_of === 'target')
        .map((curve) => {
          const { auc, low, high } = before.find((one) => one.layer === curve.layer);
          const target = curve.features_of === 'target' && curve.switched;
          return [
            seed,
            curve.layer,
            curve.features_of,
            `${curve.responses[curve.offset.indexOf(0)]} that ${curve.switched ? 'switch' : 'stay'}`,
            ...OFFSETS.map((offset) => tokens(curve, offset)),
            target ? `${auc.toFixed(3)} (${low.toFixed(3)}-${high.toFixed(3)})` : '',
          ];
        }),
    ),
);
