import { Command, CommanderError, type OutputConfiguration } from './commander.js';
import { ExitCode, UserError } from './errors.js';
import { version } from './version.js';
import { forbidColour, hasColour, printNote, writeText } from './view/output.js';

/**
 * Every command, in the order of the help. The module `commands/NAME.js` is only read when its command is called:
 * all of them together would make `qscope --help` four times as slow.
 */
const COMMANDS: ReadonlyArray<readonly [name: string, summary: string]> = [
  ['train-sae', 'train sparse autoencoders on the layers of a model'],
  ['eval-sae', 'measure trained sparse autoencoders on held-out text'],
  ['features', 'find features and see where they fire'],
  ['steer', 'change what a model writes by its features, beside controls'],
  ['bench-redundancy', 'measure what benchmarks repeat and share, from inside'],
  ['classify', 'tell a labelled attribute by features, beside baselines'],
  ['synthesize', 'write data for the features that a data set misses'],
  ['sft', 'fine-tune, with an SAE loss against code-switching'],
  ['rl', 'learn from rewards, with rare negatives against loops'],
  ['eval', 'measure responses: loops, code-switching, right answers'],
  ['plan', 'show what an experiment does and needs, without starting it'],
  ['runs', 'list, show, watch, stop and resume runs'],
  ['report', 'write a run as one HTML page'],
  ['config', 'check, show and create experiment files'],
  ['worker', 'start, inspect and stop the background worker'],
  ['doctor', 'check this installation'],
];

interface CommandModule {
  build(): Command;
}

/** Runs the command line and sets the exit code of the process. */
export async function main(argv: readonly string[]): Promise<void> {
  const args = argv.slice(2);
  if (args.includes('--no-color')) forbidColour();
  try {
    const program = await buildProgram(args);
    if (args.length === 0) program.help({ error: true });
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    process.exitCode = report(error);
  }
}

async function buildProgram(args: readonly string[]): Promise<Command> {
  const program = new Command('qscope')
    .description('Sparse features of Qwen language models as development tools.')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .option('--no-color', 'write no colours (so does the variable NO_COLOR)')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput(terminal)
    .exitOverride()
    .showHelpAfterError('Run with --help for the options.');
  const wanted = namedCommand(args);
  for (const [name, summary] of COMMANDS) {
    const command = name === wanted ? await load(name) : new Command(name);
    inherit(command.description(summary), program);
    program.addCommand(command);
  }
  return program;
}

const terminal: OutputConfiguration = {
  writeOut: (text) => writeText('stdout', text),
  writeErr: (text) => writeText('stderr', text),
  getOutHasColors: () => hasColour('stdout'),
  getErrHasColors: () => hasColour('stderr'),
};

/** The command that is called or asked about; global flags take no values, so it is the first word. */
function namedCommand(args: readonly string[]): string | undefined {
  const words = args.filter((arg) => !arg.startsWith('-'));
  return words[0] === 'help' ? words[1] : words[0];
}

async function load(name: string): Promise<Command> {
  const module: CommandModule = await import(`./commands/${name}.js`);
  return module.build();
}

/** `addCommand` does not hand settings down as `command()` does. */
function inherit(command: Command, parent: Command): void {
  command.copyInheritedSettings(parent);
  for (const child of command.commands) inherit(child, command);
}

/** Shows an error once, in the form its kind deserves, and returns the exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.ok : ExitCode.usage;
  if (error instanceof UserError) {
    printNote(error.render());
    return error.exitCode;
  }
  printNote(error instanceof Error ? (error.stack ?? error.message) : String(error));
  if (error instanceof Error && error.cause) printNote(`Caused by: ${String(error.cause)}`);
  printNote(
    `This is a bug in qscope ${version()} (node ${process.version}, ${process.platform}). Please report it with the lines above.`,
  );
  return ExitCode.internal;
}
