import type { RunEvent } from '../gen/qscope/v1/run_event_pb.js';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { canRewriteLines } from './output.js';

/** Shows a run to whoever watches. Chosen once; commands know nothing of terminals. */
export interface Reporter {
  /** The run exists. */
  begin(run: Run): void;
  event(event: RunEvent): void;
  /** A sentence for the person at the terminal, between the events. */
  note(text: string): void;
  /** The run has ended, or the watching has: restores the terminal and shows what there is to show. */
  end(run?: Run): void;
}

export interface ReporterOptions {
  json?: boolean | undefined;
  quiet?: boolean | undefined;
}

export async function chooseReporter({ json, quiet }: ReporterOptions): Promise<Reporter> {
  if (json) return new (await import('./json-reporter.js')).JsonReporter();
  if (!quiet && canRewriteLines()) return await (await import('./tty-reporter.js')).openTtyReporter();
  return new (await import('./plain-reporter.js')).PlainReporter({ quiet });
}
