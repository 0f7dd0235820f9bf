import { Command } from '../commander.js';
import { fieldHelp } from '../gen/help.js';
import { withExperimentOptions, withFollowOptions } from './options.js';
import type { RunOptions } from './start-run.js';

export function build(): Command {
  const command = new Command('train-sae').action(async (files: string[], options: RunOptions) => {
    const { startRun } = await import('./start-run.js');
    await startRun('train_sae', files, options);
  });
  return withFollowOptions(withExperimentOptions(command)).addHelpText(
    'after',
    `
Example:
  qscope train-sae configs/embedded/train-sae.yaml --set train_sae.sae.k=16

${fieldHelp['train-sae']}`,
  );
}
