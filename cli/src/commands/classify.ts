import { Command } from '../commander.js';
import type { Task } from '../experiment/load.js';
import { fieldHelp } from '../gen/help.js';
import { withExperimentOptions, withFollowOptions } from './options.js';
import type { RunOptions } from './start-run.js';

export function build(): Command {
  const command = withFollowOptions(withExperimentOptions(new Command('classify')));
  // The options of `classify` are found wherever they stand, behind `apply` too, so `apply` has none of its own.
  const apply = command
    .command('apply')
    .description('run a saved classifier over texts, in order')
    .argument('<file...>', 'experiment files; later ones change earlier ones');
  runs(command, 'classify', 'classify', 'classify');
  runs(apply, 'apply_classifier', 'classify apply', 'classify-apply');
  return command;
}

/** Lets a command run its task, and describes the task's fields below its help. */
function runs(command: Command, task: Task, name: string, config: string): void {
  command.action(async (files: string[]) => {
    const { startRun } = await import('./start-run.js');
    await startRun(task, files, command.optsWithGlobals<RunOptions>());
  });
  command.addHelpText(
    'after',
    `
Example:
  qscope ${name} configs/embedded/${config}.yaml

${fieldHelp[name]}`,
  );
}
