import { type Command, InvalidArgumentError } from '../commander.js';
import type { Setting } from '../experiment/overlay.js';

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
  /** What options of the verb stand for. */
  asked?: readonly Setting[];
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
  dryRun?: boolean;
  detach?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function withFollowOptions(command: Command): Command {
  return command
    .option('--dry-run', 'show what it does and needs, and start nothing (as qscope plan)')
    .option('-d, --detach', 'leave the run to itself and return at once')
    .option('--json', 'write the events of the run as JSON lines')
    .option('-q, --quiet', 'show warnings and failures only');
}

/** What options ask for, as the reader takes it; `--set` goes over what other options stand for. */
export function settings({ asked = [], set = [], name }: ExperimentOptions): Setting[] {
  return [...asked, ...set, ...(name === undefined ? [] : [`name=${JSON.stringify(name)}`])];
}

function collect(value: string, earlier: string[] = []): string[] {
  if (!value.includes('=')) throw new InvalidArgumentError('It needs the form path=value.');
  return [...earlier, value];
}
