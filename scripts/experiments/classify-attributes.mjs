// What `qscope classify` finds of five attributes of the embedded languages, and of toxicity where files are given:
// F1 by K (H7), the layer by top1-diff against the best (H8), a tenth of the texts (H9), from one language to another
// (H10), the baselines, and what is left at a fixed rate of false positives.
//
//   node scripts/experiments/classify-attributes.mjs --sae RUN [--per-class 120] [--only office-help,scrambled]
//       [--english davidson2017.csv] [--german germeval2018-train.txt --german-test germeval2018-test.txt]
//
// Writes the labelled files from the text that comes with qscope, runs each classification once, and prints the tables.
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Lab, mean, readJson, readTable, root, sd, shipped, table } from './lab.mjs';

const { values: given } = parseArgs({
  options: {
    sae: { type: 'string', default: 'latest' },
    only: { type: 'string', default: '' },
    'per-class': { type: 'string', default: '120' },
    threads: { type: 'string', default: '1' },
    english: { type: 'string' },
    german: { type: 'string' },
    'german-test': { type: 'string' },
    runs: { type: 'string', default: path.join(root, 'runs', 'classify-attributes') },
  },
});
mkdirSync(given.runs, { recursive: true });
const lab = new Lab(given.runs);
const perClass = Number(given['per-class']);
const LANGUAGES = ['en', 'de', 'fr', 'ru', 'ko', 'zh'];

// --- Labelled texts ------------------------------------------------------------------------------------------------

/** A number in [0, 1) that a text draws under a name: the same in every run. */
const chance = (text, name) => createHash('sha256').update(`${name}\0${text}`).digest().readUInt32BE(0) / 2 ** 32;
/** Numbers in [0, 1), one after the other, of a text. */
const dice = (text, name) => {
  let throws = 0;
  return () => chance(text, `${name}/${throws++}`);
};

const documents = shipped('train').filter((row) => LANGUAGES.includes(row.language) && row.source !== 'generated-chat');
/** Sentences of the beginning of a document. */
const sentencesOf = (row) => {
  const segments = new Intl.Segmenter(row.language, { granularity: 'sentence' }).segment(row.text.slice(0, 1200));
  // The last may be cut.
  return [...segments]
    .slice(0, -1)
    .map((one) => one.segment.trim())
    .filter(Boolean);
};
const isChinese = (language) => language === 'zh';
const glue = (language) => (isChinese(language) ? '' : ' ');
/** About as many tokens in every language. */
const lengthOf = (language) => (['zh', 'ko'].includes(language) ? 120 : 300);

/** The first sentences of a document, until they are long enough; null where there are fewer than two. */
function beginning(row) {
  const chosen = [];
  for (const sentence of sentencesOf(row)) {
    if (chosen.join(' ').length > lengthOf(row.language)) break;
    chosen.push(sentence);
  }
  return chosen.length < 2 ? null : chosen;
}

/** Every document once, half of them with the attribute; `make` gives the text of one. */
function labelled(name, make) {
  const rows = [];
  for (const row of documents) {
    const start = beginning(row);
    if (!start) continue;
    const positive = chance(row.text, `${name}/class`) < 0.5;
    const text = make(row, start, positive);
    if (text) rows.push({ text, label: positive ? 'with' : 'without', language: row.language });
  }
  const file = path.join(given.runs, `${name}.jsonl`);
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return { source: file, text: '{text}', label: 'label', positive: ['with'], negative: ['without'] };
}

/** Words in another order; the same words in their own order otherwise. */
function scrambled(row, start, positive) {
  const text = start.join(glue(row.language));
  const words = isChinese(row.language)
    ? [...new Intl.Segmenter('zh', { granularity: 'word' }).segment(text)].map((one) => one.segment)
    : text.split(/\s+/);
  const next = dice(row.text, 'scrambled');
  if (positive)
    for (let place = words.length - 1; place > 0; place--) {
      const other = Math.floor(next() * (place + 1));
      [words[place], words[other]] = [words[other], words[place]];
    }
  return words.join(glue(row.language));
}

