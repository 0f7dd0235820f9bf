import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { RealSandbox, SMALL, weights } from './small.js';

const LONGER = SMALL.replace('tokens: 16384', 'tokens: 65536')
  .replace('every_steps: 8', 'every_steps: 4')
  .replace('formats: [native, qwen_scope, saelens]', 'formats: [native]');

describe('a run that is stopped or killed', () => {
  const boxes: RealSandbox[] = [];
  const sandbox = () => {
    const box = new RealSandbox();
    boxes.push(box);
    return box;
  };
  afterEach(() => {
    for (const box of boxes.splice(0)) box.remove();
  });

  it('goes on after Ctrl-C and after kill -9 to the weights of an undisturbed one', async () => {
    const calm = sandbox();
    expect((await calm.run(['train-sae', calm.experiment(LONGER), '--quiet'])).code).toBe(0);

    const box = sandbox();
    const early = box.start(['train-sae', box.experiment(LONGER), '--json']);
    await early.saw(/RUN_STATE_RUNNING/);
    early.child.kill('SIGINT');
    expect((await early.ended).code).toBe(130);

    const first = box.start(['runs', 'resume', basename(box.runFolder()), '--json']);
    await first.saw(/"checkpoint"/);
    first.child.kill('SIGINT');
    const stopped = await first.ended;
    expect(stopped.code).toBe(130);
    const id = basename(box.runFolder());
    expect(stopped.stderr.trim().split('\n').at(-1)).toBe(`qscope runs resume ${id}`);

    const second = box.start(['runs', 'resume', id, '--json']);
    const before = newestCheckpoint(box);
    while (newestCheckpoint(box) === before) await sleep(50);
    process.kill(-jobPid(box), 'SIGKILL');
    const killed = await second.ended;
    expect(killed.code).toBe(1);
    expect(killed.stderr).toMatch(/The process vanished \(SIGKILL/);

    const third = await box.run(['runs', 'resume', id, '--quiet']);
    expect(third.code, third.stderr).toBe(0);
    expect(weights(box.runFolder())).toEqual(weights(calm.runFolder()));
  });

  it('outlives its worker, and the watcher comes back by itself', async () => {
    const box = sandbox();
    const cli = box.start(['train-sae', box.experiment(LONGER), '--json']);
    await cli.saw(/"checkpoint"/);
    const [worker] = box.workers();
    process.kill(worker as number, 'SIGKILL');
    const { code, stdout } = await cli.ended;
    expect(code).toBe(0);
    const sequences = stdout
      .trim()
      .split('\n')
      .map((line) => Number(JSON.parse(line).sequence));
    expect(sequences).toEqual(sequences.map((_, index) => index + 1));
  });

  it('ends with its terminal unless it is detached', async () => {
    const box = sandbox();
    const attached = box.start(['train-sae', box.experiment(LONGER)]);
    await attached.saw(/./);
    while (box.runFolders().length === 0 || newestCheckpoint(box) === undefined) await sleep(50);
    attached.child.kill('SIGKILL');
    const pid = jobPid(box);
    for (let i = 0; alive(pid) && i < 300; i += 1) await sleep(100);
    expect(alive(pid)).toBe(false);
    expect(lastState(box)).toBe('RUN_STATE_CANCELLED');

    const free = sandbox();
    expect((await free.run(['train-sae', free.experiment(LONGER), '--detach'])).code).toBe(0);
    const watched = await free.run(['runs', 'watch', 'latest', '--quiet']);
    expect(watched.code).toBe(0);
    expect(lastState(free)).toBe('RUN_STATE_SUCCEEDED');
  });
});

function newestCheckpoint(box: RealSandbox): string | undefined {
  return readdirSync(join(box.runFolder(), 'checkpoints'))
    .filter((name) => name.startsWith('step-'))
    .sort()
    .at(-1);
}

function jobPid(box: RealSandbox): number {
  return JSON.parse(readFileSync(join(box.runFolder(), 'process.json'), 'utf8')).pid;
}

function alive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

function lastState(box: RealSandbox): string {
  const lines = readFileSync(join(box.runFolder(), 'events.jsonl'), 'utf8').trim().split('\n');
  return JSON.parse(lines.findLast((line) => line.includes('"state_changed"')) ?? '{}').state_changed?.state;
}
