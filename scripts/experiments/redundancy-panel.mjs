// Does R-hat, which asks no model, order benchmarks as R does, which asks many? Scores the checkpoints of one training run
// on benchmarks of known repetition, made from the held-out text that ships, and sets the footprints of the embedded model
// beside them.
//
//   python scripts/embedded-model/shipped_cache.py CACHE
//   python scripts/embedded-model/train.py CACHE --preset cpu --tokens 2000000 --panel 24 --panel-spacing log
//   qscope train-sae configs/embedded/train-sae.yaml
//   node scripts/experiments/redundancy-panel.mjs --panel CACHE/run/panel [--sae latest] [--items 96] [--measure tokens] [--last 24]
//
// Prints tables in Markdown. Started again with the same --runs, it goes on with what is not finished.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { heldOut, Lab, mean, readJson, root, sd, table } from './lab.mjs';

const { values: given } = parseArgs({
  options: {
    panel: { type: 'string' },
    sae: { type: 'string', default: 'latest' },
    items: { type: 'string', default: '96' },
    measure: { type: 'string', default: 'tokens' },
    last: { type: 'string', default: '1000' },
    runs: { type: 'string', default: path.join(root, 'runs', 'redundancy-panel') },
  },
});
if (!given.panel) throw new Error('name the folder of checkpoints: --panel CACHE/run/panel');
const N = Number(given.items);
if (!(N >= 48) || N % 8) throw new Error('--items takes a multiple of 8, 48 at least');
mkdirSync(given.runs, { recursive: true });
const lab = new Lab(given.runs);

// -- items: the beginning of a line of text, and how it goes on ------------------------------------------------------

const LANGUAGES = ['en', 'de', 'fr', 'ru', 'zh', 'ko'];
// Words of prompt and answer; characters in Chinese, which parts no words.
const SIZE = { ko: [8, 3], zh: [28, 6] };
const rows = heldOut();

