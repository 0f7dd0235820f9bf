import { Argument, Command } from '../commander.js';
import type { ValueOrigin } from '../experiment/load.js';
import { printJson, printNote, writeText } from '../view/output.js';
import type { InitOptions } from './init.js';
import {
  type RlShortcuts,
  rlSettings,
  type SftShortcuts,
  sftSettings,
  withRlShortcuts,
  withSftShortcuts,
} from './shortcuts.js';

/** What `config init` writes a file for: the name of a task. */
export const TEMPLATES = [
  'train-sae',
  'eval-sae',
  'extract-features',
  'contrast-features',
  'top-features',
  'language-features',
  'repetition-features',
  'diagnose-features',
  'explain-features',
  'steer',
  'bench-redundancy',
  'classify',
  'apply-classifier',
  'synthesize',
  'sft',
  'rl',
  'eval-responses',
];

/** `qscope config check|show|schema|init`. */
export function build(): Command {
  const config = new Command('config');
  config
    .command('check')
    .description('check experiment files, later ones over earlier ones, and show every fault')
    .argument('<file...>', 'YAML files')
    .option('--set <path=value>', 'set one field; may be given several times', collect, [])
    .option('--json', 'print the faults as JSON', false)
    .action(check);
  const showing = config
    .command('show')
    .description('print the complete experiment with the origin of every value')
    .argument('<file...>', 'YAML files')
    .option('--set <path=value>', 'set one field; may be given several times', collect, [])
    .action(show);
  withRlShortcuts(withSftShortcuts(showing));
  config
    .command('schema')
    .description('print the JSON Schema of experiment files, for editors')
    .action(async () => {
      const { experimentSchemaText } = await import('../experiment/schema.js');
      writeText('stdout', experimentSchemaText());
    });
  config
    .command('init')
    .description('write a commented experiment file with every field and its default')
    .addArgument(new Argument('[command]', 'what the experiment is for').choices(TEMPLATES).default('train-sae'))
    .option('-o, --output <file>', 'file to write; without it the text goes to stdout')
    .option('--force', 'overwrite the file', false)
    .action(init);
  return config;
}

function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}

async function check(files: string[], { set, json }: { set: string[]; json: boolean }): Promise<void> {
  const { ExperimentError, toJson } = await import('../experiment/diagnostic.js');
  const { loadExperiment } = await import('../experiment/load.js');
  try {
    const { experiment } = await loadExperiment(files, { set });
    if (json) printJson({ valid: true, diagnostics: [] });
    else printNote(`${files.join(' + ')}: valid, experiment "${experiment.name}"`);
  } catch (error) {
    if (!json || !(error instanceof ExperimentError)) throw error;
    printJson({ valid: false, diagnostics: toJson(error.diagnostics), omitted: error.omitted });
    process.exitCode = error.exitCode;
  }
}

async function show(files: string[], options: { set: string[] } & SftShortcuts & RlShortcuts): Promise<void> {
  const { set } = options;
  const { loadExperiment } = await import('../experiment/load.js');
  const { emitYaml } = await import('../experiment/emit.js');
  const { ExperimentSchema } = await import('../gen/qscope/v1/experiment_pb.js');
  const asked = [...sftSettings(options), ...rlSettings(options)];
  const { experiment, origins } = await loadExperiment(files, { set: [...asked, ...set] });
  const text = emitYaml(ExperimentSchema, experiment, (fieldPath) => {
    const origin = origins.get(fieldPath);
    return origin ? { behind: describe(origin, set) } : {};
  });
  writeText('stdout', text);
}

function describe(origin: ValueOrigin, set: readonly string[]): string {
  if (origin.kind === 'default') return 'default';
  const variable = origin.variable === undefined ? '' : ` from the variable ${origin.variable}`;
  if (origin.kind === 'set') {
    const which = origin.file === '--set' && set.length > 1 ? ` (number ${origin.line})` : '';
    return `${origin.file}${which}${variable}`;
  }
  return `${origin.file}:${origin.line}${variable}`;
}

async function init(command: string, output: InitOptions): Promise<void> {
  const { templateCommands } = await import('../experiment/template.js');
  const { writeTemplate } = await import('./write-template.js');
  const task = templateCommands[command];
  if (!task) throw new Error(`no template for ${command}`);
  await writeTemplate(task, output);
}
