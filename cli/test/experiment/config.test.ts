import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, afterEach, beforeEach, expect, test, vi } from 'vitest';
import { build } from '../../src/commands/config.js';
import { ExperimentError } from '../../src/experiment/diagnostic.js';
import { Files } from './files.js';

const files = new Files();
afterAll(() => files.remove());

let stdout = '';
let stderr = '';
beforeEach(() => {
  stdout = '';
  stderr = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += text;
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

const run = (...args: string[]) => build().exitOverride().parseAsync(args, { from: 'user' });
const write = (name: string, text: string) => path.join(files.folder, files.write(name, text));

test('check: a valid file is a note for people, and nothing on stdout', async () => {
  const file = write('good.yaml', 'name: mine\nmodel: embedded\ntrain_sae:\n');
  await run('check', file, '--set', 'train_sae.tokens=3', '--set', 'seed=1');
  expect(stdout).toBe('');
  expect(stderr).toBe(`${file}: valid, experiment "mine"\n`);
});

test('check: an invalid file throws what main shows', async () => {
  const file = write('bad.yaml', 'modle: embedded\ntrain_sae:\n');
  const error = await run('check', file).catch((caught) => caught);
  expect(error).toBeInstanceOf(ExperimentError);
  expect(error.exitCode).toBe(65);
  expect(error.render()).toBe(
    `${file}:1:1 modle: unknown field\n  modle: embedded\n  ^\n  did you mean model?\nthe experiment has 1 fault`,
  );
});

test('check --json: one object, with exit code 65 when invalid', async () => {
  const bad = write('bad.yaml', 'modle: embedded\ntrain_sae:\n');
  await run('check', '--json', bad);
  expect(process.exitCode).toBe(65);
  expect(JSON.parse(stdout)).toEqual({
    valid: false,
    omitted: 0,
    diagnostics: [
      { file: bad, line: 1, column: 1, path: 'modle', message: 'unknown field', suggestion: 'did you mean model?' },
    ],
  });
  stdout = '';
  process.exitCode = undefined;
  await run('check', '--json', write('good.yaml', 'model: embedded\ntrain_sae:\n'));
  expect(JSON.parse(stdout)).toEqual({ valid: true, diagnostics: [] });
  expect(process.exitCode).toBeUndefined();
});

test('show: every value with its origin, itself a valid file', async () => {
  const file = write(
    'e.yaml',
    'model: embedded\ntrain_sae:\n  layers: [1]\n  text: {source: "$' + '{env:QSCOPE_TEXT:-embedded}"}\n',
  );
  await run('show', file, '--set', 'train_sae.sae.k=3');
  const lines = stdout.split('\n').map((line) => line.trim());
  expect(lines).toContain('name: run # default');
  expect(lines).toContain(`model: embedded # ${file}:1`);
  expect(lines).toContain(`layers: [1] # ${file}:3`);
  expect(lines).toContain('k: 3 # --set');
  await run('check', write('shown.yaml', stdout));
});

test('init: what is written passes check; an existing file is kept', async () => {
  for (const command of ['train-sae', 'eval-sae']) {
    const file = path.join(files.folder, `${command}.yaml`);
    await run('init', command, '-o', file);
    const text = readFileSync(file, 'utf8');
    const [, schema] = /^# yaml-language-server: \$schema=(.*)\n/.exec(text) ?? [];
    expect(existsSync(path.resolve(files.folder, schema ?? 'none'))).toBe(true);
    await run('check', file);
    await expect(run('init', command, '-o', file)).rejects.toMatchObject({
      exitCode: 2,
      hint: 'Overwrite it with --force.',
    });
    await run('init', command, '-o', file, '--force');
  }
});

test('schema: JSON on stdout', async () => {
  await run('schema');
  expect(JSON.parse(stdout)).toMatchObject({ title: 'qscope experiment' });
});
