import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ROOT, Sandbox } from './support/cli.js';

let sandbox: Sandbox;
beforeAll(() => {
  sandbox = new Sandbox();
});
afterAll(() => sandbox.remove());

describe('usage', () => {
  test('--help lists every command, on stdout', async () => {
    const { stdout, stderr, code } = await sandbox.run(['--help']);
    expect(stdout).toMatch(
      /train-sae .*\n {2}eval-sae .*\n {2}features .*\n {2}steer .*\n {2}bench-redundancy .*\n {2}classify .*\n {2}synthesize .*\n {2}sft .*\n {2}rl .*\n(?: {2}eval .*\n)? {2}plan .*\n {2}runs .*\n {2}report .*\n {2}config .*\n {2}worker .*\n {2}doctor /,
    );
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
  });

  test('every command of the help has its module', async () => {
    const { stdout } = await sandbox.run(['--help']);
    const listed = [...(stdout.split('Commands:')[1] as string).matchAll(/^ {2}([a-z-]+) {2,}\w/gm)].map(
      (match) => match[1],
    );
    const modules = readdirSync(join(ROOT, 'cli/src/commands')).map((file) => file.replace('.ts', ''));
    expect(listed.length).toBeGreaterThan(5);
    for (const name of listed) expect(modules).toContain(name);
  });

  test('no command: the help on stderr, 2', async () => {
    const { stdout, stderr, code } = await sandbox.run([]);
    expect(stdout).toBe('');
    expect(stderr).toContain('Usage: qscope');
    expect(code).toBe(2);
  });

  test.each([
    [['trian-sae'], "error: unknown command 'trian-sae'\n(Did you mean train-sae?)"],
    [['train-sae', 'x.yaml', '--josn'], "error: unknown option '--josn'\n(Did you mean --json?)"],
    [['runs', 'lsit'], "error: unknown command 'lsit'\n(Did you mean list?)"],
    [['train-sae'], "error: missing required argument 'file'"],
    [['plan', 'x.yaml', '--set', 'seed'], 'It needs the form path=value.'],
  ])('%j is refused with 2', async (args, message) => {
    const { stderr, code } = await sandbox.run(args);
    expect(stderr).toContain(message);
    expect(stderr).toContain('Run with --help for the options.');
    expect(code).toBe(2);
  });

  test.each([
    [['steer'], 'There is nothing to steer: no file, no prompt.\nGive an experiment file, or -p TEXT'],
    [['steer', '-p', ''], '-p holds no text.\nWrite the prompt after -p'],
    [['steer', '-p', 'one', '-p', ''], '-p holds no text.'],
    [['steer', '-i'], '-i needs a terminal to read prompts from.'],
  ])('%j is refused with 2, by what was typed', async (args, message) => {
    const { stderr, code } = await sandbox.run(args);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain('--set');
    expect(code).toBe(2);
  });

  test('--version', async () => {
    expect((await sandbox.run(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

test('a missing experiment file: 65 and no stack trace', async () => {
  const { stderr, code } = await sandbox.run(['train-sae', 'nosuch.yaml']);
  expect(stderr).toContain('nosuch.yaml');
  expect(stderr).not.toContain('    at ');
  expect(code).toBe(65);
});

test('doctor says what is wrong and what to do', async () => {
  const { stdout, code } = await sandbox.run(['doctor', '--python', '/bin/false']);
  expect(stdout).toMatch(/^ok {4}node {10}\d+/);
  expect(stdout).toMatch(/^FAIL {2}python .*\n +Run `npm run setup`/m);
  expect(code).toBe(1);
});

test('| head: leaves quietly', async () => {
  const cli = sandbox.start(['--help']);
  cli.child.stdout?.destroy();
  const { stderr, code } = await cli.ended;
  expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
});