/** Sentences of a language that may stand in another text, neither short nor long. */
const fillers = {};
function fillersOf(language) {
  const fits = (one) => one.length >= 0.15 * lengthOf(language) && one.length <= 0.5 * lengthOf(language);
  fillers[language] ??= documents
    .filter((row) => row.language === language)
    .flatMap((row) => sentencesOf(row).filter(fits));
  return fillers[language];
}

/** A sentence of another text in it: of another language, or of the same one. */
function foreign(row, start, positive) {
  const next = dice(row.text, 'foreign');
  const others = LANGUAGES.filter((one) => one !== row.language);
  const language = positive ? others[Math.floor(next() * others.length)] : row.language;
  const sentence = fillersOf(language)[Math.floor(next() * fillersOf(language).length)];
  const place = 1 + Math.floor(next() * (start.length - 1));
  return [...start.slice(0, place), sentence, ...start.slice(place)].join(' ');
}

const embedded = { source: 'embedded', where: 'source!=generated-chat' };
const sources = (prefix) =>
  [...new Set(documents.map((row) => row.source))].filter((source) => source.startsWith(prefix)).sort();
const others = (prefix) =>
  [...new Set(documents.map((row) => row.source))].filter((source) => !source.startsWith(prefix)).sort();
const bySource = (prefix) => ({
  ...embedded,
  label: 'source',
  positive: sources(prefix),
  negative: others(prefix),
  language: '{language}',
});

const ATTRIBUTES = {
  german: () => [{ ...embedded, label: 'language', positive: ['de'], negative: LANGUAGES.filter((l) => l !== 'de') }],
  'office-help': () => [bySource('libreoffice-help')],
  'manual-page': () => [bySource('manpages')],
  'foreign-sentence': () => [{ ...labelled('foreign-sentence', foreign), language: '{language}' }],
  scrambled: () => [{ ...labelled('scrambled', scrambled), language: '{language}' }],
};
if (given.english) {
  const tweets = { text: '{tweet}', label: 'class', positive: ['0', '1'], negative: ['2'], language: 'en' };
  ATTRIBUTES.toxic = () => [{ source: path.resolve(given.english), ...tweets }, ...germanTweets()];
}
function germanTweets() {
  const rows = { format: 'tsv', columns: ['text', 'coarse', 'fine'], label: 'coarse', language: 'de' };
  const labels = { positive: ['OFFENSE'], negative: ['OTHER'] };
  return given.german
    ? [
        { source: path.resolve(given.german), ...rows, ...labels, use: 'discovery' },
        { source: path.resolve(given['german-test']), ...rows, ...labels, use: 'evaluation' },
      ]
    : [];
}

// --- Runs ----------------------------------------------------------------------------------------------------------

const wanted = given.only ? given.only.split(',') : Object.keys(ATTRIBUTES);
const studies = wanted.map((name) => {
  const folder = lab.once(name, 'artifacts/classification.json', () =>
    lab.qscope(
      'classify',
      lab.write(`${name}.yaml`, {
        name,
        seed: 0,
        model: 'embedded',
        compute: { threads: Number(given.threads) },
        classify: {
          sae: given.sae === 'latest' ? 'latest' : path.resolve(given.sae),
          attribute: name,
          data: ATTRIBUTES[name](),
          // The pooled one has no language: as many in all as the others.
          per_class: name === 'german' ? 6 * perClass : name === 'toxic' ? 4 * perClass : perClass,
          balance: true,
          context: 96,
          draws: 10,
        },
      }),
    ),
  );
  const artifact = (file) => path.join(folder, 'artifacts', file);
  const { groups, data } = readJson(artifact('classification.json'));
  const [layers, curve, transfer] = ['layers.csv', 'curve.csv', 'transfer.csv'].map((file) =>
    readTable(artifact(file)),
  );
  return { name, groups, data, layers, curve, transfer };
});

// --- Tables --------------------------------------------------------------------------------------------------------

