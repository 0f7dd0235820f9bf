import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXPERIMENT, Sandbox } from '../support/cli.js';

let sandbox: Sandbox;
beforeEach(() => {
  sandbox = new Sandbox();
});
afterEach(() => sandbox.remove());

const train = (name: string, ...more: string[]) => ['train-sae', EXPERIMENT, '--name', name, ...more];
const lastLine = (text: string) => text.trimEnd().split('\n').at(-1);
const runOf = (text: string) => /Run (\S+) in/.exec(text)?.[1];

describe('the exit code is the end of the run', () => {
  test('succeeded: 0, the table on stdout', async () => {
    const { code, stdout, stderr } = await sandbox.run(train('short'));
    expect(stdout).toMatchInlineSnapshot(`
      "layer     FVU    L0
          0  0.1000  16.0
      "
    `);
    expect(stderr).toContain('training  100.0%  10.0k/10.0k  50.0k tok/s\n');
    expect(code).toBe(0);
    expect(sandbox.workers()).toEqual([]);
  });

  test('failed: 1, with reason, remedy, log and the way on', async () => {
    const { code, stderr } = await sandbox.run(train('fails'));
    const id = runOf(stderr) as string;
    expect(
      stderr.slice(stderr.indexOf('The run failed')).replaceAll(id, 'ID').replaceAll(sandbox.folder, 'HOME'),
    ).toMatchInlineSnapshot(`
        "The run failed: The loss of layer 2 became NaN at step 5.
        Lower the learning rate.

          step 4
          step 5

        Log: HOME/runs/ID/run.log
        Go on with:
        qscope runs resume ID
        "
      `);
    expect(code).toBe(1);
  });

  test('preempted: 75', async () => {
    const { code, stderr } = await sandbox.run(train('preempted'));
    expect(lastLine(stderr)).toBe(`qscope runs resume ${runOf(stderr)}`);
    expect(code).toBe(75);
  });

  test('refused by the worker: 65, with the place in the file', async () => {
    const { code, stderr } = await sandbox.run(train('invalid', '--set', 'train_sae.layers=[0,9]'));
    expect(stderr).toContain('--set:1:21 train_sae.layers[1]: The model has 6 layers.');
    expect(code).toBe(65);
  });
});

test('an experiment that is refused leaves neither the worker that was on its way nor its folder', async () => {
  const { code, stderr } = await sandbox.run([...train('short'), '--set', 'train_sae.sae.k=0', '--set', 'sead=1']);
  expect(code).toBe(65);
  expect(stderr).toContain('sead');
  expect(sandbox.workers()).toEqual([]);
  expect(readdirSync(join(sandbox.folder, 'qscope'))).toEqual([]);
  // The experiment's faults come first, whatever ails the installation.
  const without = await sandbox.run([...train('short'), '--set', 'sead=1'], { QSCOPE_PYTHON: '/no/such/python' });
  expect(without.code).toBe(65);
});

describe('signals', () => {
  test('Ctrl-C stops the run in good order: 130, the way on in the last line', async () => {
    const cli = sandbox.start(train('long'));
    await cli.saw(/training/);
    cli.child.kill('SIGINT');
    const { code, stderr } = await cli.ended;
    expect(stderr).toContain('Stopping after this step, with a checkpoint. Ctrl-C again stops at once.\n');
    expect(lastLine(stderr)).toBe(`qscope runs resume ${runOf(stderr)}`);
    expect(code).toBe(130);
    expect(sandbox.workers()).toEqual([]);
  });

  test('a second Ctrl-C stops at once', async () => {
    const cli = sandbox.start(train('long-stubborn'));
    await cli.saw(/training/);
    cli.child.kill('SIGINT');
    await cli.saw(/Stopping after/);
    await new Promise((resolve) => setTimeout(resolve, 400));
    cli.child.kill('SIGINT');
    const { code, stderr } = await cli.ended;
    expect(stderr).toContain('Stopping at once, without a checkpoint.\n');
    expect(code).toBe(130);
  });

  test('the same key press reported twice counts once', async () => {
    const cli = sandbox.start(train('long'));
    await cli.saw(/training/);
    cli.child.kill('SIGINT');
    cli.child.kill('SIGINT');
    const { stderr } = await cli.ended;
    expect(stderr).not.toContain('at once, without');
  });

  test('SIGTERM: 143; the end of the terminal: 129', async () => {
    for (const [signal, expected] of [
      ['SIGTERM', 143],
      ['SIGHUP', 129],
    ] as const) {
      const cli = sandbox.start(train('long'));
      await cli.saw(/training/);
      cli.child.kill(signal);
      expect((await cli.ended).code).toBe(expected);
    }
  });

  test('a killed command leaves no worker behind', async () => {
    const cli = sandbox.start(train('long'));
    await cli.saw(/training/);
    expect(sandbox.workers()).toHaveLength(1);
    cli.child.kill('SIGKILL');
    await cli.ended;
    await expect.poll(() => sandbox.workers()).toEqual([]);
  });

  test('a watcher only leaves: the run goes on', async () => {
    const { stdout } = await sandbox.run(train('long', '--detach'));
    const id = stdout.trim();
    const cli = sandbox.start(['runs', 'watch', id]);
    await cli.saw(/training/);
    cli.child.kill('SIGINT');
    const { code, stderr } = await cli.ended;
    expect(lastLine(stderr)).toBe(`qscope runs watch ${id}`);
    expect(code).toBe(130);
    expect((await sandbox.run(['runs', 'show', id])).stdout).toContain('running');
  });
});

