// Kills a run, or the worker that started it, with SIGKILL at random moments, resumes it each time, and compares the
// final weights bit for bit with those of a run that was left alone.
//
//   node scripts/faults/kill-resume.mjs [--kills 20] [--seed 1] [--config configs/embedded/kill-resume.yaml]
//   node scripts/faults/kill-resume.mjs --verb sft --config configs/embedded/kill-resume-sft.yaml --moments training \
//     --set sft.sae_loss.sae=RUN --set sft.sae_loss.features=RUN [--only run] [--longest 8]
//
// With `--moments training` the clock of a kill starts when this attempt has begun to train, not when its process has
// begun: a verb that takes long to start would be killed there most of the time.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const { values: options } = parseArgs({
  options: {
    kills: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    config: { type: 'string', default: path.join(root, 'configs/embedded/kill-resume.yaml') },
    verb: { type: 'string', default: 'train-sae' },
    set: { type: 'string', multiple: true, default: [] },
    moments: { type: 'string', default: 'anywhere' },
    longest: { type: 'string', default: '8' },
    only: { type: 'string', default: '' },
    keep: { type: 'boolean', default: false },
  },
});
const runsDir = mkdtempSync(path.join(tmpdir(), 'qscope-kills-'));
const random = generator(Number(options.seed));
const rows = [];

try {
  process.stdout.write(`runs in ${runsDir}\n`);
  const undisturbed = start();
  await waitForEnd(undisturbed);
  const disturbed = start();
  for (let kill = 1; kill <= Number(options.kills); ) {
    const pid = await waitForJob(disturbed);
    if (pid === undefined) break;
    if (options.moments === 'training') await waitForStep(disturbed);
    const shortest = options.moments === 'training' ? 0 : 500;
    const wait = shortest + random() * (1000 * Number(options.longest) - shortest);
    await sleep(wait);
    if (lastState(disturbed) === 'RUN_STATE_SUCCEEDED') break;
    const target = random() < 0.25 && options.only !== 'run' ? 'worker' : 'run';
    const before = checkpoints(disturbed);
    if (target === 'worker') {
      if (!killWorker()) continue;
      await sleep(300);
      rows.push({ kill, target, after: wait, steps: before, outcome: alive(pid) ? 'run goes on' : 'RUN DIED TOO' });
    } else {
      killGroup(pid);
      qscope(['worker', 'start']);
      const { code, text } = qscope(['runs', 'resume', path.basename(disturbed), '--detach']);
      rows.push({
        kill,
        target,
        after: wait,
        steps: before,
        outcome: code === 0 ? 'resumed' : `resume failed: ${text}`,
      });
      if (code !== 0) throw new Error(text);
    }
    const row = rows.at(-1);
    process.stdout.write(
      `${String(row.kill).padStart(3)}  ${row.target.padEnd(6)}  after ${(row.after / 1000).toFixed(1)} s  newest checkpoint ${row.steps}  ${row.outcome}\n`,
    );
    kill += 1;
  }
  await waitForEnd(disturbed);
  const a = weights(undisturbed);
  const b = weights(disturbed);
  const equal = a.size > 0 && a.size === b.size && [...a].every(([name, hash]) => b.get(name) === hash);
  const bad = rows.filter((row) => !['resumed', 'run goes on'].includes(row.outcome)).length;
  process.stdout.write(
    `\n${rows.length} kills (${rows.filter((row) => row.target === 'run').length} of the run, ${rows.filter((row) => row.target === 'worker').length} of the worker), ` +
      `${bad} bad outcomes; ${a.size} weight files ${equal ? 'equal bit for bit' : 'DIFFER'}\n`,
  );
  process.exitCode = equal && bad === 0 && rows.length === Number(options.kills) ? 0 : 1;
} finally {
  qscope(['worker', 'stop']);
  if (!options.keep) rmSync(runsDir, { recursive: true, force: true });
}

