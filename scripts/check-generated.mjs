// Fails when `npm run generate` would change a committed file.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const folders = ['cli/src/gen', 'backend-py/qscope/v1'];
const before = fingerprint();
execFileSync(process.execPath, ['scripts/generate.mjs'], { stdio: 'inherit' });
const after = fingerprint();
const changed = [...new Set([...before.keys(), ...after.keys()])].filter(
  (file) => before.get(file) !== after.get(file),
);
if (changed.length > 0) {
  process.stderr.write(
    `These generated files are stale; commit what \`npm run generate\` made of them:\n${changed.map((file) => `  ${file}\n`).join('')}`,
  );
  process.exitCode = 1;
}

function fingerprint() {
  const files = new Map();
  const visit = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const file = path.join(folder, entry.name);
      if (entry.isDirectory()) {
        if (entry.name !== '__pycache__') visit(file);
      } else files.set(file, createHash('sha256').update(readFileSync(file)).digest('hex'));
    }
  };
  for (const folder of folders) visit(folder);
  return files;
}
