import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { TEMPLATES } from '../../src/commands/config.js';
import { helpModule, helpTexts } from '../../src/experiment/help.js';
import { loadExperiment } from '../../src/experiment/load.js';
import { experimentSchema, experimentSchemaText, type JsonSchema } from '../../src/experiment/schema.js';
import { experimentTemplate, templateCommands } from '../../src/experiment/template.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const read = (name: string) => readFileSync(path.join(root, name), 'utf8');

test('configs/schema.json and gen/help.ts are fresh (npm run generate)', () => {
  expect(read('configs/schema.json')).toBe(experimentSchemaText());
  expect(read('cli/src/gen/help.ts')).toBe(helpModule());
});

describe('every experiment under configs/', () => {
  const files = readdirSync(path.join(root, 'configs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.yaml'))
    .map((name) => path.join('configs', name));
  expect(files.length).toBeGreaterThan(15);
  test.each(files)('%s', async (file) => {
    const text = read(file);
    // Overlays say in their first line what they go over, as the command that runs them.
    const [, base] = /^# Overlay: `qscope \S+ (\S+) /.exec(text) ?? [];
    await loadExperiment(base ? [base, file] : [file], { cwd: root });
    if (base) return;
    expect(faults(parse(text, { merge: true }), schema)).toEqual([]);
    const [, schemaFile] = /^# yaml-language-server: \$schema=(\S+)\n/.exec(text) ?? [];
    expect(path.join(path.dirname(file), schemaFile ?? '')).toBe('configs/schema.json');
  });
});

const schema = experimentSchema();

test('the schema refuses what the reader refuses', () => {
  const train = (task: unknown) => faults({ model: 'embedded', train_sae: task }, schema);
  expect(train({})).toEqual([]);
  expect(train(null)).toEqual([]);
  expect(train({ kernel: 'sparse', layers: [0, 1], optimizer: { epsilon: 1e-9 } })).toEqual([]);
  expect(train({ kernl: 'sparse' })).not.toEqual([]);
  expect(train({ kernel: 'Sparse' })).not.toEqual([]);
  expect(train({ sae: { k: 0 } })).not.toEqual([]);
  expect(train({ sae: { k: 1.5 } })).not.toEqual([]);
  expect(train({ layers: [1, 1] })).not.toEqual([]);
  expect(train({ formats: [] })).not.toEqual([]);
  expect(train({ aux_k: { token_share: 0 } })).not.toEqual([]);
  expect(train({ filter: { drop_first_token: 'yes' } })).not.toEqual([]);
  expect(faults({ train_sae: {} }, schema)).not.toEqual([]);
  expect(faults({ model: 'embedded' }, schema)).not.toEqual([]);
  expect(faults({ model: 'embedded', train_sae: {}, eval_sae: { sae: 'x' } }, schema)).not.toEqual([]);
  expect(faults({ model: 'embedded', name: 'a b', train_sae: {} }, schema)).not.toEqual([]);
  expect(faults({ extends: './base.yaml', seed: 3 }, schema)).toEqual([]);
});

test('config init offers a template for every task', () => {
  expect([...TEMPLATES].sort()).toEqual(Object.keys(templateCommands).sort());
});

test('every template is valid and names every field', () => {
  for (const task of Object.values(templateCommands)) {
    const text = experimentTemplate(task, { file: 'e.yaml', schema: './schema.json' });
    expect(text.split('\n')[0]).toBe('# yaml-language-server: $schema=./schema.json');
    expect(faults(parse(text), schema)).toEqual([]);
    expect(text).not.toMatch(/ $/m);
  }
});

test('help pages fit 80 columns and show every field of their task', () => {
  const pages = helpTexts();
  expect(Object.keys(pages)).toEqual([
    'train-sae',
    'eval-sae',
    ...['extract', 'contrast', 'top', 'language', 'repetition', 'diagnose', 'explain'].map(
      (verb) => `features ${verb}`,
    ),
    'steer',
    'bench-redundancy',
    'classify',
    'classify apply',
    'synthesize',
    'sft',
    'rl',
    'eval',
  ]);
  for (const page of Object.values(pages)) {
    for (const line of page.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  }
  expect(pages['train-sae']).toContain('      k: 50                       Features kept per token (L0)\n');
  expect(pages['train-sae']).not.toContain('eval_sae:');
  expect(pages['eval-sae']).toContain('    sae: (required)');
  expect(pages.rl).toContain('      temperature: 1              Sampling temperature');
  expect(pages.sft).toContain('    sae_loss:                     (left out unless named)');
});

/** The part of JSON Schema draft 7 that our schema uses, as plainly as possible. */
function faults(value: unknown, node: JsonSchema, at = '$'): string[] {
  const checks: { [keyword: string]: (argument: never) => boolean | string[] } = {
    $ref: (ref: string) => faults(value, (schema.definitions as never)[ref.replace('#/definitions/', '')], at),
    anyOf: (nodes: JsonSchema[]) => nodes.some((one) => faults(value, one, at).length === 0),
    oneOf: (nodes: JsonSchema[]) => nodes.filter((one) => faults(value, one, at).length === 0).length === 1,
    allOf: (nodes: JsonSchema[]) => nodes.flatMap((one) => faults(value, one, at)),
    type: (type: string) => types[type]?.(value) ?? false,
    enum: (values: unknown[]) => values.includes(value),
    minimum: (bound: number) => Number(value) >= bound,
    maximum: (bound: number) => Number(value) <= bound,
    exclusiveMinimum: (bound: number) => Number(value) > bound,
    exclusiveMaximum: (bound: number) => Number(value) < bound,
    pattern: (pattern: string) => new RegExp(pattern).test(String(value)),
    minLength: (length: number) => String(value).length >= length,
    minItems: (count: number) => (value as unknown[]).length >= count,
    maxItems: (count: number) => (value as unknown[]).length <= count,
    uniqueItems: () => new Set(value as unknown[]).size === (value as unknown[]).length,
    items: (item: JsonSchema) => (value as unknown[]).flatMap((one, index) => faults(one, item, `${at}[${index}]`)),
    required: (names: string[]) => names.every((name) => name in (value as object)),
    properties: (fields: Record<string, JsonSchema>) =>
      Object.entries(fields).flatMap(([name, field]) =>
        name in (value as object) ? faults((value as never)[name], field, `${at}.${name}`) : [],
      ),
    additionalProperties: () => Object.keys(value as object).every((name) => name in (node.properties as object)),
  };
  const notes = ['$schema', 'title', 'description', 'default', 'definitions'];
  const result: string[] = [];
  for (const [keyword, argument] of Object.entries(node)) {
    if (notes.includes(keyword)) continue;
    const check = checks[keyword];
    if (!check) throw new Error(`the test knows no keyword ${keyword}`);
    const outcome = check(argument as never);
    if (outcome === false) return [...result, `${at}: ${keyword}`];
    if (Array.isArray(outcome)) result.push(...outcome);
  }
  return result;
}

const types: Record<string, (value: unknown) => boolean> = {
  object: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  array: Array.isArray,
  string: (value) => typeof value === 'string',
  boolean: (value) => typeof value === 'boolean',
  number: (value) => typeof value === 'number',
  integer: Number.isInteger,
  null: (value) => value === null,
};
