// Does the memory of `qscope classify apply` grow with the number of texts? Streams short texts through a classifier and
// reads the peak of the job's resident memory from /proc (Linux).
//
//   node scripts/experiments/apply-memory.mjs --classifier RUN [--texts 1000,10000,100000]

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { heldOut, Lab, numbers, readJson, root, table } from './lab.mjs';

const { values: given } = parseArgs({
  options: {
    classifier: { type: 'string', default: 'latest' },
    texts: { type: 'string', default: '1000,10000,100000' },
    runs: { type: 'string', default: path.join(root, 'runs', 'apply-memory') },
  },
});
mkdirSync(given.runs, { recursive: true });
const lab = new Lab(given.runs);
// All different: the beginnings of held-out documents, each with its number.
const beginnings = heldOut().map((row) => row.text.slice(0, 30).replaceAll('\n', ' '));

async function write(count) {
  const file = path.join(given.runs, `${count}.jsonl`);
  const stream = createWriteStream(file);
  for (let number = 0; number < count; number++) {
    const line = JSON.stringify({ id: number, text: `${number} ${beginnings[number % beginnings.length]}` });
    if (!stream.write(`${line}\n`)) await once(stream, 'drain');
  }
  stream.end();
  await once(stream, 'finish');
  return file;
}

/** Peak resident memory of a job in MiB, as long as it lives; 0 before it does. */
function peakOf(folder) {
  try {
    const { pid } = readJson(path.join(folder, 'process.json'));
    return Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmHWM:\s+(\d+) kB/)?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

const rows = [];
for (const count of numbers(given.texts)) {
  const name = `apply-${count}`;
  const file = lab.write(`${name}.yaml`, {
    name,
    model: 'embedded',
    compute: { threads: 1 },
    apply_classifier: { classifier: path.resolve(given.classifier), source: await write(count), keep: ['id'] },
  });
  const known = new Set(readdirSync(given.runs));
  const options = [
    path.join(root, 'cli/bin/qscope.js'),
    'classify',
    'apply',
    file,
    '--runs-dir',
    given.runs,
    '--quiet',
  ];
  const run = spawn('node', options, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  let ended = false;
  run.on('exit', () => {
    ended = true;
  });
  let peak = 0;
  let folder = '';
  while (!ended) {
    folder ||= readdirSync(given.runs).find((one) => one.startsWith(`${name}-`) && !known.has(one)) ?? '';
    if (folder) peak = Math.max(peak, peakOf(path.join(given.runs, folder)));
    await sleep(100);
  }
  const summary = path.join(given.runs, folder, 'artifacts/summary.json');
  if (!existsSync(summary)) throw new Error(`${name} failed`);
  rows.push([readJson(summary).texts.toLocaleString('en'), `${peak.toFixed(0)} MiB`]);
}
table(['texts', 'peak resident memory of the job'], rows);
