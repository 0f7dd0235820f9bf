import { readFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { fromJsonString } from '@bufbuild/protobuf';
import { ExitCode, UserError } from './errors.js';
import { type Experiment, ExperimentSchema } from './gen/qscope/v1/experiment_pb.js';

/**
 * The run folder as this side reads it; its layout is that of backend-py/qscope/runs/folder.py. What a run is doing is
 * asked from the worker, never read here.
 */

export function logFile(folder: string): string {
  return join(folder, 'run.log');
}

/** Where `qscope report` writes unless told otherwise. */
export function reportFile(folder: string): string {
  return join(folder, 'report.html');
}

/** What a run was started with. What is missing or cannot be read is left out. */
export interface RunOrigin {
  /** The experiment file as it was written. */
  yaml: string;
  /** The complete experiment. */
  experiment: Experiment | undefined;
  /** Program and packages to their versions. */
  versions: Readonly<Record<string, string>>;
}

export function readOrigin(folder: string): RunOrigin {
  const info = attempt(() => JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8')));
  const versions = Object.entries(info?.versions ?? {}).filter(([, value]) => typeof value === 'string');
  return {
    yaml: attempt(() => readFileSync(join(folder, 'config.yaml'), 'utf8')) ?? '',
    experiment: attempt(() =>
      fromJsonString(ExperimentSchema, readFileSync(join(folder, 'experiment.json'), 'utf8'), {
        ignoreUnknownFields: true,
      }),
    ),
    versions: Object.fromEntries(versions) as Record<string, string>,
  };
}

/**
 * The text of an artifact; undefined when it is not there.
 *
 * @param path inside the folder, as the journal names it. A path that leads out of the folder names nothing: the folder may
 *   come from somebody else.
 */
export function readArtifact(folder: string, path: string): string | undefined {
  const file = resolve(folder, path);
  const inside = relative(resolve(folder), file);
  if (inside === '..' || inside.startsWith(`..${sep}`)) return undefined;
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new UserError(`The file ${file} cannot be read: ${(error as Error).message}.`, { cause: error });
  }
}

/**
 * A run given by its folder, as the worker wants it; undefined for a name that is no path.
 *
 * @throws UserError (exit code 2) when the folder is not that of a run.
 */
export function locateRun(name: string): { runsFolder: string; runId: string } | undefined {
  const folder = resolve(name);
  const isRun = attempt(() => readFileSync(join(folder, 'run.json'))) !== undefined;
  if (isRun) return { runsFolder: dirname(folder), runId: basename(folder) };
  if (!name.includes('/') && !name.includes(sep)) return undefined;
  throw new UserError(`${name} is not a run folder (it has no run.json).`, {
    hint: 'Give a run by its id, as `qscope runs list` shows it, or by its folder.',
    exitCode: ExitCode.usage,
  });
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
