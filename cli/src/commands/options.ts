import { type Command, InvalidArgumentError } from '../commander.js';

/** Options of every command that talks to a worker. */
export interface WorkerOptions {
  python?: string;
}

/** Options of every command that reads or writes run folders. */
export interface RunsOptions extends WorkerOptions {
  runsDir: string;
}

/** Options of every command that reads an experiment. */
export interface ExperimentOptions extends RunsOptions {
  set?: string[];
  name?: string;
}

export function withWorkerOptions(command: Command): Command {
  return command.option(
    '--python <path>',
    'Python that runs the worker (default: QSCOPE_PYTHON, else the one of npm run setup)',
  );
}

export function withRunsOptions(command: Command): Command {
  const folder = process.env.QSCOPE_RUNS || 'runs';
  return withWorkerOptions(command.option('--runs-dir <folder>', 'folder of the runs (variable QSCOPE_RUNS)', folder));
}

export function withExperimentOptions(command: Command, files = '<file...>'): Command {
  command
    .argument(files, 'experiment files; later ones change earlier ones')
    .option('--set <path=value>', 'change a value, for example train_sae.sae.k=64; may be repeated', collect)
    .option('--name <name>', 'name of the run');
  return withRunsOptions(command);
}

/** Options of every command that follows a run. */
export interface FollowOptions {
  detach?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function withFollowOptions(command: Command): Command {
  return command
    .option('-d, --detach', 'leave the run to itself and return at once')
    .option('--json', 'write the events of the run as JSON lines')
    .option('-q, --quiet', 'show warnings and failures only');
}

/** What `--set` and `--name` ask for, as the reader takes it. */
export function settings({ set = [], name }: ExperimentOptions): string[] {
  return name === undefined ? set : [...set, `name=${JSON.stringify(name)}`];
}

function collect(value: string, earlier: string[] = []): string[] {
  if (!value.includes('=')) throw new InvalidArgumentError('It needs the form path=value.');
  return [...earlier, value];
}