const two = (value) => (value === null || Number.isNaN(value) ? '' : value.toFixed(2));
const three = (value) => (value === null || Number.isNaN(value) ? '' : value.toFixed(3));
const ranged = (row, name, show = three) =>
  row[name] === null ? '' : `${show(row[name])} (${two(row[`${name}_low`])} to ${two(row[`${name}_high`])})`;
const spread = (list, show = three) =>
  list.length ? `${show(mean(list))} ± ${list.length > 1 ? show(sd(list)) : '-'}` : '';
const method = (group, name) => group.methods.find((one) => one.method === name);
const chosen = (group) => group.methods.find((one) => one.chosen);
const title = (text) => console.log(`### ${text}\n`);
const BASELINES = ['probe, SAE features', 'probe, residuals', 'diff-in-means', 'TF-IDF words'];
const COUNTS = [1, 2, 5, 10];
const every = studies.flatMap(({ name, groups }) => groups.map((group) => ({ name, group })));
const pooled = every.filter(({ group }) => group.group === 'all');
const languages = every.filter(({ group }) => group.group !== 'all');

title('Texts');
table(
  [
    'attribute',
    'discovery',
    'calibration',
    'evaluation',
    'languages by themselves',
    'repeated',
    'leaks',
    'other labels',
  ],
  studies.map(({ name, groups, data }) => [
    name,
    ...['discovery', 'calibration', 'evaluation'].map(
      (side) => `${data.sides[side].positive} + ${data.sides[side].negative}`,
    ),
    groups
      .slice(1)
      .map((one) => `${one.group} ${one.texts.evaluation.positive + one.texts.evaluation.negative}`)
      .join(', '),
    data.repeated,
    data.leaks,
    Object.values(data.other_labels).reduce((sum, count) => sum + count, 0),
  ]),
);

title('Rule and baselines: F1, AUC below');
table(
  ['attribute', 'n', 'saved rule', ...BASELINES, 'best F1', 'all positive'],
  [...pooled, ...languages.filter(({ name }) => name === 'toxic')].flatMap(({ name, group }) => {
    const rows = [chosen(group), ...BASELINES.map((one) => method(group, one))];
    return [
      [
        group.group === 'all' ? name : `${name}, ${group.group}`,
        rows[0].n,
        ...rows.map((row, place) => `${place ? '' : `${row.method.replace('OR-rule, ', '')}: `}${ranged(row, 'f1')}`),
        group.winner_by_f1,
        three(group.f1_of_all_positive),
      ],
      ['', '', ...rows.map((row) => ranged(row, 'auc')), group.winner_by_auc, ''],
    ];
  }),
);

title('H7: F1 by K');
table(
  ['attribute', 'n', 'layer', ...COUNTS.map((count) => `K = ${count}`), 'precision, recall: K = 1', 'K = 10'],
  [...pooled, ...languages.filter(({ name }) => name === 'toxic')].map(({ name, group }) => {
    const rows = COUNTS.map((count) => method(group, `OR-rule, K=${count}`));
    const both = (row) => `${two(row.precision)}, ${two(row.recall)}`;
    const shown = rows.map((row) => ranged(row, 'f1'));
    return [
      group.group === 'all' ? name : `${name}, ${group.group}`,
      rows[0].n,
      group.layer,
      ...shown,
      both(rows[0]),
      both(rows[3]),
    ];
  }),
);
table(
  ['attribute', 'languages', ...COUNTS.map((count) => `mean F1, K = ${count}`), 'best K is 1 or 2', 'F1 of 1 over 10'],
  studies
    .filter(({ groups }) => groups.length > 1)
    .map(({ name, groups }) => {
      const f1 = groups.slice(1).map((group) => COUNTS.map((count) => method(group, `OR-rule, K=${count}`).f1));
      return [
        name,
        f1.length,
        ...COUNTS.map((_, place) => spread(f1.map((row) => row[place]))),
        `${f1.filter((row) => Math.max(row[0], row[1]) >= Math.max(row[2], row[3])).length} of ${f1.length}`,
        `${f1.filter((row) => row[0] > row[3]).length} of ${f1.length}`,
      ];
    }),
);

