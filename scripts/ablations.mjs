// What AuxK, k and the norm filter do: each switched or changed alone, over several random seeds, through the command
// line. Prints tables (mean, smallest and largest over the seeds) and keeps nothing unless --runs-dir is given.
//
//   node scripts/ablations.mjs [--seeds 0,1,2] [--only aux-k,k,filter] [--set train_sae.tokens=400000 ...]
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const config = (name) => path.join(root, 'configs', 'embedded', name);
const { values: options } = parseArgs({
  options: {
    seeds: { type: 'string', default: '0,1,2' },
    only: { type: 'string', default: 'aux-k,k,filter' },
    set: { type: 'string', multiple: true, default: [] },
    'runs-dir': { type: 'string' },
  },
});
const folder = mkdtempSync(path.join(tmpdir(), 'qscope-ablations-'));
const runsDir = path.resolve(options['runs-dir'] ?? path.join(folder, 'runs'));
const seeds = options.seeds.split(',');

const studies = {
  'aux-k': () => [
    ['AuxK', []],
    ['no AuxK', [config('no-aux-k.yaml')]],
  ],
  k: () => [16, 32, 64].map((k) => [`k ${k}`, [], [`train_sae.sae.k=${k}`]]),
  filter: () => {
    const model = path.join(folder, 'with-sink');
    const python = path.join(root, 'backend-py', '.venv', 'bin', 'python');
    process.stdout.write(call(python, [path.join(root, 'scripts', 'embedded-model', 'with_sink.py'), model]));
    return [
      ['filter', [], [`model=${model}`]],
      ['no filter', [config('no-filter.yaml')], [`model=${model}`]],
    ];
  },
};

try {
  for (const study of options.only.split(',')) {
    const rows = [];
    for (const [arm, overlays, changes = []] of studies[study]()) {
      const reports = seeds.map((seed) =>
        train(`${study}-${arm}`.replaceAll(' ', '-'), overlays, [...changes, `seed=${seed}`]),
      );
      rows.push(...summarise(arm, reports));
    }
    process.stdout.write(
      `\n${study}, seeds ${options.seeds}\n\n| arm | layer | FVU | dead | L0 | CE recovered |\n| --- | --- | --- | --- | --- | --- |\n`,
    );
    for (const row of rows) process.stdout.write(`| ${row.join(' | ')} |\n`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** Trains one arm, then measures it apart: `eval-sae` filters the held-out tokens alike, whatever the arm trained on. */
function train(name, overlays, changes) {
  process.stderr.write(`ablations: ${name} ${changes.at(-1)}\n`);
  const sets = [...changes, 'train_sae.evaluate.tokens=0', ...options.set].flatMap((change) => ['--set', change]);
  const before = new Set(runs());
  qscope(['train-sae', config('ablation.yaml'), ...overlays, ...sets, '--name', name.toLowerCase()]);
  const [trained] = runs().filter((run) => !before.has(run));
  const model = changes.filter((change) => change.startsWith('model=')).flatMap((change) => ['--set', change]);
  const sae = `eval_sae.sae=${path.join(runsDir, trained)}`;
  qscope(['eval-sae', config('eval-sae.yaml'), '--set', sae, '--set', 'eval_sae.tokens=16384', ...model]);
  const evaluated = runs().filter((run) => !before.has(run) && run !== trained)[0];
  return JSON.parse(readFileSync(path.join(runsDir, evaluated, 'artifacts', 'evaluation.json'), 'utf8')).layers;
}

function summarise(arm, reports) {
  return Object.keys(reports[0]).map((layer) => {
    const spread = (name, form) => {
      const values = reports.map((report) => report[layer][name]);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      return `${form(mean)} (${form(Math.min(...values))} to ${form(Math.max(...values))})`;
    };
    const number = (value) => value.toFixed(4);
    const share = (value) => `${(100 * value).toFixed(1)} %`;
    return [
      arm,
      layer,
      spread('fvu', number),
      spread('dead_share', share),
      spread('l0', (value) => value.toFixed(2)),
      spread('ce_recovered', number),
    ];
  });
}

function qscope(args) {
  return call(process.execPath, [
    path.join(root, 'cli', 'bin', 'qscope.js'),
    ...args,
    '--runs-dir',
    runsDir,
    '--quiet',
  ]);
}

function call(command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${[command, ...args].join(' ')}\n${stderr}`);
  return stdout;
}

function runs() {
  try {
    return readdirSync(runsDir).filter((name) => !name.startsWith('.'));
  } catch {
    return [];
  }
}
