import { join } from 'node:path';
import { expect, test } from 'vitest';
import { commandOfRun } from '../../src/experiment/command.js';
import { tasks } from '../../src/experiment/fields.js';
import { ROOT } from '../support/cli.js';

test.each(tasks().map(({ name }) => name))('the command told of a run of %s exists', async (task) => {
  // As a run's record names it.
  const [verb, ...words] = commandOfRun({ verb: task.replaceAll('_', '-') }).split(' ') as [string, ...string[]];
  const { build } = (await import(join(ROOT, 'cli/src/commands', `${verb}.ts`))) as {
    build(): { name(): string; commands: { name(): string }[] };
  };
  const command = build();
  expect(command.name()).toBe(verb);
  if (words.length) expect(command.commands.map((one) => one.name())).toContain(words.join(' '));
});
