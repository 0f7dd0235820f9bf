import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { UserError } from '../../src/errors.js';
import { findPython } from '../../src/worker/python.js';
import { startTime } from '../../src/worker/record.js';
import { startWorker } from '../../src/worker/start.js';
import { RuntimeFolder } from '../support/runtime.js';

const runtime = new RuntimeFolder();
const program = (script: string) => ({ path: runtime.program(script), origin: '--python' });

async function refusal(promise: Promise<unknown> | (() => unknown)): Promise<UserError> {
  try {
    await (typeof promise === 'function' ? promise() : promise);
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    return error as UserError;
  }
  throw new Error('nothing was refused');
}

describe('a worker that does not come up', () => {
  test('one that ends at once: its code and the end of its log', async () => {
    const python = program('for i in $(seq 30); do echo "line $i" >&2; done; exit 3');
    const error = await refusal(startWorker({ python, owned: true }));
    expect(error.exitCode).toBe(69);
    expect(error.message).toBe(`The worker did not start: ${python.path} (--python) ended with code 3.`);
    expect(error.hint).toMatch(/Last lines of .*worker\.log:\n {2}line 11\n/);
    expect(error.hint).toContain('\n  line 30\n');
  });

  test('one that is killed', async () => {
    const error = await refusal(startWorker({ python: program('kill -9 $$'), owned: true }));
    expect(error.message).toContain('was killed by SIGKILL');
  });

  test('one that says nothing is ended', async () => {
    const python = program(`echo $$ > ${runtime.path}/pid; exec sleep 60`);
    const error = await refusal(startWorker({ python, owned: true, readyMs: 200 }));
    expect(error.message).toContain('was not ready after 0.2 s');
    expect(error.hint).toContain('Its log is empty');
  });

  test('one that says something else', async () => {
    const error = await refusal(startWorker({ python: program('echo hello >&3; sleep 60'), owned: true }));
    expect(error.message).toContain('wrote "hello" instead of its ready line');
  });

  test('a program that cannot be started', async () => {
    const error = await refusal(
      startWorker({ python: { path: join(runtime.path, 'nosuch'), origin: '--python' }, owned: true }),
    );
    expect(error.message).toContain('ENOENT');
    expect(error.exitCode).toBe(69);
  });

  test('an interruption while it is waited for', async () => {
    const signal = AbortSignal.timeout(100);
    const error = await refusal(startWorker({ python: program('sleep 60'), owned: true, signal }));
    expect(error.exitCode).toBe(130);
  });

  test('a socket path that is too long', async () => {
    const long = join(runtime.path, 'x'.repeat(100));
    writeFileSync(join(runtime.path, 'y'), '');
    vi.stubEnv('XDG_RUNTIME_DIR', '');
    vi.stubEnv('TMPDIR', long);
    const error = await refusal(startWorker({ python: program('exit 0'), owned: true }));
    expect(error.message).toMatch(/has \d+ bytes, the system allows 10[37]/);
    expect(error.exitCode).toBe(69);
  });

  test('a folder that somebody else made first', async () => {
    vi.stubEnv('XDG_RUNTIME_DIR', '');
    vi.stubEnv('TMPDIR', runtime.path);
    writeFileSync(join(runtime.path, `qscope-${process.getuid?.()}`), '');
    const error = await refusal(startWorker({ python: program('exit 0'), owned: true }));
    expect(error.exitCode).toBe(69);
  });
});

describe('the choice of Python', () => {
  test('--python over QSCOPE_PYTHON over the virtual environment', () => {
    vi.stubEnv('QSCOPE_PYTHON', '/bin/sh');
    expect(findPython('/bin/true')).toEqual({ path: '/bin/true', origin: '--python' });
    expect(findPython()).toEqual({ path: '/bin/sh', origin: 'QSCOPE_PYTHON' });
  });

  test('a name is looked up in PATH', () => {
    expect(findPython('sh').path).toMatch(/^\/.*\/sh$/);
  });

  test('one that is not there is refused by name', async () => {
    const error = await refusal(() => findPython('/no/such/python'));
    expect(error.message).toBe('--python names "/no/such/python", which is not a program.');
    expect(error.exitCode).toBe(69);
  });
});

test('a start time tells processes apart and knows the dead', () => {
  expect(startTime(process.pid)).toBe(startTime(process.pid));
  expect(startTime(process.pid)).toMatch(/^\d+$|^unknown$/);
  expect(startTime(2 ** 22 + 1)).toBeUndefined();
});
