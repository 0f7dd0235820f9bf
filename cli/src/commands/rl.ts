import { Command } from '../commander.js';
import { fieldHelp } from '../gen/help.js';
import { withInit } from './init.js';
import { withExperimentOptions, withFollowOptions } from './options.js';
import { type RlShortcuts, rlSettings, withRlShortcuts } from './shortcuts.js';
import type { RunOptions } from './start-run.js';

export function build(): Command {
  const command = withRlShortcuts(withFollowOptions(withExperimentOptions(new Command('rl'))));
  command.action(async (files: string[], options: RunOptions & RlShortcuts) => {
    const { startRun } = await import('./start-run.js');
    await startRun('rl', files, { ...options, asked: rlSettings(options) });
  });
  withInit(command, 'rl');
  return command.addHelpText(
    'after',
    `
Examples:
  qscope rl init --preset dapo-rare-negative -o rl.yaml
  qscope rl configs/embedded/rl.yaml --dry-run
  qscope rl configs/embedded/rl.yaml

${fieldHelp.rl}`,
  );
}
