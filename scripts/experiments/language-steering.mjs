// Is a feature found by contrast a lever? Finds features of one language at every layer, adds and suppresses them on
// prompts in two languages and on prompts that switch from one to the other, beside random and foreign directions.
//
//   node scripts/experiments/language-steering.mjs --sae RUN [--language de] [--layers 0,1,...] [--seeds 0,1,2] [--top 4]
//
// Prints a table per group of prompts: share of texts in the language, by strength; n and spread over the seeds.
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { heldOut, Lab, mean, numbers, percent, readJson, readLines, root } from './lab.mjs';

const { values: given } = parseArgs({
  options: {
    sae: { type: 'string', default: 'latest' },
    language: { type: 'string', default: 'de' },
    other: { type: 'string', default: 'en' },
    layers: { type: 'string', default: '0,1,2,3,4,5' },
    seeds: { type: 'string', default: '0,1,2' },
    top: { type: 'string', default: '4' },
    prompts: { type: 'string', default: '12' },
    tokens: { type: 'string', default: '30' },
    runs: { type: 'string', default: path.join(root, 'runs', 'language-steering') },
  },
});
const { language, other } = given;
const STRENGTHS = [-1, -0.5, -0.25, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1, 1.5];
const LANGUAGES = ['en', 'zh', 'ru', 'fr', 'de', 'ko'];

/** First words of held-out documents of a language, about `length` characters. */
function beginnings(wanted, length) {
  return heldOut()
    .filter((row) => row.language === wanted && row.source !== 'generated-chat' && row.text.length > 3 * length)
    .slice(0, Number(given.prompts))
    .map((row) => row.text.slice(0, row.text.indexOf(' ', length)).replaceAll('\n', ' ').trim());
}

mkdirSync(given.runs, { recursive: true });
const lab = new Lab(given.runs);
const long = { [language]: beginnings(language, 60), [other]: beginnings(other, 60) };
const groups = {
  [other]: long[other],
  [language]: long[language],
  // A text that has begun to switch: what the paper's first case study suppresses.
  [`${other}, then ${language}`]: long[other].map((text, index) => `${text}. ${long[language][index].slice(0, 30)}`),
};
const prompts = Object.values(groups).flat();
const groupOf = Object.entries(groups).flatMap(([name, texts]) => texts.map(() => name));

lab.qscope(
  'features',
  'contrast',
  lab.write('contrast.yaml', {
    name: 'contrast',
    model: 'embedded',
    contrast_features: {
      sae: path.resolve(given.sae),
      positives: { source: 'embedded-heldout', where: `language=${language}`, context: 128 },
      negatives: { source: 'embedded-heldout', where: `language!=${language}`, context: 128 },
    },
  }),
);
const features = path.join(lab.newest('contrast-'), 'artifacts/features.json');
const found = readJson(features).entries;

const points = [];
for (const layer of numbers(given.layers)) {
  const best = found.filter((entry) => entry.layer === layer).slice(0, Number(given.top));
  console.error(
    `layer ${layer}: features ${best.map((e) => `${e.feature} (AUC ${e.held_out_auc.toFixed(3)})`).join(', ')}`,
  );
  for (const seed of numbers(given.seeds)) {
    lab.qscope(
      'steer',
      lab.write('steer.yaml', {
        name: `steer-${layer}-${seed}`,
        seed,
        model: 'embedded',
        steer: {
          sae: path.resolve(given.sae),
          prompts,
          steering: {
            edits: [
              {
                feature_file: features,
                layers: [layer],
                top: Number(given.top),
                unit: 'norm',
                strength: 1 / Math.sqrt(Number(given.top)),
              },
            ],
          },
          sampling: { max_tokens: Number(given.tokens), ignore_end: true },
          controls: ['random', 'foreign'],
          sweep: STRENGTHS,
          batch_rows: 108,
          languages: LANGUAGES,
          side_effects: {
            text: { source: 'embedded-heldout', where: `language=${other}`, context: 128 },
            tokens: 2048,
          },
        },
      }),
    );
    const folder = lab.newest(`steer-${layer}-${seed}-`);
    const rows = readLines(path.join(folder, 'artifacts/generations.jsonl'));
    const { arms } = readJson(path.join(folder, 'artifacts/steering.json'));
    for (const arm of arms) {
      for (const group of Object.keys(groups)) {
        const mine = rows.filter(
          (row) => row.arm === arm.arm && row.factor === arm.factor && groupOf[row.prompt] === group,
        );
        points.push({
          layer,
          seed,
          group,
          arm: arm.arm,
          factor: arm.factor,
          share: mine.filter((row) => row.language === language).length / mine.length,
          repeated: mine.reduce((sum, row) => sum + row.repeated_3grams, 0) / mine.length,
          perplexity_ratio: arm.perplexity_ratio,
          kl: arm.kl,
        });
      }
    }
  }
}
lab.write('points.json', { given, prompts, points });

for (const group of Object.keys(groups)) {
  console.log(
    `\n### Prompts: ${group} (n = ${groups[group].length} prompts x ${numbers(given.seeds).length} seeds), share in ${language}, %\n`,
  );
  for (const arm of ['steered', 'random', 'foreign']) {
    console.log(`${arm}\n\n| layer | 0 | ${STRENGTHS.join(' | ')} |\n| --- |${' --- |'.repeat(STRENGTHS.length + 1)}`);
    for (const layer of numbers(given.layers)) {
      const at = (name, factor) =>
        points
          .filter((p) => p.layer === layer && p.group === group && p.arm === name && p.factor === factor)
          .map((p) => p.share);
      console.log(
        `| ${layer} | ${percent(at('unsteered', 0))} | ${STRENGTHS.map((factor) => percent(at(arm, factor))).join(' | ')} |`,
      );
    }
    console.log('');
  }
}
for (const [title, key] of [
  ['Perplexity ratio on neutral text', 'perplexity_ratio'],
  ['KL on neutral text, nats per token', 'kl'],
]) {
  console.log(`\n### ${title} (${other}, 2,048 tokens; mean over seeds)\n`);
  for (const arm of ['steered', 'random', 'foreign']) {
    console.log(`${arm}\n\n| layer | ${STRENGTHS.join(' | ')} |\n| --- |${' --- |'.repeat(STRENGTHS.length)}`);
    for (const layer of numbers(given.layers)) {
      const at = (factor) =>
        mean(points.filter((p) => p.layer === layer && p.arm === arm && p.factor === factor).map((p) => p[key]));
      console.log(`| ${layer} | ${STRENGTHS.map((factor) => at(factor).toFixed(2)).join(' | ')} |`);
    }
    console.log('');
  }
}
