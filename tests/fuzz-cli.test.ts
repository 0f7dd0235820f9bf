import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { Sandbox } from '../cli/test/support/cli.js';
import { kinds, type Mutant, mutants } from '../cli/test/support/mutations.js';

// Damaged files through the command line itself, a process for each. `QSCOPE_FUZZ=2000` takes many more (10 minutes).

const COUNT = Number(process.env.QSCOPE_FUZZ ?? 4 * kinds.length);
const AT_ONCE = 2;
const box = new Sandbox();
afterAll(() => box.remove());

it(`${COUNT} damaged files end with exit code 0, or with 65 and a place`, { timeout: 3_600_000 }, async () => {
  const source = mutants(COUNT);
  const counts = Object.fromEntries(kinds.map((kind) => [kind, { valid: 0, refused: 0, slowestMs: 0 }]));
  const work = async (slot: number) => {
    for (const mutant of source) {
      const count = counts[mutant.kind] as { valid: number; refused: number; slowestMs: number };
      const started = performance.now();
      const valid = await check(mutant, `e${slot}.yaml`);
      count[valid ? 'valid' : 'refused'] += 1;
      count.slowestMs = Math.max(count.slowestMs, Math.round(performance.now() - started));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, (_, slot) => work(slot)));
  console.table(counts);
  for (const { refused } of Object.values(counts)) expect(refused).toBeGreaterThan(0);
});

async function check({ kind, index, content }: Mutant, name: string): Promise<boolean> {
  writeFileSync(join(box.folder, name), content);
  const { code, stdout, stderr } = await box.run(['config', 'check', name]);
  const about = `${kind}, file ${index}: ${stderr.slice(0, 2000)}`;
  if (code === 0) return true;
  expect(code, about).toBe(65);
  expect(stdout, about).toBe('');
  expect(stderr.split('\n')[0], about).toMatch(new RegExp(`^${name}:\\d+:\\d+ \\S`));
  expect(stderr, about).not.toMatch(/^\s+at .*[:(]\d+:\d+\)?$/m);
  expect(stderr, about).not.toContain('This is a bug');
  return false;
}
