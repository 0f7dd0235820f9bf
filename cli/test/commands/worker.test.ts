import { statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { EXPERIMENT, Sandbox } from '../support/cli.js';

let sandbox: Sandbox;
beforeEach(() => {
  sandbox = new Sandbox();
});
afterEach(() => sandbox.remove());

const status = async () => JSON.parse((await sandbox.run(['worker', 'status', '--json'])).stdout);

test('start, status, stop; a second start finds the first', async () => {
  expect(await status()).toEqual({ running: false });
  expect((await sandbox.run(['worker', 'start'])).stdout).toMatch(/^The worker runs as process \d+\.\n$/);
  expect((await sandbox.run(['worker', 'start'])).stdout).toMatch(/^A worker runs already/);
  const { pid } = await status();
  expect(sandbox.workers()).toEqual([pid]);

  const record = join(sandbox.folder, 'qscope', 'worker.json');
  expect(statSync(record).mode & 0o777).toBe(0o600);
  expect(statSync(join(sandbox.folder, 'qscope')).mode & 0o777).toBe(0o700);

  await sandbox.run(['train-sae', EXPERIMENT, '--name', 'short', '--quiet']);
  expect(sandbox.workers()).toEqual([pid]);

  expect((await sandbox.run(['worker', 'stop'])).stderr).toBe(`The worker (process ${pid}) has ended.\n`);
  expect(sandbox.workers()).toEqual([]);
  expect(await sandbox.run(['worker', 'stop'])).toMatchObject({ code: 0, stderr: 'No background worker runs.\n' });
});

test('two starts at the same moment leave one worker', async () => {
  await Promise.all([sandbox.run(['worker', 'start']), sandbox.run(['worker', 'start'])]);
  const { pid } = await status();
  await expect.poll(() => sandbox.workers()).toEqual([pid]);
});

test('the record of a killed worker is forgotten', async () => {
  await sandbox.run(['worker', 'start']);
  const { pid } = await status();
  process.kill(pid, 'SIGKILL');
  await expect.poll(() => sandbox.workers()).toEqual([]);
  expect(await sandbox.run(['worker', 'status'])).toMatchObject({ code: 69 });
  expect((await sandbox.run(['runs', 'list'])).code).toBe(0);
});

test('a worker of another protocol is refused, with what to do', async () => {
  const owned = await sandbox.run(['runs', 'list'], { FAKE_PROTOCOL: '2.0' });
  expect(owned).toMatchObject({
    code: 69,
    stderr:
      'The worker speaks protocol 2.0, this program speaks 1.\nThe two halves of the installation differ: run `npm run setup`.\n',
  });
  expect((await sandbox.run(['worker', 'start'], { FAKE_PROTOCOL: '2.0' })).code).toBe(69);
  await expect.poll(() => sandbox.workers()).toEqual([]);
});
