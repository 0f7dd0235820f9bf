import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, expect, it } from 'vitest';
import { ROOT } from '../cli/test/support/cli.js';
import { RealSandbox, weights } from './small.js';

/** Plain fine-tuning of the embedded model: steps of eight rows, four on each of two ranks. */
const TWO = `name: two
seed: 5
model: embedded
compute: { device: cpu, threads: 2, processes: 2 }
sft:
  data:
    source: ${join(ROOT, 'configs/embedded/rows/exercises.jsonl')}
    prompt: "{question}"
    completion: "{response}"
    limit: 64
  format: { chat: true }
  context: 96
  steps: 12
  micro_batch_rows: 4
  optimizer: { learning_rate: 3e-4 }
  checkpoint: { every_steps: 2, keep: 9 }
`;

const boxes: RealSandbox[] = [];
const sandbox = () => {
  const box = new RealSandbox();
  boxes.push(box);
  return box;
};
afterAll(() => {
  for (const box of boxes) box.remove();
});

it('sft on two ranks, stopped, killed and gone on with, ends with the weights of one process', async () => {
  const calm = sandbox();
  const one = ['compute.processes=1', 'compute.threads=1', 'sft.accumulate=2'].flatMap((set) => ['--set', set]);
  const alone = await calm.run(['sft', calm.experiment(TWO), '--quiet', ...one]);
  expect(alone.code, alone.stderr).toBe(0);

  const box = sandbox();
  const first = box.start(['sft', box.experiment(TWO), '--json']);
  await first.saw(/"checkpoint"/);
  const id = basename(box.runFolder());
  const ranks = children(jobPid(box));
  expect(ranks).toHaveLength(2);
  process.kill(jobPid(box), 'SIGTERM');
  const stopped = await first.ended;
  expect(stopped.code, stopped.stderr).toBe(75);
  expect(ranks.some(alive)).toBe(false);
  expect(lastEvent(box)?.state).toBe('RUN_STATE_PREEMPTED');

  const before = newestCheckpoint(box);
  const second = box.start(['runs', 'resume', id, '--json']);
  while (newestCheckpoint(box) === before) await sleep(50);
  const [rank0, rank1] = children(jobPid(box)) as [number, number];
  process.kill(rank1, 'SIGKILL');
  const killed = await second.ended;
  expect(killed.code).toBe(1);
  expect(killed.stderr).toMatch(/Rank 1 of 2 vanished \(SIGKILL/);
  expect(killed.stderr.trim().split('\n').at(-1)).toBe(`qscope runs resume ${id}`);
  expect(alive(rank0)).toBe(false);

  const third = await box.run(['runs', 'resume', id, '--quiet']);
  expect(third.code, third.stderr).toBe(0);
  expect(weights(box.runFolder())).toEqual(weights(calm.runFolder()));
  expect(weights(box.runFolder()).size).toBe(1);
  // Seven processes import their libraries, one pair after the other.
}, 600_000);

it('other verbs refuse more than one process, and say what to do', async () => {
  const box = sandbox();
  const text = `model: embedded
compute: { processes: 2 }
train_sae: { text: { source: embedded }, sae: { k: 8 }, layers: [1], tokens: 1024 }
`;
  const { code, stderr } = await box.run(['plan', box.experiment(text)]);
  expect(code).toBe(65);
  expect(stderr).toMatch(/small\.yaml:2:\d+.*train-sae runs in one process/s);
  expect(stderr).toMatch(/Set compute\.processes to 1/);
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

function children(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

function alive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

function lastEvent(box: RealSandbox): { state?: string } | undefined {
  const lines = readFileSync(join(box.runFolder(), 'events.jsonl'), 'utf8').trim().split('\n');
  return JSON.parse(lines.at(-1) ?? '{}').state_changed;
}
