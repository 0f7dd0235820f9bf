import { defineConfig } from 'vitest/config';

// End-to-end tests start workers and train: one file at a time in each of two lanes, since the machine may have two
// cores. `scripts/test.mjs` runs the second lane behind the Python tests; the lanes take about equally long.
const endToEnd = { testTimeout: 300_000, hookTimeout: 120_000, fileParallelism: false };
const trainingVerbs = ['eval', 'posttraining-plans', 'ranks', 'rl', 'sft'].map((name) => `tests/${name}.test.ts`);

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['cli/test/**/*.test.ts'], testTimeout: 60_000 } },
      { test: { name: 'end-to-end', include: ['tests/**/*.test.ts'], exclude: trainingVerbs, ...endToEnd } },
      { test: { name: 'end-to-end-training', include: trainingVerbs, ...endToEnd } },
    ],
  },
});
