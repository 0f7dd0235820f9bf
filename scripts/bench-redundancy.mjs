// How `qscope bench-redundancy` grows: synthetic benchmarks of several sizes through the whole command, one run after
// the other. Prints the processor time of every phase and the peak memory of the run's process, with the slope between
// sizes on logarithmic axes (1 is linear). Linux only: both are read from /proc, the peak as VmHWM.
//
//   node scripts/bench-redundancy.mjs --sae RUN [--sizes 4x2500,4x7500,4x25000] [--threads 2] [--seed 0]
//
// A size is BENCHMARKSxITEMS. Prompts are random words, 8 to 16 of them, from a part of the vocabulary that differs by
// benchmark. The run measures every layer that has an SAE under the default rules; `--set` changes that.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({
  options: {
    sae: { type: 'string', default: 'latest' },
    sizes: { type: 'string', default: '4x2500,4x7500,4x25000' },
    threads: { type: 'string', default: '2' },
    seed: { type: 'string', default: '0' },
    set: { type: 'string', multiple: true, default: [] },
  },
});
const POLL_MS = 50;
const WORDS =
  'after again air all animal answer apple back ball bank before began below between bird black blue boat body book both box boy bread brother build call came car care carry city clear close cold color come common cut dark day deep door down draw dry each early earth east eat egg end even every eye face fall family far farm fast father feet few field find fire fish five fly follow food foot form found four free friend full game garden gave girl give glass gold good great green ground group grow half hand hard head hear heat help here high hill hold home horse hot hour house hundred idea inch island just keep kind king know lake land large last late laugh lead learn leave left letter life light line list little live long look love low machine main make man many map mark mile mind minute money month moon morning most mother mountain move music name near need never new next night north note number ocean off often old once open order other over page paper part pass people picture place plain plan plane plant play point pound power press problem pull rain read ready real red rest right river road rock room round rule run sail same school sea second seed seven shape ship short show side simple six sleep slow small snow song soon sound south space spell stand star start state step still stop story street strong study sun table tail take talk teach tell ten thing think three time today told took town travel tree true turn under until use very voice wait walk warm watch water way week weight well west wheel white whole wind winter wish woman wonder wood word work world write year yellow young'.split(
    ' ',
  );

