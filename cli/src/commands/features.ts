import { Command } from '../commander.js';
import type { Task } from '../experiment/load.js';
import { fieldHelp } from '../gen/help.js';
import { withExperimentOptions, withFollowOptions } from './options.js';
import type { RunOptions } from './start-run.js';

/** The verbs below `qscope features`: each runs the task of its name. */
const VERBS: ReadonlyArray<readonly [verb: string, task: Task, summary: string]> = [
  ['extract', 'extract_features', 'write the codes of every token and layer to disk'],
  ['contrast', 'contrast_features', 'find features that tell positive documents from negative ones'],
  ['diagnose', 'diagnose_features', 'find the features that drove bad responses'],
  ['top', 'top_features', 'show where given features fire most'],
  ['explain', 'explain_features', 'label features, and score the labels by detection'],
  ['language', 'language_features', 'find the features of languages (nu), and their alphas'],
  ['repetition', 'repetition_features', 'find the features that rise while text repeats itself'],
];

export function build(): Command {
  const command = new Command('features');
  for (const [verb, task, summary] of VERBS) {
    const child = command
      .command(verb)
      .description(summary)
      .action(async (files: string[], options: RunOptions) => {
        const { startRun } = await import('./start-run.js');
        await startRun(task, files, options);
      });
    withFollowOptions(withExperimentOptions(child)).addHelpText(
      'after',
      `
Example:
  qscope features ${verb} configs/embedded/features-${verb}.yaml

${fieldHelp[`features ${verb}`]}`,
    );
  }
  return command;
}
