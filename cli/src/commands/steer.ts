import { Command, Option } from '../commander.js';
import { fieldHelp } from '../gen/help.js';
import { withExperimentOptions, withFollowOptions } from './options.js';
import type { RunOptions } from './start-run.js';

/** Short forms of fields of the experiment; each is the same as a `--set`. */
export interface SteerOptions extends RunOptions {
  prompt?: string[];
  interactive?: boolean;
  model?: string;
  sae?: string;
  feature?: string[];
  op?: string;
  strength?: string;
  unit?: string;
  phase?: string;
  chat?: boolean;
  maxTokens?: string;
  temperature?: string;
  samples?: string;
  seed?: string;
  baseline: boolean;
}

export function build(): Command {
  const command = withExperimentOptions(new Command('steer'), '[file...]')
    .option('-p, --prompt <text>', 'steer this prompt now and stream the answer; may be repeated', append)
    .option('-i, --interactive', 'read prompts from the terminal, one a line, with the model kept warm')
    .option('-m, --model <name>', 'model (default: embedded, without a file)')
    .option('--sae <name>', 'SAEs: run id, latest, folder, file or repository')
    .option('-f, --feature <layer:id[=strength]>', 'feature to steer; may be repeated', append)
    .addOption(
      new Option('--op <name>', 'what is done to the features').choices([
        'add',
        'set',
        'clamp_min',
        'clamp_max',
        'scale',
        'zero',
        'negate',
      ]),
    )
    .option('-s, --strength <number>', 'strength of features that name none (default: 1)')
    .addOption(new Option('-u, --unit <name>', 'unit of the strengths (default: norm)').choices(['raw', 'max', 'norm']))
    .addOption(new Option('--phase <name>', 'tokens that are edited').choices(['all', 'prompt', 'generated']))
    .option('--chat', 'wrap prompts in the chat template')
    .option('-n, --max-tokens <number>', 'tokens generated at most')
    .option('-t, --temperature <number>', 'sampling temperature; 0 takes the most likely token')
    .option('--samples <number>', 'continuations of each prompt')
    .option('--seed <number>', 'seed of the random numbers')
    .option('--no-baseline', 'do not show the unsteered text beside');
  command.action(async (files: string[], options: SteerOptions) => {
    const { steer } = await import('./steer-actions.js');
    await steer(files, options);
  });
  return withFollowOptions(command).addHelpText(
    'after',
    `
With -p or -i the text is streamed and nothing is kept; without them a file is
run: every arm and strength in it, recorded in a run folder.

Examples:
  qscope steer -f 3:1207=0.5 -p "The installation guide"
  qscope steer -f 3:1207 --op zero --chat -i
  qscope steer configs/embedded/steer.yaml

${fieldHelp.steer}`,
  );
}

function append(value: string, earlier: string[] = []): string[] {
  return [...earlier, value];
}
