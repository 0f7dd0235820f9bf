#!/usr/bin/env node
import('../dist/main.js').then(
  ({ main }) => main(process.argv),
  (error) => {
    if (error?.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    process.stderr.write('qscope is not built yet: run `npm run setup` in its folder first.\n');
    process.exitCode = 69;
  },
);