title('H8: F1 of the layer of largest top1-diff over that of the best layer');
table(
  [
    'attribute',
    'groups',
    ...COUNTS.map((count) => `K = ${count}: mean ± sd, least`),
    'best layer, or next to it (K = 1)',
  ],
  studies.map(({ name, layers, groups }) => {
    const names = groups.map((group) => group.group);
    const of = (group) => layers.filter((row) => row.group === group);
    const best = (rows, key) => rows.reduce((a, b) => (Number(b[key]) > Number(a[key]) ? b : a));
    const ratios = COUNTS.map((count) =>
      names.map((group) => {
        const rows = of(group);
        const key = `f1_k${count}`;
        return Number(rows.find((row) => row.chosen === 'True')[key]) / Number(best(rows, key)[key]);
      }),
    );
    const apart = names.map((group) => {
      const rows = of(group);
      return Math.abs(Number(rows.find((row) => row.chosen === 'True').layer) - Number(best(rows, 'f1_k1').layer));
    });
    return [
      name,
      names.length,
      ...ratios.map((list) => `${spread(list)}, ${three(Math.min(...list))}`),
      `${apart.filter((one) => one === 0).length}, ${apart.filter((one) => one <= 1).length} of ${apart.length}`,
    ];
  }),
);
const bands = pooled.map(({ name }) => {
  const rows = studies.find((one) => one.name === name).layers.filter((row) => row.group === 'all');
  return [name, ...rows.map((row) => `${three(Number(row.f1_k1))} (${two(Number(row.top1_diff))})`)];
});
console.log('F1 at K = 1 by layer, top1-diff in brackets (all languages together):\n');
table(['attribute', ...[0, 1, 2, 3, 4, 5]], bands);

title('H9: a tenth of the discovery texts');
const curveRow = (name, curve, names) => {
  const of = (share, key) =>
    names.flatMap((group) => {
      const rows = curve.filter((row) => row.group === group && Number(row.share) === share);
      return rows.map((row) => Number(row[key]));
    });
  const ratio = (key) =>
    names.flatMap((group) => {
      const rows = (share) => curve.filter((row) => row.group === group && Number(row.share) === share);
      const whole = Number(rows(1)[0]?.[key]);
      return rows(0.1).map((row) => Number(row[key]) / whole);
    });
  return [
    name,
    names.length,
    [...new Set(of(0.1, 'texts'))].sort((a, b) => a - b).join(', '),
    of(0.1, 'rule_f1').length,
    ...[0.1, 0.25, 0.5, 1].map((share) => spread(of(share, 'rule_f1'))),
    spread(ratio('rule_f1')),
    spread(ratio('probe_f1')),
    spread(of(0.1, 'overlap'), two),
  ];
};
table(
  [
    'attribute',
    'groups',
    'texts of 10 %',
    'draws',
    ...[10, 25, 50, 100].map((share) => `F1 at ${share} %`),
    'kept at 10 %: rule',
    'kept: residual probe',
    'Jaccard of the ten best',
  ],
  studies.flatMap(({ name, groups, curve }) => {
    const own = groups.slice(1).map((group) => group.group);
    return [
      curveRow(`${name}, all`, curve, ['all']),
      ...(own.length ? [curveRow(`${name}, by language`, curve, own)] : []),
    ];
  }),
);

title('H10: from one language to another');
// How far apart two languages are: 1 Latin script and Germanic, 2 Latin script, 3 Indo-European in another script,
// 4 unrelated.
const SCRIPT = { en: 'latin', de: 'latin', fr: 'latin', ru: 'cyrillic', ko: 'hangul', zh: 'han' };
const FAMILY = { en: 'germanic', de: 'germanic', fr: 'romance', ru: 'slavic', ko: '', zh: '' };
const DISTANCES = ['itself', 'en, de', 'other Latin', 'with Russian', 'with Korean or Chinese'];
const distance = (one, other) => {
  if (one === other) return 0;
  if (!FAMILY[one] || !FAMILY[other]) return 4;
  if (SCRIPT[one] !== SCRIPT[other]) return 3;
  return FAMILY[one] === FAMILY[other] ? 1 : 2;
};
const ranks = (list) =>
  list.map((x) => list.filter((y) => y < x).length + (list.filter((y) => y === x).length + 1) / 2);
