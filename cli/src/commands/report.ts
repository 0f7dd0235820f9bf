import { Command, Option } from '../commander.js';
import { withRunsOptions } from './options.js';
import type { ReportOptions } from './write-report.js';

export function build(): Command {
  const command = new Command('report')
    .argument('<run>', 'run id, its unique beginning, "latest", or the folder of a run')
    .option('-o, --output <file>', 'file to write (default: report.html in the run folder)')
    .option('--open', 'open the page when it is written')
    .addOption(
      new Option('--json', 'write what the page shows as one JSON object to stdout').conflicts(['output', 'open']),
    )
    .action(async (run: string, options: ReportOptions) => {
      const { writeReport } = await import('./write-report.js');
      await writeReport(run, options);
    });
  return withRunsOptions(command).addHelpText(
    'after',
    `
The page is one file that needs nothing beside it and contacts nobody: attach it, archive it.
A run that still works is reported as it is now.

Example:
  qscope report latest --open`,
  );
}
