import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { WorkerAhead } from '../../src/worker/ahead.js';
import { recordFile, runtimeFolder } from '../../src/worker/paths.js';
import { startTime } from '../../src/worker/record.js';

const READY = '{"address": "unix:/x", "pid": 1, "protocol_version": "1.0", "version": "0"}';
const signal = new AbortController().signal;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'qs-'));
  vi.stubEnv('XDG_RUNTIME_DIR', folder);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

/** A program in the place of Python that leaves its arguments and process id. */
function program(script: string): string {
  const path = join(folder, 'python');
  writeFileSync(path, `#!/bin/sh\necho "$@" > ${folder}/arguments\necho $$ > ${folder}/pid\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

async function pidOf(): Promise<number> {
  for (let waited = 0; waited < 10_000; waited += 20) {
    if (existsSync(join(folder, 'pid'))) {
      const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
      if (pid > 0) return pid;
    }
    await sleep(20);
  }
  throw new Error('the program was not started');
}

test('one that is not needed is ended at once and leaves no folder, ready or not', async () => {
  for (const script of ['exec sleep 60', `echo '${READY}' >&3; exec sleep 60`]) {
    rmSync(join(folder, 'pid'), { force: true });
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
  expect(readFileSync(join(folder, 'arguments'), 'utf8')).toMatch(/--owned --spare$/m);
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
