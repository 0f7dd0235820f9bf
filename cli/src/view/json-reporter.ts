import { toJson } from '@bufbuild/protobuf';
import { type RunEvent, RunEventSchema } from '../gen/qscope/v1/run_event_pb.js';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { failureLines } from './failure.js';
import { printJson, printNote } from './output.js';
import type { Reporter } from './reporter.js';

/** One event a line on stdout, in the JSON form of its message, and nothing else there. */
export class JsonReporter implements Reporter {
  begin(): void {}

  event(event: RunEvent): void {
    printJson(toJson(RunEventSchema, event));
  }

  note(text: string): void {
    printNote(text);
  }

  end(run?: Run): void {
    if (run) for (const line of failureLines(run)) printNote(line);
  }
}
