import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { WorkerAhead } from '../../src/worker/ahead.js';
import { recordFile, runtimeFolder } from '../../src/worker/paths.js';
import { startTime } from '../../src/worker/record.js';
import { RuntimeFolder } from '../support/runtime.js';

const READY = '{"address": "unix:/x", "pid": 1, "protocol_version": "1.0", "version": "0"}';
const signal = new AbortController().signal;

const runtime = new RuntimeFolder();

/** A program in the place of Python that leaves its arguments and process id. */
const program = (script: string) =>
  runtime.program(`echo "$@" > ${runtime.path}/arguments\necho $$ > ${runtime.path}/pid\n${script}`);

async function pidOf(): Promise<number> {
  for (let waited = 0; waited < 10_000; waited += 20) {
    if (existsSync(join(runtime.path, 'pid'))) {
      const pid = Number(readFileSync(join(runtime.path, 'pid'), 'utf8'));
      if (pid > 0) return pid;
    }
    await sleep(20);
  }
  throw new Error('the program was not started');
}

test('one that is not needed is ended at once and leaves no folder, ready or not', async () => {
  for (const script of ['exec sleep 60', `echo '${READY}' >&3; exec sleep 60`]) {
    rmSync(join(runtime.path, 'pid'), { force: true });
    const ahead = WorkerAhead.begin({ python: program(script), signal });
    const pid = await pidOf();
    if (script.includes('echo')) await sleep(200);
    await ahead?.dismiss();
    expect(startTime(pid)).toBeUndefined();
    expect(readdirSync(runtimeFolder())).toEqual([]);
  }
});

test('one that is taken belongs to the taker', async () => {
  const ahead = WorkerAhead.begin({ python: program(`echo '${READY}' >&3; exec cat`), signal });
  const worker = await ahead?.take();
  expect(ahead?.take()).toBeUndefined();
  await ahead?.dismiss();
  expect(worker?.isRunning()).toBe(true);
  expect(readFileSync(join(runtime.path, 'arguments'), 'utf8')).toMatch(/--owned --spare$/m);
  await worker?.stop();
  expect(worker?.isRunning()).toBe(false);
});

test('what goes wrong is told to the taker alone', async () => {
  const ahead = WorkerAhead.begin({ python: '/no/such/python', signal });
  await sleep(50);
  await expect(ahead?.take()).rejects.toThrow('--python names "/no/such/python"');
  const other = WorkerAhead.begin({ python: '/no/such/python', signal });
  await other?.dismiss();
});

test('an interruption ends it', async () => {
  const interrupt = new AbortController();
  const ahead = WorkerAhead.begin({ python: program('exec sleep 60'), signal: interrupt.signal });
  const pid = await pidOf();
  interrupt.abort();
  await expect(ahead?.take()).rejects.toThrow('Interrupted before the worker was ready.');
  expect(startTime(pid)).toBeUndefined();
});

test('none is started beside a background worker', () => {
  mkdirSync(runtimeFolder());
  writeFileSync(recordFile(), JSON.stringify({ pid: process.pid, startTime: startTime(process.pid), folder: '/x' }));
  expect(WorkerAhead.begin({ python: '/no/such/python', signal })).toBeUndefined();
});
