import { ExitCode } from '../errors.js';
import { RunState } from '../gen/qscope/v1/run_event_pb.js';
import { CancelMode, type Run } from '../gen/qscope/v1/run_pb.js';
import { resumeCommand } from '../view/failure.js';
import type { Reporter } from '../view/reporter.js';
import type { WorkerSession } from '../worker/connect.js';
import { RpcError } from '../worker/rpc-error.js';
import { watchRun } from '../worker/watch.js';
import type { Interrupts, Urgency } from './interrupts.js';
import type { Launcher } from './launcher.js';

export interface FollowOptions {
  session: WorkerSession;
  launcher: Launcher;
  reporter: Reporter;
  interrupts: Interrupts;
  runsFolder: string;
  /** Sequence number of the last event that is not wanted. */
  after?: bigint;
  /** Ctrl-C stops the run of its owner; a mere watcher only stops watching. */
  owner: boolean;
  /** Names the place of an experiment field in the user's file. */
  describeField?: (field: string) => string;
}

/**
 * Shows a run until it ends or the user leaves.
 *
 * @returns the exit code of the command.
 */
export async function follow(run: Run, options: FollowOptions): Promise<number> {
  const { session, launcher, reporter, interrupts, runsFolder, after = 0n, owner, describeField } = options;
  const { runId } = run;
  const leave = new AbortController();
  reporter.begin(run);
  interrupts.handle(owner ? (urgency) => void cancel(run, urgency, launcher, reporter) : () => leave.abort());
  let final: Run;
  try {
    for await (const event of watchRun(session, { runId, runsFolder, after, signal: leave.signal }))
      reporter.event(event);
    if (leave.signal.aborted) {
      reporter.end();
      reporter.note(`The run goes on. Watch it again with:\nqscope runs watch ${runId}`);
      return interrupts.exitCode ?? ExitCode.ok;
    }
    final = await launcher.status(runId);
  } catch (error) {
    reporter.end();
    throw error;
  }
  const field = final.failure?.field;
  if (final.failure && field && describeField) final.failure.field = describeField(field);
  reporter.end(final);
  const command = resumeCommand(final);
  // The command stands alone on the last line: for the mouse, and for programs.
  if (command) reporter.note(`Go on with:\n${command}`);
  // The experiment names something that only the run could see to be impossible.
  if (field && final.state === RunState.FAILED) return ExitCode.invalid;
  return exitCodeOf(final.state, interrupts.exitCode);
}

async function cancel({ runId }: Run, urgency: Urgency, launcher: Launcher, reporter: Reporter): Promise<void> {
  const [mode, sentence, reason] =
    urgency === 1
      ? ([
          CancelMode.GRACEFUL,
          'Stopping after this step, with a checkpoint. Ctrl-C again stops at once.',
          'interrupted',
        ] as const)
      : ([CancelMode.IMMEDIATE, 'Stopping at once, without a checkpoint.', 'interrupted twice'] as const);
  reporter.note(sentence);
  try {
    await launcher.cancel(runId, mode, reason);
  } catch (error) {
    // A run that ended in the meantime needs no stopping; the watch reports its end.
    if (error instanceof RpcError && error.is('FAILED_PRECONDITION')) return;
    reporter.note(`The run could not be stopped: ${error instanceof Error ? error.message : error}`);
  }
}

/** The exit code for a final state; `interrupted` is the code of the signal that came, if one came. */
export function exitCodeOf(state: RunState, interrupted?: number): number {
  switch (state) {
    case RunState.SUCCEEDED:
      return ExitCode.ok;
    case RunState.PREEMPTED:
      return interrupted ?? ExitCode.tryAgain;
    case RunState.CANCELLED:
      return interrupted ?? ExitCode.failed;
    default:
      return ExitCode.failed;
  }
}
