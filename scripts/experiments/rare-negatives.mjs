// Does one rollout of each group that was steered into a loop teach a model not to loop? Makes a model that loops now and
// then, finds the features of its loops, and goes on with DAPO: plainly, with rare negatives, and with two controls in
// their place. Equal steps, rollouts and rewards; nothing is chosen by arm, the strength of steering finds itself.
//
//   qscope train-sae configs/embedded/train-sae.yaml
//   node scripts/experiments/rare-negatives.mjs --sae RUN [--seeds 0,1,2] [--arms vanilla,...] [--steps 40] [--at-once 1]
//
// Prints tables in Markdown. Started again with the same --runs, it goes on after the last run that was finished.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { each, Lab, mean, numbers, python, readJson, readLines, root, sd, table, wilson } from './lab.mjs';

const { values: given } = parseArgs({
  options: {
    sae: { type: 'string', default: 'latest' },
    seeds: { type: 'string', default: '0,1,2' },
    arms: { type: 'string' },
    steps: { type: 'string', default: '40' },
    every: { type: 'string', default: '10' },
    documents: { type: 'string', default: '600' },
    prompts: { type: 'string', default: '0' },
    'at-once': { type: 'string', default: '1' },
    runs: { type: 'string', default: path.join(root, 'runs', 'rare-negatives') },
  },
});
const negatives = (options) => ({ mode: 'rare_negative', rare_negative: options });
const ARMS = [
  { name: 'vanilla', label: 'DAPO without rare negatives', penalty: { mode: 'none' } },
  { name: 'steered', label: 'rare negatives', penalty: negatives({ source: 'steered' }) },
  {
    name: 'separate',
    label: 'rare negatives, separate advantages',
    penalty: negatives({ source: 'steered', advantage: 'separate' }),
  },
  {
    name: 'random',
    label: 'control: steered by random features',
    penalty: negatives({ source: 'random_features' }),
  },
  { name: 'pasted', label: 'control: pasted loops', penalty: negatives({ source: 'pasted' }) },
].filter((arm) => !given.arms || given.arms.split(',').includes(arm.name));

mkdirSync(given.runs, { recursive: true });
const lab = new Lab(given.runs);
const sae = given.sae === 'latest' ? 'latest' : path.resolve(given.sae);
const config = (name) => path.join(root, 'configs/embedded', name);
const rows = path.join(path.resolve(given.runs), 'rows');
if (!existsSync(path.join(rows, 'test.jsonl'))) {
  execFileSync(python, [path.join(root, 'scripts', 'embedded-model', 'looping.py'), rows], { stdio: 'inherit' });
}
const file = (name) => ({ source: path.join(rows, `${name}.jsonl`) });

const cold = await lab.start(
  'cold-start',
  'artifacts/model/config.json',
  ['sft', config('sft-looping.yaml')],
  lab.write('cold-start.yaml', { name: 'cold-start', sft: { data: file('cold-start') } }),
);
const model = path.join(cold, 'artifacts/model');
// Of the best feature of each layer, the one that loops have most of beside ordinary text. SAEs and loops are those of the
// model before its cold start; what the feature does to the model after it, the search for a strength will say.
const loops = await lab.start(
  'loops',
  'artifacts/features.json',
  ['features', 'repetition', config('features-repetition.yaml')],
  lab.write('loops.yaml', {
    name: 'loops',
    repetition_features: { sae, documents: Number(given.documents) },
  }),
);
const { onset } = readJson(path.join(loops, 'artifacts/repetition.json'));
const best = onset.reduce((one, other) => (other.auc > one.auc ? other : one));
const features = [`${best.layer}/${best.feature}`];

const points = numbers(given.seeds).flatMap((seed) => ARMS.map((arm) => ({ arm, seed })));
await each(points, Number(given['at-once']), async (point) => {
  const { arm, seed } = point;
  const name = `rl-${arm.name}-${seed}`;
  const { rare_negative, ...penalty } = arm.penalty;
  const folder = await lab.start(
    name,
    'artifacts/model/config.json',
    ['rl', config('rl-looping.yaml')],
    lab.write(`${name}.yaml`, {
      name,
      seed,
      model,
      rl: {
        prompts: file('prompts'),
        steps: Number(given.steps),
        evaluate: { prompts: { ...file('test'), limit: Number(given.prompts) }, every_steps: Number(given.every) },
        sae_penalty: { ...penalty, sae, rare_negative: { features, ...rare_negative } },
      },
    }),
  );
  point.evaluated = readJson(path.join(folder, 'artifacts/evaluation.json'));
  point.calibration = arm.penalty.rare_negative ? path.join(folder, 'artifacts/calibration.json') : '';
  const steered = readLines(path.join(folder, 'artifacts/rollouts.jsonl')).filter((row) => row.steered);
  point.steered = steered.length;
});
lab.write('points.json', { given, points });

console.log(`\nThe feature of loops is ${features[0]}: AUC ${best.auc.toFixed(3)} against ordinary text.\n`);
const steps = points[0].evaluated.map((one) => one.step);
const of = (arm) => points.filter((point) => point.arm === arm);
const at = (point, step, name) => point.evaluated.find((one) => one.step === step)[name];
const spread = (list) =>
  `${(100 * mean(list)).toFixed(2)}${list.length > 1 ? ` ± ${(100 * sd(list)).toFixed(2)}` : ''}`;
const n = points[0].evaluated[0].repeat_ratio[3];

for (const [name, title] of [
  ['repeat_ratio', 'Repeat ratio'],
  ['accuracy', 'Sums right'],
  ['clipped_ratio', 'Cut off at 128 tokens'],
]) {
  console.log(`\n### ${title}, % of ${n} held-out prompts (seeds ${given.seeds}; mean ± standard deviation)\n`);
  table(
    ['arm', ...steps.map((step) => `step ${step}`)],
    ARMS.map((arm) => [
      arm.label,
      ...steps.map((step) =>
        spread(
          of(arm)
            .map((point) => at(point, step, name)?.[0])
            .filter((value) => value !== undefined),
        ),
      ),
    ]),
  );
}
console.log(`\n### At the end, all seeds together (95 %)\n`);
table(
  ['arm', 'repeat ratio, %', 'n', 'by seed, %', 'repeated 3-grams, %'],
  ARMS.map((arm) => {
    const last = of(arm).map((point) => point.evaluated.at(-1));
    const total = last.reduce((sum, one) => sum + one.repeat_ratio[3], 0);
    const count = Math.round(last.reduce((sum, one) => sum + one.repeat_ratio[0] * one.repeat_ratio[3], 0));
    const [low, high] = wilson(count, total).map((bound) => (100 * bound).toFixed(2));
    return [
      arm.label,
      `${((100 * count) / total).toFixed(2)} (${low}-${high})`,
      total,
      last.map((one) => (100 * one.repeat_ratio[0]).toFixed(1)).join(', '),
      spread(last.map((one) => one.repeated_3grams)),
    ];
  }),
);
