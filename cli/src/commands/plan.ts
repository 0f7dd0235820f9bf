import { Command } from '../commander.js';
import { type ExperimentOptions, withExperimentOptions } from './options.js';

export interface PlanOptions extends ExperimentOptions {
  json?: boolean;
}

export function build(): Command {
  const command = new Command('plan').action(async (files: string[], options: PlanOptions) => {
    const { planExperiment } = await import('./plan-experiment.js');
    await planExperiment(files, options);
  });
  return withExperimentOptions(command).option('--json', 'write the plan as one JSON object');
}
