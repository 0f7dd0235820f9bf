import { Command } from '../commander.js';
import { withFollowOptions, withRunsOptions } from './options.js';

/** The actions of this command; read when one is called. */
const actions = () => import('./runs-actions.js');

const RUN = 'run id, its unique beginning, or "latest"';

export function build(): Command {
  const command = new Command('runs');
  const verb = (name: string, summary: string) => {
    const child = command.command(name).description(summary);
    return withRunsOptions(name === 'list' ? child : child.argument('<run>', RUN));
  };

  verb('list', 'list the runs, newest first')
    .option('--json', 'write one JSON object per run')
    .action(async (options) => (await actions()).list(options));
  verb('show', 'show one run')
    .option('--json', 'write the run as one JSON object')
    .action(async (run, options) => (await actions()).show(run, options));
  verb('watch', 'follow a run; Ctrl-C leaves it alone')
    .option('--json', 'write the events of the run as JSON lines')
    .option('-q, --quiet', 'show warnings and failures only')
    .action(async (run, options) => (await actions()).watch(run, options));
  verb('logs', 'print the log of a run')
    .option('-f, --follow', 'go on until the run ends')
    .action(async (run, options) => (await actions()).logs(run, options));
  verb('cancel', 'stop a run after a checkpoint')
    .option('--now', 'stop at once, without a checkpoint')
    .action(async (run, options) => (await actions()).cancel(run, options));
  withFollowOptions(verb('resume', 'go on with a run that stopped')).action(async (run, options) =>
    (await actions()).resume(run, options),
  );
  return command;
}