function pieces(line, language) {
  const [before, after] = SIZE[language] ?? [12, 4];
  const parts = language === 'zh' ? [...line] : line.split(/\s+/);
  const glue = language === 'zh' ? '' : ' ';
  if (parts.length < before + after) return undefined;
  // Every prompt ends inside a sentence, so that none ends in a mark.
  const prompt = parts.slice(0, before);
  if (/[.,:;!?。，：；！？)）"»”]$/.test(prompt.at(-1))) return undefined;
  return {
    prompt: prompt.join(glue),
    answer: glue + parts.slice(before, before + after).join(glue),
    words: prompt,
    glue,
  };
}

/** Items of documents with an even or an odd place, one of each document in turn, no prompt twice. */
function pool(language, odd) {
  const documents = rows
    .filter((row) => row.language === language && !row.source.startsWith('generated'))
    .filter((_, place) => (place % 4 === 3) === odd)
    .map((row) => row.text.split('\n').flatMap((line) => pieces(line, language) ?? []));
  const found = new Map();
  for (let turn = 0; documents.some((items) => turn < items.length); turn += 1)
    for (const items of documents) if (turn < items.length) found.set(items[turn].prompt, items[turn]);
  return [...found.values()].map(withWrong);
}

/** With the continuation of the next item that goes on otherwise, as the wrong choice. */
function withWrong(item, place, all) {
  const others = [...all.slice(place + 1), ...all.slice(0, place)];
  return { ...item, wrong: others.find((other) => other.answer.trim() !== item.answer.trim()).answer };
}

function take(list, count, what) {
  if (list.length < count) throw new Error(`${what}: ${list.length} items, ${count} are wanted: lower --items`);
  return list.slice(0, count);
}

const copies = (items, times) => Array.from({ length: times }, () => items).flat();
const without = (item, words) => ({ ...item, prompt: item.words.slice(words).join(item.glue) });

const suite = {};
for (const language of LANGUAGES) {
  const items = take(pool(language, false), N, language);
  suite[language] = items;
  suite[`${language}-x4`] = copies(items.slice(0, N / 4), 4);
  if (!['en', 'de'].includes(language)) continue;
  suite[`${language}-x2`] = copies(items.slice(0, N / 2), 2);
  suite[`${language}-x8`] = copies(items.slice(0, N / 8), 8);
  // Copies that lack up to three words at the beginning.
  suite[`${language}-near`] = [0, 1, 2, 3].flatMap((words) =>
    items.slice(0, N / 4).map((item) => without(item, words)),
  );
  suite[`${language}-half`] = items.slice(0, N / 2);
  suite[`${language}-other`] = take(pool(language, true), N / 4, `${language}-other`);
}
suite.mixed = LANGUAGES.flatMap((language) => take(pool(language, true).slice(N / 8), N / 6, 'mixed'));
const sums = [...new Set(rows.filter((row) => row.language === 'arithmetic').flatMap((row) => row.text.split('\n')))]
  .map((line) => line.match(/^(\d+ [-+×] \d+ =)( \d+)$/))
  .filter(Boolean);
suite.sums = take(sums, N, 'sums')
  .map(([, prompt, answer]) => ({ prompt, answer }))
  .map(withWrong);

const data = path.join(given.runs, 'data');
mkdirSync(data, { recursive: true });
const benchmark = (name) => {
  const file = path.join(data, `${name}.jsonl`);
  const lines = suite[name].map(({ prompt, answer, wrong }) => JSON.stringify({ prompt, answer, wrong }));
  writeFileSync(file, `${lines.join('\n')}\n`);
  const choices = given.measure === 'choice' ? { choices: ['{answer}', '{wrong}'] } : {};
  return {
    name,
    source: path.resolve(file),
    prompt: '{prompt}',
    score: { measure: given.measure, answer: '{answer}', ...choices },
  };
};

// -- runs -------------------------------------------------------------------------------------------------------------

const models = readdirSync(given.panel)
  .sort()
  .slice(0, Number(given.last) + 1)
  .map((name) => ({ model: path.resolve(given.panel, name), name: `checkpoint-${name}` }));
const experiment = (name, names, panel) => ({
  name,
  seed: 0,
  model: 'embedded',
  compute: { threads: 1 },
  bench_redundancy: {
    sae: given.sae === 'latest' ? given.sae : path.resolve(given.sae),
    context: 128,
    benchmarks: names.map(benchmark),
    panel: { tide: 'mixed', draws: 200, ...panel },
  },
});
const measured = (name, names, panel) => {
  const folder = lab.once(name, 'artifacts/panel.json', () =>
    lab.qscope('bench-redundancy', lab.write(`${name}.yaml`, experiment(name, names, panel))),
  );
  return {
    folder,
    panel: readJson(path.join(folder, 'artifacts/panel.json')),
    suite: readJson(path.join(folder, 'artifacts/redundancy.json')),
  };
};
const names = Object.keys(suite);
const all = measured('all', names, { models });
// The scores again, for benchmarks of one size alone.
const whole = names.filter((name) => suite[name].length === N);
const equal = measured('equal', whole, { source: path.resolve(all.folder, 'artifacts/scores') });

// -- tables -----------------------------------------------------------------------------------------------------------

const number = (value, digits = 3) => (value === null || Number.isNaN(value) ? 'unknown' : value.toFixed(digits));
const interval = ({ value, low, high, n }) =>
  `${number(value)} (${low === null ? 'no interval' : `${number(low)} to ${number(high)}`}; n = ${n})`;
const row = (name) => all.suite.benchmarks.find((one) => one.benchmark === name);

console.log(
  `${models.length} checkpoints, ${names.length} benchmarks, layer ${all.suite.layer}, rule ${all.suite.rule}.\n`,
);
table(
  ['benchmark', 'items', 'features', 'mean score, first to last', 'R ± standard error', 'R-hat'],
  names.map((name) => [
    name,
    row(name).items,
    row(name).features,
    `${number(all.panel.accuracy[name][0])} to ${number(all.panel.accuracy[name].at(-1))}`,
    `${number(all.panel.r[name][0])} ± ${number(all.panel.r[name][1])}`,
    number(row(name).r_hat),
  ]),
);
table(
  ['Spearman', 'all', 'one size'],
  [
    ['R and R-hat', interval(all.panel.r_spearman), interval(equal.panel.r_spearman)],
    [
      'the same, both of equal random subsets',
      interval(all.panel.r_spearman_matched),
      interval(equal.panel.r_spearman_matched),
    ],
    ['R and the number of items', interval(all.panel.r_spearman_items), 'no spread'],
  ],
);
const pairs = LANGUAGES.map((language) => [language, `${language}-x4`]);
table(
  ['', 'R', 'R of x4', 'R-hat', 'R-hat of x4'],
  pairs.map(([one, four]) => [
    one,
    ...[one, four].map((name) => number(all.panel.r[name][0])),
    ...[one, four].map((name) => number(row(name).r_hat)),
  ]),
);
/** Rows of a .csv without quoted cells. */
function readTable(file) {
  const [head, ...lines] = readFileSync(file, 'utf8')
    .trim()
    .split(/\r?\n/)
    .map((line) => line.split(','));
  return lines.map((cells) => Object.fromEntries(head.map((name, place) => [name, cells[place]])));
}

const overlaps = new Map(
  readTable(path.join(all.folder, 'artifacts/overlap.csv')).map((one) => [`${one.benchmark} ${one.with}`, one]),
);
const nested = [
  ...['en', 'de'].flatMap((language) => [
    [`${language}-half`, language, 'contained'],
    [`${language}-other`, language, 'other documents'],
  ]),
  ...pairs.map(([one, four]) => [four, one, 'contained']),
];
table(
  ['small', 'large', '', 'small in large', 'by chance', 'large in small', 'by chance'],
  nested.map(([small, large, how]) => {
    const [one, other] = [overlaps.get(`${small} ${large}`), overlaps.get(`${large} ${small}`)];
    const values = [one.overlap, one.overlap_by_chance, other.overlap, other.overlap_by_chance];
    return [small, large, how, ...values.map((value) => number(Number(value), 2))];
  }),
);
table(
  ['overlap_min and correlation of scores', 'Pearson', 'Spearman'],
  [
    ['direct', ...all.panel.overlap_direct.map(interval)],
    [`partial (${all.panel.tide} held fixed)`, ...(all.panel.overlap_partial ?? []).map(interval)],
    ['partial less direct', ...(all.panel.overlap_gain ?? []).map(interval)],
  ],
);
table(
  ['of the items', 'chosen: tau-b', 'random: tau-b', 'chosen better in', 'above one standard deviation', 'below one'],
  [0.05, 0.1].map((share) => {
    const found = all.panel.subsets.filter((one) => one.share === share && one.chosen !== null);
    const gap = found.map((one) => (one.chosen - one.random_mean) / one.random_sd);
    const spread = (list) => `${number(mean(list))} ± ${number(sd(list))}`;
    return [
      `${100 * share} %`,
      spread(found.map((one) => one.chosen)),
      spread(found.map((one) => one.random_mean)),
      `${gap.filter((value) => value > 0).length} of ${found.length}`,
      gap.filter((value) => value > 1).length,
      gap.filter((value) => value < -1).length,
    ];
  }),
);
