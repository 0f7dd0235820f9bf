// Sets everything up on a machine that has Node 20.20+ and Python 3.11+ and nothing else; plain Node, because it runs
// before `npm install`. Each part is skipped when its stamp says that its inputs have not changed; --force does all.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
const force = process.argv.includes('--force');
const windows = process.platform === 'win32';
const venv = path.join('backend-py', '.venv');
const venvPython = windows ? path.join(venv, 'Scripts', 'python.exe') : path.join(venv, 'bin', 'python');
const TORCH_CPU_INDEX = 'https://download.pytorch.org/whl/cpu';

const started = Date.now();
checkNode();
installNodePackages();
await installPythonPackages();
buildCli();
const seconds = (Date.now() - started) / 1000;
if (seconds > 3) say(`ready after ${seconds.toFixed(0)} s`);

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 20)) {
    fail(
      `Node ${process.versions.node} is too old: qscope needs 20.20 or newer.`,
      'Install a newer Node and run the command again.',
    );
  }
}

function installNodePackages() {
  const want = digest('package-lock.json', 'package.json', process.versions.node);
  const stamp = path.join('node_modules', '.qscope-stamp');
  if (!force && read(stamp) === want) return;
  say('installing the Node packages of package-lock.json');
  // Not `npm ci`: it insists on lock entries for the optional binaries of every other platform, which npm leaves out of
  // the lock file when a registry mirror does not carry them. Versions come from the lock file all the same.
  run(windows ? 'npm.cmd' : 'npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error']);
  // npm links the commands of dependencies, not those of the package itself; `npx qscope` should work here too.
  const link = path.join('node_modules', '.bin', 'qscope');
  if (!windows && !existsSync(link)) symlinkSync('../../cli/bin/qscope.js', link);
  writeFileSync(stamp, want);
}

async function installPythonPackages() {
  const python = installedPython() ?? findPython();
  const torchBuild = process.env.QSCOPE_TORCH ?? 'auto';
  const want = digest('backend-py/constraints.txt', 'backend-py/pyproject.toml', python.version, torchBuild);
  const stamp = path.join(venv, 'qscope-stamp');
  if (!force && existsSync(venvPython) && read(stamp) === want) return;

  if (force || !existsSync(venvPython) || probe(venvPython)?.version !== python.version) {
    say(`creating ${venv} with Python ${python.version}`);
    rmSync(venv, { recursive: true, force: true });
    run(python.command, ['-m', 'venv', venv]);
  }
  const pip = [
    '-m',
    'pip',
    '--disable-pip-version-check',
    '--no-input',
    'install',
    '--quiet',
    '-c',
    'backend-py/constraints.txt',
  ];
  const torch = readFileSync('backend-py/constraints.txt', 'utf8').match(/^torch==\S+/m)[0];
  say(`installing ${torch} (the largest download) and the Python packages of backend-py/constraints.txt`);
  // Torch goes first and alone: an unpinned or late resolution may pick another build with gigabytes of CUDA wheels.
  run(venvPython, [...pip, ...(await torchIndex(torchBuild, torch)), torch]);
  run(venvPython, [...pip, '-e', 'backend-py[dev]']);
  const version = spawnSync(venvPython, ['-m', 'qscope.worker', '--version'], { encoding: 'utf8' });
  if (version.status !== 0) fail(`The worker does not start:\n${version.stderr}`, 'Run `npm run setup -- --force`.');
  writeFileSync(stamp, want);
}