const correlation = (xs, ys) => {
  const [a, b] = [ranks(xs), ranks(ys)];
  const [ma, mb] = [mean(a), mean(b)];
  const sum = (f) => a.reduce((total, _, place) => total + f(a[place] - ma, b[place] - mb), 0);
  return sum((x, y) => x * y) / Math.sqrt(sum((x) => x * x) * sum((_, y) => y * y));
};
const permutations = (list) =>
  list.length < 2
    ? [list]
    : list.flatMap((one) => permutations(list.filter((x) => x !== one)).map((rest) => [one, ...rest]));
/** Spearman of distance and what is measured over ordered pairs, and how often languages renamed at random do as well. */
function ordering(names, value) {
  const pairs = names.flatMap((one) => names.filter((other) => other !== one).map((other) => [one, other]));
  const of = (renamed) =>
    correlation(
      pairs.map(([one, other]) => distance(renamed[one], renamed[other])),
      pairs.map(([one, other]) => value(one, other)),
    );
  const seen = of(Object.fromEntries(names.map((name) => [name, name])));
  if (Number.isNaN(seen)) return 'all alike';
  const drawn = permutations(names).map((list) =>
    of(Object.fromEntries(names.map((name, place) => [name, list[place]]))),
  );
  return `${two(seen)}, p = ${three(drawn.filter((one) => one <= seen + 1e-9).length / drawn.length)}`;
}
for (const [what, key] of [
  ['AUC', 'auc'],
  ['F1', 'f1'],
]) {
  table(
    [`${what}, mean over ordered pairs`, 'method', ...DISTANCES, 'Spearman with distance'],
    studies
      .filter(({ transfer, groups }) => transfer.length > 0 && groups.length > 3)
      .flatMap(({ name, transfer, groups }) =>
        ['rule', 'probe, residuals'].map((kind) => {
          const rows = transfer.filter((row) => row.method === kind);
          const value = (one, other) =>
            Number(rows.find((row) => row.found_in === one && row.measured_on === other)[key]);
          const at = (far) => rows.filter((row) => distance(row.found_in, row.measured_on) === far);
          return [
            name,
            kind,
            ...DISTANCES.map((_, far) => {
              const list = at(far).map((row) => Number(row[key]));
              return list.length ? `${spread(list, two)} (${list.length})` : '';
            }),
            ordering(
              groups.slice(1).map((group) => group.group),
              value,
            ),
          ];
        }),
      ),
  );
}
for (const { name, transfer } of studies.filter((one) => one.name === 'toxic' && one.transfer.length)) {
  console.log(`${name}: found in a language, measured on another\n`);
  table(
    ['method', 'found in', 'measured on', 'n', 'F1', 'AUC'],
    transfer.map((row) => {
      const numbers = Object.fromEntries(Object.entries(row).map(([key, value]) => [key, Number(value)]));
      return [row.method, row.found_in, row.measured_on, row.n, ranged(numbers, 'f1'), ranged(numbers, 'auc')];
    }),
  );
}

title('At a fixed rate of false positives');
table(
  ['attribute', 'n negative', 'to hold', 'method', 'rate on calibration', 'rate on evaluation', 'recall'],
  [...pooled, ...languages.filter(({ name }) => name === 'toxic')].flatMap(({ name, group }) =>
    [0.01, 0.05].flatMap((rate) =>
      [chosen(group), ...BASELINES.map((one) => method(group, one))].map((row, place) => [
        place || rate > 0.01 ? '' : group.group === 'all' ? name : `${name}, ${group.group}`,
        place || rate > 0.01 ? '' : group.texts.evaluation.negative,
        place ? '' : `${100 * rate} %`,
        place ? row.method : `rule (${row.method.replace('OR-rule, ', '')})`,
        three(row[`at_fpr_${rate}_calibrated`]),
        ranged(row, `at_fpr_${rate}_false_positives`),
        ranged(row, `at_fpr_${rate}_recall`),
      ]),
    ),
  ),
);
