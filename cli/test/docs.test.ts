import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { DescEnum, DescMessage } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { enumNames } from '../src/experiment/fields.js';
import { GraderKindSchema, RareNegativeSchema, RlSchema } from '../src/gen/qscope/v1/rl_pb.js';
import { SaeLossSchema, SftArmSchema, SftSchema } from '../src/gen/qscope/v1/sft_pb.js';
import { ROOT } from './support/cli.js';

test('every relative link of the README and the docs leads somewhere', () => {
  const docs = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
  const pages = ['README.md', ...docs.map((name) => join('docs', name))];
  const links = pages.flatMap((page) =>
    [...readFileSync(join(ROOT, page), 'utf8').matchAll(/\]\(([^)#\s]+)/g)]
      .map((match) => match[1] as string)
      .filter((link) => !link.startsWith('http'))
      .map((link) => ({ page, link })),
  );
  expect(links.length).toBeGreaterThan(10);
  expect(links.filter(({ page, link }) => !existsSync(join(ROOT, dirname(page), link)))).toEqual([]);
});

test('the pages of sft and rl name every field, arm and grader there is', () => {
  const missing = (page: string, names: Iterable<string>) => {
    const text = readFileSync(join(ROOT, 'docs', page), 'utf8');
    return [...names].filter((name) => !new RegExp(`\\b${name}\\b`).test(text));
  };
  const fields = ({ fields }: DescMessage) => fields.map(({ name }) => name);
  const words = (of: DescEnum) => [...enumNames(of).keys()].map((name) => name.replaceAll('_', '-'));
  expect(missing('sft.md', [...fields(SftSchema), ...fields(SaeLossSchema), ...words(SftArmSchema)])).toEqual([]);
  expect(missing('rl.md', [...fields(RlSchema), ...fields(RareNegativeSchema), ...words(GraderKindSchema)])).toEqual(
    [],
  );
});
