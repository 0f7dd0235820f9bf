import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ROOT } from './support/cli.js';

const SRC = join(ROOT, 'cli/src');
const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts') && !name.startsWith('gen/'))
  .map((name) => ({ name, text: readFileSync(join(SRC, name), 'utf8') }));

const offenders = (pattern: RegExp, allowed: RegExp) =>
  files.filter(({ name, text }) => pattern.test(text) && !allowed.test(name)).map(({ name }) => name);

/** Modules that a file reads when it is read itself; those behind `import()` and types are not. */
function staticImports(text: string): string[] {
  const withoutTypes = text.replace(/import type [^;]+;/g, '');
  const imports = /^(?:import|export)\s[^;]*?(?:from '([^']+)'|= require\('([^']+)'\));/gm;
  return [...withoutTypes.matchAll(imports)].map(([, module, required]) => (module ?? required) as string);
}

test('only view/ writes to the terminal', () => {
  expect(offenders(/\bconsole\.|\bstd(out|err)\.write|from 'ora'|import\('ora'\)/, /^view\//)).toEqual([]);
});

test('only worker/ and launch/ start processes', () => {
  expect(offenders(/'(node:)?child_process'|'execa'/, /^(worker|launch)\//)).toEqual([]);
});

test('only worker/ speaks gRPC', () => {
  expect(offenders(/'@grpc\/grpc-js'/, /^worker\//)).toEqual([]);
});

test('commander is required once, in commander.ts', () => {
  expect(offenders(/'commander'/, /^commander\.ts$/)).toEqual([]);
});

test('what --help reads is light: no protobuf, gRPC, YAML or terminal library', () => {
  const commands = files.filter(({ text }) => /export function build\(\): Command/.test(text));
  expect(commands.length).toBeGreaterThan(5);
  const byName = new Map(files.map(({ name, text }) => [name, text]));
  for (const { name } of [...commands, { name: 'main.ts' }]) {
    const packages = new Set<string>();
    const seen = new Set<string>();
    const visit = (file: string) => {
      if (seen.has(file)) return;
      seen.add(file);
      for (const target of staticImports(byName.get(file) ?? '')) {
        if (target.startsWith('.')) visit(join(file, '..', target.replace(/\.js$/, '.ts')));
        else if (!target.startsWith('node:')) packages.add(target);
      }
    };
    visit(name);
    expect({ name, packages: [...packages] }).toEqual({ name, packages: ['commander'] });
  }
});
