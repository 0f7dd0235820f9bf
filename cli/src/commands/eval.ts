import { Command } from '../commander.js';
import { fieldHelp } from '../gen/help.js';
import { type EvalShortcuts, evalSettings, MEASURES, type Measure, withEvalShortcuts } from './eval-shortcuts.js';
import { withExperimentOptions, withFollowOptions } from './options.js';
import type { RunOptions } from './start-run.js';

const SUMMARIES: Readonly<Record<Measure, string>> = {
  repeat: 'how often responses loop without end',
  codeswitch: 'how often responses leave their language',
  accuracy: 'how often responses are right',
};

export function build(): Command {
  const command = withEvalShortcuts(withFollowOptions(withExperimentOptions(new Command('eval'), '[file...]')));
  const measures = (files: string[], measure?: Measure) => run(files, command.optsWithGlobals(), measure);
  command.action((files: string[]) => measures(files));
  for (const measure of MEASURES) {
    // The options of `eval` are found wherever they stand, so its children have none of their own.
    command
      .command(measure)
      .description(SUMMARIES[measure])
      .argument('[file...]', 'experiment files; later ones change earlier ones')
      .action((files: string[]) => measures(files, measure))
      .addHelpText('after', help(`eval ${measure}`, measure));
  }
  const note = 'Without a word for what is measured, that is what the file says, or repeat.\n';
  return command.addHelpText('after', `\n${note}${help('eval')}`);
}

async function run(files: string[], options: RunOptions & EvalShortcuts, measure?: Measure): Promise<void> {
  const asked = evalSettings(files, options, measure);
  const { startRun } = await import('./start-run.js');
  await startRun('eval_responses', files, { ...options, asked });
}

function help(name: string, measure: Measure = 'repeat'): string {
  return `
Examples:
  qscope ${name} configs/embedded/eval-${measure}.yaml
  qscope ${name} --responses out.jsonl
  qscope ${name} -m embedded --prompts rows.jsonl --prompt '{question}'

${fieldHelp.eval}`;
}