function start() {
  const known = new Set(existsSync(runsDir) ? readdirSync(runsDir) : []);
  // A shared worker starts the run, so that a later kill of the worker hits the one the job came from.
  qscope(['worker', 'start']);
  const { code, text } = qscope([
    options.verb,
    options.config,
    ...options.set.flatMap((one) => ['--set', one]),
    '--detach',
  ]);
  if (code !== 0) throw new Error(`the run did not start: ${text}`);
  const name = readdirSync(runsDir).find((entry) => !known.has(entry) && !entry.startsWith('.'));
  return path.join(runsDir, name);
}

function qscope(args) {
  const result = spawnSync(process.execPath, [path.join(root, 'cli/bin/qscope.js'), ...args], {
    env: { ...process.env, QSCOPE_RUNS: runsDir },
    encoding: 'utf8',
  });
  return { code: result.status, text: result.stdout + result.stderr };
}

function killWorker() {
  const { text } = qscope(['worker', 'status', '--json']);
  const pid = Number(text.match(/"pid":\s*(\d+)/)?.[1]);
  // The worker may be gone already, when two of its kills follow each other without a resume between them.
  if (!pid) return false;
  process.kill(pid, 'SIGKILL');
  return true;
}

function killGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

async function waitForJob(folder) {
  for (let i = 0; i < 600; i += 1) {
    const pid = jobPid(folder);
    if (pid !== undefined && alive(pid)) return pid;
    if (lastState(folder) === 'RUN_STATE_SUCCEEDED') return undefined;
    await sleep(100);
  }
  throw new Error(`no process for ${folder}`);
}

/** Waits until the newest attempt says that it trains, or the run is over. */
async function waitForStep(folder) {
  for (let i = 0; i < 6_000; i += 1) {
    const lines = journal(folder);
    const started = lines.findLastIndex((text) => text.includes('RUN_STATE_RUNNING'));
    if (lines.slice(started + 1).some((text) => text.includes('"phase": "training"'))) return;
    if (['RUN_STATE_SUCCEEDED', 'RUN_STATE_FAILED'].includes(lastState(folder))) return;
    await sleep(50);
  }
  throw new Error(`no step of ${folder}`);
}

async function waitForEnd(folder) {
  for (let i = 0; i < 12_000; i += 1) {
    const state = lastState(folder);
    if (state === 'RUN_STATE_SUCCEEDED') return;
    if (state === 'RUN_STATE_FAILED')
      throw new Error(`run failed: ${qscope(['runs', 'show', path.basename(folder)]).text}`);
    await sleep(100);
  }
  throw new Error(`${folder} does not end`);
}

function jobPid(folder) {
  const file = path.join(folder, 'process.json');
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).pid : undefined;
}

/** State of the newest whole journal line that has one. */
function lastState(folder) {
  const line = journal(folder).findLast((text) => text.includes('"state_changed"'));
  return line && JSON.parse(line).state_changed.state;
}

/** The whole lines of the journal. */
function journal(folder) {
  const file = path.join(folder, 'events.jsonl');
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : [];
}

function checkpoints(folder) {
  const store = path.join(folder, 'checkpoints');
  return (
    (existsSync(store)
      ? readdirSync(store)
          .filter((name) => /^step-\d+$/.test(name))
          .sort()
          .at(-1)
      : undefined) ?? 'none'
  );
}

function alive(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !fields.slice(fields.lastIndexOf(')')).startsWith(') Z');
  } catch {
    return false;
  }
}

function weights(folder) {
  const found = new Map();
  const visit = (at) => {
    for (const entry of readdirSync(at, { withFileTypes: true })) {
      const file = path.join(at, entry.name);
      if (entry.isDirectory()) visit(file);
      else if (/\.(safetensors|pt)$/.test(entry.name)) {
        found.set(path.relative(folder, file), createHash('sha256').update(readFileSync(file)).digest('hex'));
      }
    }
  };
  visit(path.join(folder, 'artifacts'));
  return found;
}

/** Mulberry32: small, seedable, good enough to choose moments. */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
