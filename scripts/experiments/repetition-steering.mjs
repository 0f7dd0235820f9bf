// Does a repetition feature cause loops? Finds the feature of every layer that rises most while the model loops, then adds
// and suppresses it on prompts that lead to a loop and on prompts that do not, beside random and foreign directions.
//
//   node scripts/experiments/repetition-steering.mjs --sae RUN [--layers 0,1,...] [--seeds 0,1,2] [--top 1]
//
// Prints tables: the features, and the share of greedy continuations that end in a loop, by strength; n and spread over
// the seeds. Every seed has prompts of its own, none of which the search for features has seen. Started again with the
// same --runs, it goes on after the last run that was finished.
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { heldOut, Lab, mean, numbers, percent, readJson, readLines, root, table } from './lab.mjs';

const { values: given } = parseArgs({
  options: {
    sae: { type: 'string', default: 'latest' },
    layers: { type: 'string', default: '0,1,2,3,4,5' },
    seeds: { type: 'string', default: '0,1,2' },
    top: { type: 'string', default: '1' },
    documents: { type: 'string', default: '600' },
    prompts: { type: 'string', default: '48' },
    tokens: { type: 'string', default: '96' },
    runs: { type: 'string', default: path.join(root, 'runs', 'repetition-steering') },
  },
});
const STRENGTHS = [-0.6, -0.4, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4, 0.6];
const layers = numbers(given.layers);
const seeds = numbers(given.seeds);
const top = Number(given.top);
mkdirSync(given.runs, { recursive: true });
const lab = new Lab(given.runs);
const sae = path.resolve(given.sae);

const found = lab.once('loops', 'artifacts/repetition.json', () =>
  lab.qscope(
    'features',
    'repetition',
    lab.write('loops.yaml', {
      name: 'loops',
      model: 'embedded',
      repetition_features: {
        sae,
        text: { source: 'embedded-heldout', context: 128 },
        documents: Number(given.documents),
        top: Math.max(top, 4),
      },
    }),
  ),
);
const features = path.join(found, 'artifacts/features.json');
const { entries } = readJson(features);
const report = readJson(path.join(found, 'artifacts/repetition.json'));

console.log(
  `${report.documents_looping} of ${report.documents} greedy continuations loop; ${report.documents_ranking} rank the features, ` +
    `${report.documents_held_out} check them, beside ${report.documents_ordinary} that do not loop.\n`,
);
const known = (list) => list.filter((value) => value !== null);
table(
  [
    'layer',
    'feature',
    'first repetition',
    'last',
    'AUC last/first',
    'before',
    'after',
    'ordinary',
    'AUC loop/ordinary',
    'matched',
    'its after',
  ],
  report.onset.map((onset) => {
    const best = entries.find((entry) => entry.layer === onset.layer);
    const auc = (value, low, high) => `${value.toFixed(3)} (${low.toFixed(3)}-${high.toFixed(3)})`;
    return [
      onset.layer,
      onset.feature,
      best.curve[0].toFixed(2),
      best.curve.at(-1).toFixed(2),
      auc(best.held_out_auc, best.auc_low, best.auc_high),
      mean(known(onset.loops.before_D)).toFixed(2),
      mean(known(onset.loops.after_D)).toFixed(2),
      mean(known(onset.ordinary.after_D)).toFixed(2),
      auc(onset.auc, onset.low, onset.high),
      onset.matched,
      mean(known(onset.matched_loops.after_D)).toFixed(2),
    ];
  }),
);

// Prompts the search has not read: it takes documents from the beginning.
const rows = heldOut()
  .slice(Number(given.documents) + 200)
  .filter((row) => row.source !== 'generated-chat' && row.text.length > 300);
const count = Number(given.prompts);
if (rows.length < count * seeds.length) throw new Error(`${rows.length} documents are too few for these prompts`);
const promptsOf = (seed) => {
  const first = seeds.indexOf(seed) * count;
  return rows.slice(first, first + count).map((row) => row.text.slice(0, 80).replaceAll('\n', ' ').trim());
};

const points = [];
for (const layer of layers) {
  for (const seed of seeds) {
    const folder = lab.once(`steer-${layer}-${seed}`, 'artifacts/steering.json', () =>
      lab.qscope(
        'steer',
        lab.write('steer.yaml', {
          name: `steer-${layer}-${seed}`,
          seed,
          model: 'embedded',
          steer: {
            sae,
            prompts: promptsOf(seed),
            steering: {
              edits: [{ feature_file: features, layers: [layer], top, unit: 'norm', strength: 1 / Math.sqrt(top) }],
            },
            sampling: { temperature: 0, max_tokens: Number(given.tokens), ignore_end: true },
            controls: ['random', 'foreign'],
            sweep: STRENGTHS,
            batch_rows: 108,
            side_effects: { text: { source: 'embedded-heldout', context: 128 }, tokens: 2048 },
          },
        }),
      ),
    );
    const texts = readLines(path.join(folder, 'artifacts/generations.jsonl'));
    const prone = new Set(texts.filter((row) => row.arm === 'unsteered' && row.looping).map((row) => row.prompt));
    const { arms } = readJson(path.join(folder, 'artifacts/steering.json'));
    for (const arm of arms) {
      for (const group of ['all', 'prone', 'others']) {
        const mine = texts.filter(
          (row) =>
            row.arm === arm.arm &&
            row.factor === arm.factor &&
            (group === 'all' || prone.has(row.prompt) === (group === 'prone')),
        );
        points.push({
          layer,
          seed,
          group,
          arm: arm.arm,
          factor: arm.factor,
          n: mine.length,
          looping: mine.filter((row) => row.looping).length / mine.length,
          perplexity_ratio: arm.perplexity_ratio,
        });
      }
    }
  }
}
lab.write('points.json', { given, points });

const TITLES = {
  all: 'All prompts',
  prone: 'Prompts whose unsteered continuation loops',
  others: 'Prompts whose unsteered continuation does not',
};
for (const [group, title] of Object.entries(TITLES)) {
  const sizes = seeds.map((seed) => points.find((p) => p.seed === seed && p.group === group).n);
  console.log(`\n### ${title} (n = ${sizes.join(' + ')}), share that ends in a loop, %\n`);
  for (const arm of ['steered', 'random', 'foreign']) {
    console.log(`${arm}\n`);
    const at = (layer, name, factor) =>
      points
        .filter((p) => p.layer === layer && p.group === group && p.arm === name && p.factor === factor)
        .map((p) => p.looping);
    table(
      ['layer', '0', ...STRENGTHS],
      layers.map((layer) => [
        layer,
        percent(at(layer, 'unsteered', 0)),
        ...STRENGTHS.map((factor) => percent(at(layer, arm, factor))),
      ]),
    );
  }
}
console.log('\n### Perplexity ratio on neutral text (2,048 tokens; mean over seeds)\n');
for (const arm of ['steered', 'random', 'foreign']) {
  console.log(`${arm}\n`);
  const at = (layer, factor) =>
    mean(
      points
        .filter((p) => p.layer === layer && p.group === 'all' && p.arm === arm && p.factor === factor)
        .map((p) => p.perplexity_ratio),
    );
  table(
    ['layer', ...STRENGTHS],
    layers.map((layer) => [layer, ...STRENGTHS.map((factor) => at(layer, factor).toFixed(2))]),
  );
}
