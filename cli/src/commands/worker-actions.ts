import { toJson } from '@bufbuild/protobuf';
import { ExitCode } from '../errors.js';
import { GetWorkerInfoResponseSchema } from '../gen/qscope/v1/worker_pb.js';
import { printJson, printLine, printNote } from '../view/output.js';
import { workerLines } from '../view/worker-view.js';
import { backgroundWorker, startBackground, stopBackground } from '../worker/background.js';
import type { WorkerOptions } from './options.js';

export async function start({ python }: WorkerOptions): Promise<void> {
  const { record, isNew } = await startBackground(python);
  printLine(isNew ? `The worker runs as process ${record.pid}.` : `A worker runs already, as process ${record.pid}.`);
}

export async function status({ json }: { json?: boolean }): Promise<void> {
  const found = await backgroundWorker();
  if (!found?.info) process.exitCode = ExitCode.unreachable;
  if (json) {
    const info =
      found?.info && (toJson(GetWorkerInfoResponseSchema, found.info, { alwaysEmitImplicit: true }) as object);
    printJson(found ? { running: true, answers: Boolean(info), ...info, ...found.record } : { running: false });
  } else if (found) {
    for (const line of workerLines(found)) printLine(line);
  } else {
    printNote('No background worker runs. Commands start one for themselves; `qscope worker start` keeps one.');
  }
}

export async function stop({ cancelRuns = false }: { cancelRuns?: boolean }): Promise<void> {
  const pid = await stopBackground({ cancelRuns });
  printNote(pid === undefined ? 'No background worker runs.' : `The worker (process ${pid}) has ended.`);
}
