import { readFileSync } from 'node:fs';
import { ExperimentError } from '../experiment/diagnostic.js';
import type { LoadedExperiment } from '../experiment/load.js';
import { RpcError } from '../worker/rpc-error.js';

type Locate = LoadedExperiment['locate'];

/** Fields of the requests that are no part of the experiment. */
const NOT_IN_FILES = new Set(['request_id', 'runs_folder', 'source_yaml']);

/**
 * Gives the faults that only the worker can see (a layer the model does not have, a missing text) their place in the
 * file. Errors that do not concern the experiment are handed back as they are.
 */
export function placeFaults(error: unknown, locate: Locate): unknown {
  if (!(error instanceof RpcError) || !error.is('INVALID_ARGUMENT')) return error;
  const diagnostics = error.fieldViolations.flatMap(({ field, description }) => {
    const path = field.replace(/^experiment(\.|$)/, '');
    const place = locate(path);
    if (!place || NOT_IN_FILES.has(field)) return [];
    const suggestion = error.info?.metadata.remedy;
    const sourceLine = lineOf(place.file, place.line);
    return [
      { ...place, path, message: description, ...(suggestion && { suggestion }), ...(sourceLine && { sourceLine }) },
    ];
  });
  return diagnostics.length > 0 ? new ExperimentError(diagnostics) : error;
}

/** `file:line:column path`, or the path alone when no file names it. */
export function placeOf(field: string, locate: Locate): string {
  const place = locate(field);
  return place ? `${place.file}:${place.line}:${place.column} ${field}` : field;
}

function lineOf(file: string, line: number): string | undefined {
  try {
    return readFileSync(file, 'utf8').split('\n')[line - 1]?.trimEnd();
  } catch {
    return undefined; // "--set" is no file.
  }
}
