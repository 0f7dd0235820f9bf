// All tests, stage by stage; --quick leaves out the end-to-end tests and those marked slow, --check all but what needs
// no test runner: generated code, formatting, lint, types.
// Every stage runs even when an earlier one failed, so that one run shows all that is wrong.
import { spawn } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
const quick = process.argv.includes('--quick');
const checkOnly = process.argv.includes('--check');
const python = path.join(root, 'backend-py', '.venv', 'bin', 'python');
const node = process.execPath;
const bin = (name) => path.join('node_modules', '.bin', name);
const ESC = String.fromCharCode(27);

const checks = [
  { name: 'generated code is fresh', command: [node, 'scripts/check-generated.mjs'] },
  { name: 'biome', command: [bin('biome'), 'ci', '--error-on-warnings', '--colors=off', '.'] },
  { name: 'ruff', command: [python, '-m', 'ruff', 'check', '.'], cwd: 'backend-py' },
  { name: 'ruff format', command: [python, '-m', 'ruff', 'format', '--check', '.'], cwd: 'backend-py' },
  { name: 'types', command: [bin('tsc'), '-p', 'cli/tsconfig.json', '--noEmit'] },
];
const typescript = [
  { name: 'TypeScript unit tests', command: [bin('vitest'), 'run', '--project', 'unit'] },
  ...(quick ? [] : [{ name: 'end-to-end tests', command: [bin('vitest'), 'run', '--project', 'end-to-end'] }]),
];
const besides = [
  {
    name: 'Python tests',
    command: [python, '-m', 'pytest', ...(quick ? ['-m', 'not slow'] : [])],
    cwd: 'backend-py',
    // Beside the others on what may be two cores: threads that wait must not spin.
    env: { OMP_NUM_THREADS: '2', OMP_WAIT_POLICY: 'PASSIVE' },
  },
  ...(quick
    ? []
    : [
        {
          name: 'end-to-end tests of training',
          command: [bin('vitest'), 'run', '--project', 'end-to-end-training'],
        },
      ]),
];

const totals = { passed: 0, failed: 0, skipped: 0 };
const results = [];
for (const stage of checks) await finish(stage, (text) => process.stdout.write(text));
if (!checkOnly) {
  // Both sides mostly wait for one core: side by side they take little longer than the slower one alone. What the
  // second says is held back until the first is done.
  const held = [];
  let first = true;
  const second = (async () => {
    for (const stage of besides) await finish(stage, (text) => (first ? held.push(text) : process.stdout.write(text)));
  })();
  for (const stage of typescript) await finish(stage, (text) => process.stdout.write(text));
  first = false;
  process.stdout.write(held.join(''));
  await second;
}

process.stdout.write('\n');
for (const { name, code, seconds } of results) {
  process.stdout.write(`${code === 0 ? 'ok    ' : 'FAILED'}  ${name}  ${seconds.toFixed(0)} s\n`);
}
process.stdout.write(`\n${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`);
process.exitCode = results.every(({ code }) => code === 0) ? 0 : 1;

/** Runs a stage and counts its tests; a stage without a test runner counts as one check. */
async function finish(stage, write) {
  write(`\n--- ${stage.name}\n`);
  const started = Date.now();
  const { code, output } = await run(stage, write);
  const counts = count(output);
  for (const key of Object.keys(totals)) totals[key] += counts[key];
  if (counts.passed + counts.failed === 0) totals[code === 0 ? 'passed' : 'failed'] += 1;
  else if (code !== 0 && counts.failed === 0) totals.failed += 1;
  results.push({ name: stage.name, code, seconds: (Date.now() - started) / 1000 });
}

function run({ command, cwd = '.', env = {} }, write) {
  return new Promise((resolve) => {
    const child = spawn(command[0], command.slice(1), {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (chunk) => {
        write(chunk);
        output += chunk;
      });
    }
    child.on('error', (error) => resolve({ code: 127, output: String(error) }));
    child.on('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

/** Counts of the runner's closing line: pytest's "3 passed, 1 failed in 2s", vitest's "Tests  3 passed | 1 failed (4)". */
function count(output) {
  const plain = output.replaceAll(new RegExp(`${ESC}\\[[0-9;]*m`, 'g'), '');
  const lines = plain.split('\n');
  const closing =
    lines.findLast((line) => /^\s*Tests\s+\d+/.test(line)) ??
    lines.findLast((line) => /\d+ (passed|failed).* in \d/.test(line)) ??
    '';
  const number = (word) => Number(closing.match(new RegExp(`(\\d+) ${word}`))?.[1] ?? 0);
  return { passed: number('passed'), failed: number('failed') + number('errors?'), skipped: number('skipped') };
}
