import { type Experiment, ExperimentSchema } from '../gen/qscope/v1/experiment_pb.js';
import { SftArm } from '../gen/qscope/v1/sft_pb.js';
import { commandOf } from './command.js';
import { Diagnostics } from './diagnostic.js';
import { emitYaml } from './emit.js';
import { tasks } from './fields.js';
import { readFileTree, readSetTree, type Setting } from './overlay.js';
import { nearestPlace, type ReadContext, readMessage } from './read.js';
import type { At, Source } from './source.js';
import { merge, type Tree } from './tree.js';
import { validate } from './validate.js';

type SnakeCase<Name> = Name extends `${infer Head}${infer Tail}`
  ? `${Head extends Lowercase<Head> ? Head : `_${Lowercase<Head>}`}${SnakeCase<Tail>}`
  : Name;

/** Name of a task field as the files write it: "train_sae". */
export type Task = SnakeCase<NonNullable<Experiment['task']['case']>>;

export interface Place {
  file: string;
  line: number;
  column: number;
}

/** Where a value came from, for people. */
export type ValueOrigin = { kind: 'default' } | ({ kind: 'file' | 'set'; variable?: string } & Place);

export interface LoadOptions {
  /** `PATH=VALUE` texts, each over all files and over those before it. */
  set?: readonly Setting[];
  /** Task that the command at hand can run. */
  verb?: Task;
  /** Folder against which the file names and the paths in `set` are resolved. */
  cwd?: string;
  /** Variables for `${env:NAME}`. */
  environment?: NodeJS.ProcessEnv;
}

export interface LoadedExperiment {
  /** Complete (every default filled in) and valid. */
  experiment: Experiment;
  /** The files as they were written; several are joined, lowest first, each under its name. */
  sourceText: string;
  /** The complete experiment as YAML. */
  resolvedYaml: string;
  /** Field path to where its value came from. */
  origins: ReadonlyMap<string, ValueOrigin>;
  /** Place of a field, or of the nearest group above it that a file names. */
  locate(fieldPath: string): Place | undefined;
}

/**
 * Reads experiment files, later ones over earlier ones, fills in the defaults and checks the result.
 *
 * @throws ExperimentError with every fault found, each with its place; exit code 65.
 */
export async function loadExperiment(files: readonly string[], options: LoadOptions = {}): Promise<LoadedExperiment> {
  const { set = [], verb, cwd = process.cwd(), environment = process.env } = options;
  const diagnostics = new Diagnostics();
  const sources: Source[] = [];
  const reading = { cwd, diagnostics, sources, meant: new Set<string>(), incomplete: false };

  const trees: (Tree | undefined)[] = files.map((file) => readFileTree(file, reading));
  trees.push(readSetTree(set, ExperimentSchema, reading));
  const [first, ...others] = trees.filter((tree) => tree !== undefined);
  if (!first) {
    diagnostics.throwIfAny();
    throw new Error('loadExperiment needs a file');
  }
  const tree = others.reduce<Tree>(merge, first);

  const { meant, incomplete } = reading;
  const origins: ReadContext['origins'] = new Map();
  const places: ReadContext['places'] = new Map([['', first.at]]);
  const context: ReadContext = { diagnostics, meant, incomplete, environment, cwd, origins, places };
  const experiment = readMessage(ExperimentSchema, tree, '', context) as Experiment;
  checkTask(experiment, verb, context);
  checkArm(experiment, context);
  await validate(ExperimentSchema, experiment, context);
  diagnostics.throwIfAny();

  return {
    experiment,
    sourceText: joinSources(sources, set),
    resolvedYaml: emitYaml(ExperimentSchema, experiment),
    origins: describeOrigins(context),
    locate: (fieldPath) => {
      const at = nearestPlace(fieldPath, context.places);
      return at && placeOf(at);
    },
  };
}

function checkTask(experiment: Experiment, verb: Task | undefined, { diagnostics, places }: ReadContext): void {
  const given = tasks().find(({ field }) => field.localName === experiment.task.case);
  if (given && verb !== undefined && given.name !== verb) {
    const message = `this is an experiment for qscope ${given.command}, not for qscope ${commandOf(verb)}`;
    diagnostics.add(places.get(given.name) as At, given.name, message, `run it with qscope ${given.command}`);
  }
}

/** The arm of the SAE loss is also the default of files without one, which are plain SFT: who asks for it means it. */
function checkArm({ task }: Experiment, { diagnostics, origins, places }: ReadContext): void {
  if (task.case !== 'sft' || task.value.arm !== SftArm.SAE || task.value.saeLoss) return;
  if (origins.get('sft.arm')?.kind !== 'given') return;
  const message = 'the SAE loss needs sft.sae_loss: its SAEs, the features of the languages, and which languages';
  diagnostics.add(places.get('sft.arm') as At, 'sft.arm', message, 'add sae_loss, or ask for the arm plain');
}

function joinSources(sources: readonly Source[], settings: readonly Setting[]): string {
  const set = settings.map((setting) => (typeof setting === 'string' ? setting : setting.setting));
  if (sources.length === 1 && set.length === 0) return (sources[0] as Source).text;
  const notes = set.map((setting) => `# --set ${setting.replaceAll('\n', '\n# ')}\n`).join('');
  const texts = sources.map(({ file, text }) => `# ${file}\n${text}${text.endsWith('\n') || text === '' ? '' : '\n'}`);
  return texts.join('---\n') + notes;
}

function placeOf({ source, offset }: At): Place {
  return { file: source.file, ...source.position(offset) };
}

function describeOrigins({ origins }: ReadContext): Map<string, ValueOrigin> {
  return new Map(
    [...origins].map(([path, origin]): [string, ValueOrigin] => {
      if (origin.kind === 'default') return [path, origin];
      const { at, variable } = origin;
      const kind = at.source.isOption ? 'set' : 'file';
      return [path, { kind, ...placeOf(at), ...(variable === undefined ? {} : { variable }) }];
    }),
  );
}
