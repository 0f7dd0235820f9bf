import { Command } from '../commander.js';
import { withWorkerOptions } from './options.js';

/** The actions of this command; read when one is called. */
const actions = () => import('./worker-actions.js');

export function build(): Command {
  const command = new Command('worker');
  withWorkerOptions(command.command('start').description('start a worker that stays until it is stopped')).action(
    async (options) => (await actions()).start(options),
  );
  command
    .command('status')
    .description('show the background worker; exit code 69 when there is none')
    .option('--json', 'write one JSON object')
    .action(async (options) => (await actions()).status(options));
  command
    .command('stop')
    .description('end the background worker; runs started with --detach go on')
    .option('--cancel-runs', 'stop those as well, each with a checkpoint')
    .action(async (options) => (await actions()).stop(options));
  return command;
}
