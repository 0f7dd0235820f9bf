import { Command } from '../commander.js';
import { type RunsOptions, withRunsOptions } from './options.js';

export interface DoctorOptions extends RunsOptions {
  json?: boolean;
}

export function build(): Command {
  const command = new Command('doctor').option('--json', 'write one JSON object per check');
  return withRunsOptions(command).action(async (options: DoctorOptions) => {
    const { examine } = await import('./doctor-checks.js');
    await examine(options);
  });
}
