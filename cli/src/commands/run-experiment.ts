import { randomUUID } from 'node:crypto';
import { ExitCode } from '../errors.js';
import { loadExperiment, type Task } from '../experiment/load.js';
import { follow } from '../launch/follow.js';
import { printJson, printLine, printNote } from '../view/output.js';
import { chooseReporter } from '../view/reporter.js';
import { placeFaults, placeOf } from './experiment-faults.js';
import { settings } from './options.js';
import { type EarlyStart, withWorker } from './session.js';
import type { RunOptions } from './start-run.js';

/** The part of `startRun` that needs more than a few modules. */
export async function runExperiment(verb: Task, files: string[], options: RunOptions & EarlyStart): Promise<void> {
  const { detach = false, json, quiet } = options;
  const { experiment, sourceText, locate } = await loadExperiment(files, { verb, set: settings(options) });
  await withWorker(options, async (given) => {
    const { launcher } = given;
    const job = { requestId: randomUUID(), experiment, sourceYaml: sourceText, detach };
    const run = await launcher.submit(job).catch((error) => {
      throw placeFaults(error, locate);
    });
    if (detach) {
      sayDetached(run, json);
      return ExitCode.ok;
    }
    const reporter = await chooseReporter({ json, quiet });
    return follow(run, { ...given, reporter, owner: true, describeField: (field) => placeOf(field, locate) });
  });
}

/** Tells how to find a run again that nobody watches. */
export function sayDetached({ runId, folder }: { runId: string; folder: string }, json?: boolean): void {
  if (json) {
    printJson({ runId, folder });
  } else {
    printLine(runId);
    printNote(`The run goes on by itself. Watch it with:\nqscope runs watch ${runId}`);
  }
}
