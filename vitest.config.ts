import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['cli/test/**/*.test.ts'], testTimeout: 60_000 } },
      // End-to-end tests start workers and train: one file at a time, since the machine may have two cores.
      { test: { name: 'end-to-end', include: ['tests/**/*.test.ts'], testTimeout: 300_000, hookTimeout: 120_000, fileParallelism: false } },
    ],
  },
});