/** Extra pip arguments that choose between the CPU and the CUDA build of the same torch version. */
async function torchIndex(build, torch) {
  if (!['auto', 'cpu', 'cuda'].includes(build)) {
    fail(`QSCOPE_TORCH=${build} is unknown.`, 'Use auto, cpu or cuda.');
  }
  const wantsCuda = build === 'cuda' || (build === 'auto' && spawnSync('nvidia-smi', ['-L']).status === 0);
  if (wantsCuda || process.platform !== 'linux') return [];
  const dry = spawnSync(
    venvPython,
    [
      '-m',
      'pip',
      '--disable-pip-version-check',
      'install',
      '--dry-run',
      '--quiet',
      '--no-deps',
      '--report',
      '-',
      torch,
    ],
    { encoding: 'utf8', maxBuffer: 1 << 26 },
  );
  if (dry.status === 0 && dry.stdout.includes('+cpu')) return [];
  try {
    // An index that does not answer would cost pip minutes of retries, so it is asked once, briefly.
    const answer = await fetch(`${TORCH_CPU_INDEX}/torch/`, { method: 'HEAD', signal: AbortSignal.timeout(3000) });
    if (answer.ok) return ['--extra-index-url', TORCH_CPU_INDEX];
  } catch {
    // Not reachable: PyPI's build works on a CPU too, it is only larger.
  }
  say('no CPU build of torch can be reached; taking the larger default build');
  return [];
}

function buildCli() {
  const info = path.join('cli', 'dist', '.tsbuildinfo');
  const main = path.join('cli', 'dist', 'main.js');
  if (!force && existsSync(main) && existsSync(info) && newest('cli/src') < statSync(info).mtimeMs) return;
  mkdirSync(path.join('cli', 'dist'), { recursive: true });
  run(process.execPath, [path.join('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'cli/tsconfig.json']);
  // tsc leaves an unchanged build info alone, which would make every later set-up build again.
  writeFileSync(info, readFileSync(info));
}

/** The Python of the environment that is there, unless another one is asked for: one process instead of a search. */
function installedPython() {
  if (force || process.env.QSCOPE_PYTHON || !existsSync(venvPython)) return undefined;
  const found = probe(venvPython);
  return found?.ok ? { command: venvPython, version: found.version } : undefined;
}

function findPython() {
  const names = process.env.QSCOPE_PYTHON
    ? [process.env.QSCOPE_PYTHON]
    : ['python3.13', 'python3.12', 'python3.11', 'python3', 'python'];
  const seen = [];
  for (const command of names) {
    const found = probe(command);
    if (!found) continue;
    if (found.ok) return { command, version: found.version };
    seen.push(`${command} is ${found.version}${found.venv ? '' : ' without the venv module'}`);
  }
  fail(
    `No Python 3.11 to 3.13 with venv was found${seen.length ? ` (${seen.join(', ')})` : ''}.`,
    'Install one (Debian: apt-get install python3-venv), or name it: QSCOPE_PYTHON=/path/to/python npm run setup',
  );
}

function probe(command) {
  const code =
    'import sys, importlib.util as u; print("%d.%d.%d" % sys.version_info[:3]); print(bool(u.find_spec("venv") and u.find_spec("ensurepip")))';
  const result = spawnSync(command, ['-c', code], { encoding: 'utf8' });
  if (result.status !== 0) return undefined;
  const [version, hasVenv] = result.stdout.trim().split(/\r?\n/);
  const [major, minor] = version.split('.').map(Number);
  return { version, venv: hasVenv === 'True', ok: major === 3 && minor >= 11 && minor <= 13 && hasVenv === 'True' };
}

function newest(folder) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    time = Math.max(time, entry.isDirectory() ? newest(full) : statSync(full).mtimeMs);
  }
  return time;
}

function digest(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(existsSync(part) ? readFileSync(part) : part).update('\0');
  return hash.digest('hex');
}

function read(file) {
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}

function run(command, args) {
  const result = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: windows && command.endsWith('.cmd'),
  });
  if (result.status !== 0) {
    fail(
      `\`${command} ${args.join(' ')}\` failed${result.error ? `: ${result.error.message}` : ` with exit code ${result.status}`}.`,
      'The lines above say why.',
    );
  }
}

function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

function fail(message, remedy) {
  process.stderr.write(`setup: ${message}\n       ${remedy}\n`);
  process.exit(69);
}
