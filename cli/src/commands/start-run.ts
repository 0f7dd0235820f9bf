import type { Task } from '../experiment/load.js';
import { Interrupts } from '../launch/interrupts.js';
import { WorkerAhead } from '../worker/ahead.js';
import type { ExperimentOptions, FollowOptions } from './options.js';

export type RunOptions = ExperimentOptions & FollowOptions;

/** Starts a run of an experiment and follows it to its end, leaves it to itself (`--detach`), or shows what it would do (`--dry-run`). */
export async function startRun(verb: Task, files: string[], options: RunOptions): Promise<void> {
  if (options.dryRun) {
    const { planExperiment } = await import('./plan-experiment.js');
    return planExperiment(files, options, verb);
  }
  const interrupts = new Interrupts();
  // Python starts while this program still reads its own modules and the experiment.
  const ahead = WorkerAhead.begin({ python: options.python, signal: interrupts.signal });
  try {
    const { runExperiment } = await import('./run-experiment.js');
    await runExperiment(verb, files, { ...options, interrupts, ahead });
  } finally {
    await ahead?.dismiss();
    interrupts.dispose();
  }
}
