// Does aiming at missing features buy coverage? Runs `qscope synthesize` on several seeds and with several writers: texts
// written for features, texts of the same writer without a target, and natural texts, at the same number of texts.
//
//   node scripts/experiments/feature-synthesis.mjs --sae RUN [--seeds 0,1,2] [--writers steered,plain,templates]
//     [--at 40] [--set synthesize.seed_data='{source: ...}' ...]
//
// Prints a table with one row a writer: values by seed, and their mean and standard deviation over the seeds.
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Lab, mean, numbers, readJson, readLines, root, sd, table } from './lab.mjs';

const WRITERS = {
  steered: [],
  plain: ['synthesize.local.steer=0'],
  templates: ['synthesize.writer=templates'],
};
const { values: given } = parseArgs({
  options: {
    sae: { type: 'string', default: 'latest' },
    config: { type: 'string', default: path.join(root, 'configs/embedded/synthesize.yaml') },
    seeds: { type: 'string', default: '0,1,2' },
    writers: { type: 'string', default: Object.keys(WRITERS).join(',') },
    // Coverage at a budget before the curves flatten.
    at: { type: 'string', default: '40' },
    // Rewrites are other wordings of the same: without them a budget is spent on features alone.
    set: { type: 'string', multiple: true, default: ['synthesize.styles=[]'] },
    runs: { type: 'string', default: path.join(root, 'runs', 'feature-synthesis') },
  },
});
mkdirSync(given.runs, { recursive: true });
const lab = new Lab(given.runs);
const sae = given.sae === 'latest' ? 'latest' : path.resolve(given.sae);

/** One run's numbers. */
function measured(writer, seed) {
  const name = `synthesis-${writer}-${seed}`;
  const set = ['compute.threads=1', ...given.set, ...WRITERS[writer], `synthesize.sae=${sae}`, `seed=${seed}`];
  const folder = lab.once(name, 'artifacts/synthesis.json', () =>
    lab.qscope('synthesize', given.config, ...[...set, `name=${name}`].flatMap((one) => ['--set', one])),
  );
  const found = readJson(path.join(folder, 'artifacts/synthesis.json'));
  const verdicts = readLines(path.join(folder, 'artifacts/ledger.jsonl'));
  const [aimed, untargeted] = [false, true].map((is) => verdicts.filter(({ key }) => key.startsWith('random#') === is));
  return {
    ...found,
    row: nearest(path.join(folder, 'artifacts/coverage.csv'), Number(given.at)),
    silent: aimed.filter(({ value }) => value.reason === 'feature silent').length,
    untargetedTries: untargeted.length,
    atTries: coveredBy(folder, aimed.slice(0, untargeted.length)),
  };
}

/** Coverage of the seed data with what was kept of some tries: a kept text costs several, an untargeted one hardly more than one. */
function coveredBy(folder, tries) {
  const fired = new Set(tries.filter(({ value }) => value.reason === '').flatMap(({ value }) => value.fired));
  const [head, ...targets] = csv(path.join(folder, 'artifacts/targets.csv'));
  const seeds = head.indexOf('seed_texts');
  const covered = targets.filter((row) => Number(row[seeds]) > 0 || fired.has(keyOf(row[0])));
  return covered.length / targets.length;
}

/** As the ledger numbers features of all layers. */
function keyOf(target) {
  const [layer, feature] = target.split('/').map(Number);
  return layer * 2 ** 24 + feature;
}

/** Rows of a table whose cells hold no comma. */
const csv = (file) =>
  readFileSync(file, 'utf8')
    .trim()
    .split(/\r?\n/)
    .map((line) => line.split(','));

/** The row of a coverage table with most texts, up to so many. */
function nearest(file, texts) {
  const [head, ...rows] = csv(file);
  const fits = rows.filter((row) => Number(row[0]) <= texts).at(-1);
  return Object.fromEntries(head.map((name, index) => [name, Number(fits[index])]));
}

const share = (list) => {
  const known = list.filter((x) => Number.isFinite(x));
  if (known.length === 0) return '';
  const each = known.map((x) => (100 * x).toFixed(1)).join(' / ');
  return known.length > 1 ? `${each} (${(100 * mean(known)).toFixed(1)} ± ${(100 * sd(known)).toFixed(1)})` : each;
};
const counts = (list) => list.map((x) => x ?? '').join(' / ');

const rows = given.writers.split(',').map((writer) => {
  const runs = numbers(given.seeds).map((seed) => measured(writer, seed));
  const cover = runs.map(({ coverage }) => coverage);
  const needed = cover.map(({ natural }) => natural?.texts_to_reach_targeted ?? `> ${natural?.pool ?? ''}`);
  return {
    writer,
    main: [
      counts(runs.map((run) => run.rows)),
      share(cover.map((one) => one.seed)),
      share(cover.map((one) => one.targeted)),
      share(cover.map((one) => one.unverified)),
      share(cover.map((one) => one.random?.coverage)),
      share(cover.map((one) => one.natural?.coverage)),
      share(cover.map((one) => one.natural?.sd)),
      share(cover.map((one) => one.natural?.at_equal_tokens.coverage)),
    ],
    cost: [
      runs.map((run) => `${run.filled} of ${run.missing}`).join(' / '),
      counts(runs.map((run) => run.tries)),
      counts(runs.map((run) => run.untargetedTries)),
      share(runs.map((run) => run.atTries)),
      share(runs.map((run) => run.rows / run.tries)),
      counts(runs.map((run) => run.silent)),
      counts(needed),
    ],
    early: [
      counts(runs.map((run) => run.row.texts)),
      share(runs.map((run) => run.row.targeted)),
      share(runs.map((run) => run.row.random)),
      share(runs.map((run) => run.row.natural)),
    ],
  };
});
console.log(`Coverage in %, seeds ${given.seeds}: each seed, then mean ± standard deviation over the seeds.\n`);
const of = (name) => rows.map((row) => [row.writer, ...row[name]]);
table(
  ['writer', 'texts', 'seed data', 'targeted', 'first tries', 'untargeted', 'natural', 'its sd', 'as many tokens'],
  of('main'),
);
table(
  ['writer', 'filled', 'tried', 'untargeted tried', 'targeted at as many tries', 'kept, %', 'silent', 'natural needed'],
  of('cost'),
);
console.log(`The same at ${given.at} texts:\n`);
table(['writer', 'texts', 'targeted', 'untargeted', 'natural'], of('early'));