const folder = mkdtempSync(path.join(tmpdir(), 'qscope-redundancy-'));
try {
  const runs = [];
  for (const [index, size] of options.sizes.split(',').entries()) {
    const [benchmarks, items] = size.split('x').map(Number);
    process.stderr.write(`bench-redundancy: ${benchmarks} benchmarks of ${items} items\n`);
    runs.push({ benchmarks, items: benchmarks * items, ...(await measure(`size-${index}`, benchmarks, items)) });
  }
  print(runs);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function measure(name, benchmarks, items) {
  const experiment = path.join(folder, `${name}.yaml`);
  const sources = Array.from({ length: benchmarks }, (_, number) => {
    const source = path.join(folder, `${name}-${number}.jsonl`);
    writeFileSync(source, prompts(number, items));
    return `    - { name: b${number}, source: ${source}, prompt: "{text}" }`;
  });
  writeFileSync(
    experiment,
    `name: ${name}\nseed: ${options.seed}\nmodel: embedded\nbench_redundancy:\n  sae: ${sae()}\n  benchmarks:\n${sources.join('\n')}\n`,
  );
  const runsDir = path.join(folder, name);
  mkdirSync(runsDir);
  const sets = [`compute.threads=${options.threads}`, ...options.set].flatMap((change) => ['--set', change]);
  const command = [path.join(root, 'cli/bin/qscope.js'), 'bench-redundancy', experiment, ...sets];
  const process_ = spawn(process.execPath, [...command, '--runs-dir', runsDir, '--quiet'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = new Promise((resolve, reject) => process_.on('exit', resolve).on('error', reject));
  let code;
  ended.then((value) => {
    code = value;
  });
  let peak = 0;
  const samples = [];
  while (code === undefined) {
    const now = usage(runsDir);
    if (now) {
      peak = Math.max(peak, now.peak);
      samples.push({ time: Date.now(), seconds: now.seconds });
    }
    await sleep(POLL_MS);
  }
  if (code !== 0) throw new Error(`the run of ${name} ended with exit code ${code}`);
  const run = onlyRun(runsDir);
  const activations = path.join(run, 'artifacts', 'activations');
  const codes = readdirSync(activations)
    .map((benchmark) => JSON.parse(readFileSync(path.join(activations, benchmark, 'manifest.json'), 'utf8')).codes)
    .reduce((sum, each) => sum + each, 0);
  const result = { peak, codes, ...phases(run, samples) };
  rmSync(runsDir, { recursive: true });
  return result;
}

/** The SAEs from the folder the command was called in, where they are a path. */
function sae() {
  return existsSync(options.sae) ? path.resolve(options.sae) : options.sae;
}

/** Items of one benchmark: words of a third of the vocabulary, which third is random. */
function prompts(number, items) {
  const random = generator(Number(options.seed) * 100_003 + number);
  const own = WORDS.filter(() => random() < 1 / 3);
  const word = () => own[Math.floor(random() * own.length)];
  const prompt = () => Array.from({ length: 8 + Math.floor(random() * 9) }, word).join(' ');
  return Array.from({ length: items }, () => `${JSON.stringify({ text: prompt() })}\n`).join('');
}

function generator(seed) {
  // mulberry32
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function onlyRun(runsDir) {
  const name = readdirSync(runsDir).find((each) => existsSync(path.join(runsDir, each, 'run.json')));
  return name && path.join(runsDir, name);
}

/** What the run's process used so far: most memory ever held, in bytes, and processor time. Nothing while there is none. */
function usage(runsDir) {
  try {
    const { pid } = JSON.parse(readFileSync(path.join(onlyRun(runsDir), 'process.json'), 'utf8'));
    const kibibytes = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    // After the name in brackets, which may hold spaces: user and system time are the 12th and 13th field.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
    return kibibytes && { peak: 1024 * Number(kibibytes), seconds: (Number(fields[11]) + Number(fields[12])) / 100 };
  } catch {
    return undefined;
  }
}

/** Processor time by phase, each from its first event to the first of the next, and how long all of it took. */
function phases(run, samples) {
  const events = readFileSync(path.join(run, 'events.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const used = (time) => samples.findLast((sample) => sample.time <= time)?.seconds ?? 0;
  const found = new Map();
  let phase = 'start';
  let began = 0;
  for (const event of events) {
    const next = event === events.at(-1) ? 'end' : (named(event.progress?.phase) ?? phase);
    if (next === phase) continue;
    const now = used(Date.parse(event.time));
    found.set(phase, (found.get(phase) ?? 0) + now - began);
    [phase, began] = [next, now];
  }
  return { phases: found, elapsed: (Date.parse(events.at(-1).time) - Date.parse(events[0].time)) / 1000 };
}

/** Every benchmark is a phase of the model's pass; here they are one. */
function named(phase) {
  return phase && /^b\d+$/.test(phase) ? 'reading' : phase;
}

function print(runs) {
  const names = [...new Set(runs.flatMap((run) => [...run.phases.keys()]))];
  const processor = (run) => [...run.phases.values()].reduce((sum, each) => sum + each, 0);
  const rows = [
    ['benchmarks', ...runs.map((run) => String(run.benchmarks)), ''],
    ['items', ...runs.map((run) => run.items.toLocaleString('en')), ''],
    row(
      'codes, all layers',
      (run) => run.codes,
      (value) => value.toLocaleString('en'),
    ),
    ...names.map((name) => row(`${name}, s`, (run) => run.phases.get(name) ?? 0, seconds)),
    row('all phases, s', processor, seconds),
    row('by the clock, s', (run) => run.elapsed, seconds),
    row(
      'peak memory, MiB',
      (run) => run.peak,
      (value) => Math.round(value / 2 ** 20).toLocaleString('en'),
    ),
    ['more than the smallest size, bytes an item', ...runs.map((run) => above(run, runs[0])), ''],
  ];
  process.stdout.write(
    `${cpus().length} x ${cpus()[0].model.trim()}, ${options.threads} threads, seed ${options.seed}; seconds are of the processor\n\n`,
  );
  const [first, ...rest] = rows;
  const lines = [first, first.map(() => '---'), ...rest].map((cells) => `| ${cells.join(' | ')} |`);
  process.stdout.write(`${lines.join('\n')}\n`);

  function row(title, value, shown) {
    const values = runs.map(value);
    return [
      title,
      ...values.map(shown),
      slope(
        runs.map((run) => run.items),
        values,
      ),
    ];
  }
}

function seconds(value) {
  return value.toFixed(1);
}

/** Least squares on logarithmic axes; nothing where a time is too short to tell. */
function slope(items, values) {
  if (values.some((value) => value < 0.05)) return '';
  const [x, y] = [items.map(Math.log), values.map(Math.log)];
  const mean = (all) => all.reduce((sum, each) => sum + each, 0) / all.length;
  const [mx, my] = [mean(x), mean(y)];
  const covariance = x.reduce((sum, each, index) => sum + (each - mx) * (y[index] - my), 0);
  return `slope ${(covariance / x.reduce((sum, each) => sum + (each - mx) ** 2, 0)).toFixed(2)}`;
}

function above(run, smallest) {
  if (run === smallest) return '';
  return Math.round((run.peak - smallest.peak) / (run.items - smallest.items)).toLocaleString('en');
}
