import { Command } from '../commander.js';
import { fieldHelp } from '../gen/help.js';
import { withExperimentOptions, withFollowOptions } from './options.js';
import type { RunOptions } from './start-run.js';

export function build(): Command {
  const command = new Command('rl').action(async (files: string[], options: RunOptions) => {
    const { startRun } = await import('./start-run.js');
    await startRun('rl', files, options);
  });
  return withFollowOptions(withExperimentOptions(command)).addHelpText(
    'after',
    `
Example:
  qscope rl configs/embedded/rl.yaml

${fieldHelp.rl}`,
  );
}