describe('lost workers', () => {
  test('the watch goes on with a new worker, without a gap and without repeating', async () => {
    const cli = sandbox.start(train('short-lived', '--json', '--set', 'seed=1'));
    await cli.saw(/progress/);
    for (const pid of sandbox.workers()) process.kill(pid, 'SIGKILL');
    const { code, stdout } = await cli.ended;
    const sequences = stdout
      .trim()
      .split('\n')
      .map((line) => Number(JSON.parse(line).sequence));
    expect(sequences).toEqual(Array.from({ length: 22 }, (_, index) => index + 1));
    expect(code).toBe(0);
  });

  test('Ctrl-C still works after the worker was lost', async () => {
    const cli = sandbox.start(train('long'));
    await cli.saw(/training/);
    for (const pid of sandbox.workers()) process.kill(pid, 'SIGKILL');
    cli.child.kill('SIGINT');
    expect((await cli.ended).code).toBe(130);
  });
});

describe('output', () => {
  test('--json writes events and nothing else', async () => {
    const { stdout } = await sandbox.run(train('short', '--json'));
    const events = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(events[0]).toEqual({ sequence: '1', stateChanged: { state: 'RUN_STATE_RUNNING', message: 'started' } });
    expect(events.at(-1).stateChanged.state).toBe('RUN_STATE_SUCCEEDED');
    expect(events).toHaveLength(22);
  });

  test('--quiet says nothing of a run that goes well', async () => {
    expect(await sandbox.run(train('short', '--quiet'))).toEqual({ stdout: '', stderr: '', code: 0 });
  });

  test('a reader that leaves ends the run in good order, quietly', async () => {
    const cli = sandbox.start(train('long', '--json'));
    await cli.saw(/progress/);
    cli.child.stdout?.destroy();
    const { code, stderr } = await cli.ended;
    expect(stderr).toBe('');
    expect(code).toBe(141);
    const { stdout } = await sandbox.run(['runs', 'list']);
    expect(stdout).toContain('cancelled');
  });

  test('--detach prints the id and how to find the run again', async () => {
    const { code, stdout, stderr } = await sandbox.run(train('long', '--detach'));
    expect(readdirSync(sandbox.runs)).toEqual([stdout.trim()]);
    expect(lastLine(stderr)).toBe(`qscope runs watch ${stdout.trim()}`);
    expect(code).toBe(0);
  });
});

describe('runs', () => {
  test('list, show, logs, cancel, resume', async () => {
    await sandbox.run(['worker', 'start']);
    const id = (await sandbox.run(train('long', '--detach'))).stdout.trim();
    expect((await sandbox.run(['runs', 'list'])).stdout).toMatch(
      new RegExp(`^run +state .*\n${id} +running +train-sae`),
    );
    expect((await sandbox.run(['runs', 'show', id, '--json'])).stdout).toContain('"state":"RUN_STATE_RUNNING"');
    expect((await sandbox.run(['runs', 'logs', id])).stdout).toBe('first line\nlast line\n');
    expect((await sandbox.run(['runs', 'cancel', id])).code).toBe(0);
    await expect
      .poll(async () => (await sandbox.run(['runs', 'show', id])).stdout, { timeout: 5000 })
      .toContain('cancelled');
    const resumed = await sandbox.run(['runs', 'resume', id, '--json']);
    expect(resumed.code).toBe(0);
    expect(resumed.stdout).not.toContain('"sequence":"1"');
    expect((await sandbox.run(['runs', 'cancel', id])).stderr).toBe(`The run ${id} has ended already: succeeded.\n`);
  });

  test('an unknown run: 2, with the remedy', async () => {
    const { code, stderr } = await sandbox.run(['runs', 'show', 'nosuch']);
    expect(stderr).toBe(`There is no run "nosuch" in ${sandbox.runs}.\nLook again.\n`);
    expect(code).toBe(2);
  });
});
