import { RunState } from '../gen/qscope/v1/run_event_pb.js';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { logFile } from '../run-folder.js';

/**
 * What to show of a run that did not succeed: one sentence, what to do, the end of its log. Empty for one that did.
 */
export function failureLines(run: Run): string[] {
  const { state, failure, logTail, folder } = run;
  if (state !== RunState.FAILED) return [];
  const lines = [`The run failed: ${failure?.message || 'it left no reason.'}`];
  if (failure?.remedy) lines.push(failure.remedy);
  if (failure?.field) lines.push(`The place: ${failure.field}`);
  // A traceback is only sent for bugs of ours, and then the log ends with the same one.
  const tail = failure?.traceback ? failure.traceback.trimEnd().split('\n') : logTail;
  if (tail.length > 0) lines.push('', ...tail.map((line) => `  ${line}`));
  lines.push('', `Log: ${logFile(folder)}`);
  return lines;
}

/** How to go on with a run that stopped; undefined when it cannot. */
export function resumeCommand({ resumable, runId }: Run): string | undefined {
  return resumable ? `qscope runs resume ${runId}` : undefined;
}
