// Is a feature found by contrast a lever? Finds features of one language at every layer, adds and suppresses them on
// prompts in two languages and on prompts that switch from one to the other, beside random and foreign directions.
//
//   node scripts/experiments/language-steering.mjs --sae RUN [--language de] [--layers 0,1,...] [--seeds 0,1,2] [--top 4]
//
// Prints a table per group of prompts: share of texts in the language, by strength; n and spread over the seeds.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
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
const numbers = (text) => text.split(',').map(Number);
const STRENGTHS = [-1, -0.5, -0.25, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1, 1.5];
const LANGUAGES = ['en', 'zh', 'ru', 'fr', 'de', 'ko'];

const qscope = (...args) =>
  execFileSync('node', [path.join(root, 'cli/bin/qscope.js'), ...args, '--runs-dir', given.runs, '--quiet'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
const newest = (prefix) =>
  path.join(
    given.runs,
    readdirSync(given.runs)
      .filter((name) => name.startsWith(prefix))
      .sort((a, b) => created(b) - created(a))[0],
  );
const created = (name) => Date.parse(JSON.parse(readFileSync(path.join(given.runs, name, 'run.json'), 'utf8')).created);
const yaml = (name, value) => {
  const file = path.join(given.runs, name);
  writeFileSync(file, JSON.stringify(value));
  return file;
};

/** First words of held-out documents of a language, about `length` characters. */
function beginnings(wanted, length) {
  const file = path.join(root, 'backend-py/qscope/embedded/text/heldout.jsonl.gz');
  const rows = gunzipSync(readFileSync(file))
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  return rows
    .filter((row) => row.language === wanted && row.source !== 'generated-chat' && row.text.length > 3 * length)
    .slice(0, Number(given.prompts))
    .map((row) => row.text.slice(0, row.text.indexOf(' ', length)).replaceAll('\n', ' ').trim());
}

mkdirSync(given.runs, { recursive: true });
const long = { [language]: beginnings(language, 60), [other]: beginnings(other, 60) };
const groups = {
  [other]: long[other],
  [language]: long[language],
  // A text that has begun to switch: what the paper's first case study suppresses.
  [`${other}, then ${language}`]: long[other].map((text, index) => `${text}. ${long[language][index].slice(0, 30)}`),
};
const prompts = Object.values(groups).flat();
const groupOf = Object.entries(groups).flatMap(([name, texts]) => texts.map(() => name));

qscope(
  'features',
  'contrast',
  yaml('contrast.yaml', {
    name: 'contrast',
    model: 'embedded',
    contrast_features: {
      sae: path.resolve(given.sae),
      positives: { source: 'embedded-heldout', where: `language=${language}`, context: 128 },
      negatives: { source: 'embedded-heldout', where: `language!=${language}`, context: 128 },
    },
  }),
);
const features = path.join(newest('contrast-'), 'artifacts/features.json');
const found = JSON.parse(readFileSync(features, 'utf8')).entries;

const points = [];
for (const layer of numbers(given.layers)) {
  const best = found.filter((entry) => entry.layer === layer).slice(0, Number(given.top));
  console.error(
    `layer ${layer}: features ${best.map((e) => `${e.feature} (AUC ${e.held_out_auc.toFixed(3)})`).join(', ')}`,
  );
  for (const seed of numbers(given.seeds)) {
    qscope(
      'steer',
      yaml('steer.yaml', {
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
    const folder = newest(`steer-${layer}-${seed}-`);
    const rows = readFileSync(path.join(folder, 'artifacts/generations.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const { arms } = JSON.parse(readFileSync(path.join(folder, 'artifacts/steering.json'), 'utf8'));
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
writeFileSync(path.join(given.runs, 'points.json'), JSON.stringify({ given, prompts, points }, null, 1));

const mean = (list) => list.reduce((sum, x) => sum + x, 0) / list.length;
const sd = (list) =>
  list.length < 2 ? Number.NaN : Math.sqrt(list.reduce((sum, x) => sum + (x - mean(list)) ** 2, 0) / (list.length - 1));
const percent = (list) => `${(100 * mean(list)).toFixed(0)} ± ${(100 * sd(list)).toFixed(0)}`;
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
