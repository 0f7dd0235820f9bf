import { Command } from '../commander.js';
import { fieldHelp } from '../gen/help.js';
import { withInit } from './init.js';
import { withExperimentOptions, withFollowOptions } from './options.js';
import { type SftShortcuts, sftSettings, withSftShortcuts } from './shortcuts.js';
import type { RunOptions } from './start-run.js';

export function build(): Command {
  const command = withSftShortcuts(withFollowOptions(withExperimentOptions(new Command('sft'))));
  command.action(async (files: string[], options: RunOptions & SftShortcuts) => {
    const { startRun } = await import('./start-run.js');
    await startRun('sft', files, { ...options, asked: sftSettings(options) });
  });
  withInit(command, 'sft');
  return command.addHelpText(
    'after',
    `
Examples:
  qscope sft init --preset sasft -o sft.yaml
  qscope sft configs/embedded/sft.yaml --dry-run
  qscope sft configs/embedded/sft.yaml

${fieldHelp.sft}`,
  );
}
