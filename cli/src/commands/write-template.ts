import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ExitCode, UserError } from '../errors.js';
import type { Task } from '../experiment/load.js';
import type { Preset } from '../experiment/presets.js';
import { experimentTemplate } from '../experiment/template.js';
import { printNote, writeText } from '../view/output.js';
import type { InitOptions } from './init.js';

/** Writes a commented experiment file, to stdout or to a file that is not there yet. */
export async function writeTemplate(task: Task, { output, force }: InitOptions, preset?: Preset): Promise<void> {
  const schemaFile = fileURLToPath(new URL('../../../configs/schema.json', import.meta.url));
  const file = output ?? 'experiment.yaml';
  const schema = path.relative(path.dirname(path.resolve(file)), schemaFile);
  const text = experimentTemplate(task, { file, schema: schema.startsWith('.') ? schema : `./${schema}`, preset });
  if (output === undefined) {
    writeText('stdout', text);
    return;
  }
  try {
    writeFileSync(output, text, { flag: force ? 'w' : 'wx' });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EEXIST') {
      throw new UserError(`${output} exists already.`, {
        hint: 'Overwrite it with --force.',
        exitCode: ExitCode.usage,
      });
    }
    throw new UserError(`${output} cannot be written (${code ?? String(error)}).`, {
      exitCode: ExitCode.usage,
      cause: error,
    });
  }
  printNote(`Wrote ${output}. Check it with: qscope config check ${output}`);
}
