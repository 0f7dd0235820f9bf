import { ExitCode, UserError } from '../errors.js';
import { RunState } from '../gen/qscope/v1/run_event_pb.js';
import type { CancelMode, Run } from '../gen/qscope/v1/run_pb.js';
import { logFile } from '../run-folder.js';
import type { WorkerSession } from '../worker/connect.js';
import type { Job, Launcher } from './launcher.js';
import { tailLines } from './tail.js';

/** Unary calls that only read or signal. */
const CALL_MS = 10_000;
/** Calls that start a process. */
const START_MS = 60_000;

/** Runs on this machine, as process groups that the worker starts. */
export class LocalLauncher implements Launcher {
  readonly name = 'local';

  constructor(
    private readonly session: WorkerSession,
    private readonly runsFolder: string,
  ) {}

  submit({ requestId, experiment, sourceYaml, detach }: Job): Promise<Run> {
    const request = { requestId, experiment, sourceYaml, detach, runsFolder: this.runsFolder };
    return this.session.retry(async ({ runs }) => present(await runs.startRun(request, { timeoutMs: START_MS })));
  }

  async resume(runId: string, { detach }: { detach: boolean }): Promise<Run> {
    // Has no request id, so a second try could find the run already going on: it is made once.
    const { runs } = this.session;
    return present(await runs.resumeRun({ runId, detach, runsFolder: this.runsFolder }, { timeoutMs: START_MS }));
  }

  status(runId: string): Promise<Run> {
    const request = { runId, runsFolder: this.runsFolder };
    return this.session.retry(async ({ runs }) => present(await runs.getRun(request, { timeoutMs: CALL_MS })));
  }

  cancel(runId: string, mode: CancelMode, reason: string): Promise<Run> {
    const request = { runId, mode, reason, runsFolder: this.runsFolder };
    return this.session.retry(async ({ runs }) => present(await runs.cancelRun(request, { timeoutMs: CALL_MS })));
  }

  logs(run: Run, { follow, signal }: { follow: boolean; signal?: AbortSignal }): AsyncIterable<string> {
    const hasEnded = async () => !follow || isTerminal((await this.status(run.runId)).state);
    return tailLines(logFile(run.folder), hasEnded, signal);
  }
}

/** True for the states that a run does not leave by itself. */
export function isTerminal(state: RunState): boolean {
  return [RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.PREEMPTED].includes(state);
}

function present({ run }: { run?: Run | undefined }): Run {
  if (run) return run;
  throw new UserError('The worker answered without a run.', {
    hint: 'The two halves of the installation differ: run `npm run setup`.',
    exitCode: ExitCode.unreachable,
  });
}
