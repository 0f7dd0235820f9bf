// What the experiments of this folder do alike: run qscope, find what it wrote, average.
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

/** Runs and files of an experiment, in one folder. */
export class Lab {
  constructor(folder) {
    this.folder = folder;
  }

  qscope(...args) {
    const all = [path.join(root, 'cli/bin/qscope.js'), ...args, '--runs-dir', this.folder, '--quiet'];
    return execFileSync('node', all, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  }

  /** Writes an experiment (JSON is YAML). */
  write(name, experiment) {
    const file = path.join(this.folder, name);
    writeFileSync(file, JSON.stringify(experiment));
    return file;
  }

  /** Folder of the newest run whose name begins so. */
  newest(prefix) {
    const created = (name) =>
      Date.parse(JSON.parse(readFileSync(path.join(this.folder, name, 'run.json'), 'utf8')).created);
    const names = readdirSync(this.folder).filter((name) => name.startsWith(prefix) && !name.includes('.'));
    return path.join(this.folder, names.sort((a, b) => created(b) - created(a))[0]);
  }

  /** Folder of a run of this name that has written `result`, made by `make` unless there is one from before. */
  once(name, result, make) {
    const done = readdirSync(this.folder).filter(
      (folder) => folder.startsWith(`${name}-`) && existsSync(path.join(this.folder, folder, result)),
    );
    if (done.length > 0) return path.join(this.folder, done[0]);
    make();
    return this.newest(`${name}-`);
  }

  /**
   * As `once`, for runs side by side: `qscope ...verb` with the given files, the last of which names the run. What only a
   * resumed run would need is removed.
   */
  async start(name, result, verb, ...files) {
    const done = () =>
      readdirSync(this.folder).find(
        (folder) => folder.startsWith(`${name}-`) && existsSync(path.join(this.folder, folder, result)),
      );
    if (!done()) {
      const all = [path.join(root, 'cli/bin/qscope.js'), ...verb, ...files, '--runs-dir', this.folder, '--quiet'];
      await promisify(execFile)('node', all, { cwd: root });
      rmSync(path.join(this.folder, done(), 'checkpoints'), { recursive: true, force: true });
    }
    return path.join(this.folder, done());
  }
}

/** Does `work` for every item, so many at a time, in order. */
export async function each(items, atOnce, work) {
  const waiting = [...items];
  const worker = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

/** The project's Python. */
export const python = path.join(
  root,
  'backend-py',
  '.venv',
  process.platform === 'win32' ? 'Scripts' : 'bin',
  'python',
);

export const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));
export const readLines = (file) =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

/** Text that comes with qscope, "train" or "heldout": rows with text, language and source. */
export const shipped = (name) =>
  gunzipSync(readFileSync(path.join(root, `backend-py/qscope/embedded/text/${name}.jsonl.gz`)))
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
export const heldOut = () => shipped('heldout');

/** Rows of a table of a run; its cells hold no line ends. */
export function readTable(file) {
  const [head, ...rows] = readFileSync(file, 'utf8').trim().split(/\r?\n/).map(cells);
  return rows.map((row) => Object.fromEntries(head.map((name, place) => [name, row[place]])));
}
const cells = (line) =>
  [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map((one) => one[1]?.replaceAll('""', '"') ?? one[2]);

export const numbers = (text) => text.split(',').map(Number);
export const mean = (list) => list.reduce((sum, x) => sum + x, 0) / list.length;
export const sd = (list) =>
  list.length < 2 ? Number.NaN : Math.sqrt(list.reduce((sum, x) => sum + (x - mean(list)) ** 2, 0) / (list.length - 1));
/** Wilson's interval, 95 %, of `count` of `n`. */
export function wilson(count, n) {
  const z = 1.959964;
  const share = count / n;
  const middle = (share + z ** 2 / (2 * n)) / (1 + z ** 2 / n);
  const half = (z / (1 + z ** 2 / n)) * Math.sqrt((share * (1 - share)) / n + z ** 2 / (4 * n ** 2));
  return [middle - half, middle + half];
}
/** Shares as "mean ± standard deviation", in percent. */
export const percent = (list) =>
  list.length ? `${(100 * mean(list)).toFixed(0)} ± ${(100 * sd(list)).toFixed(0)}` : '';

/** Prints a table in Markdown. */
export function table(head, rows) {
  console.log(`| ${head.join(' | ')} |\n| ${head.map(() => '---').join(' | ')} |`);
  for (const row of rows) console.log(`| ${row.join(' | ')} |`);
  console.log('');
}
