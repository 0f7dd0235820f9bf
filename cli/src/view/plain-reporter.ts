import { LogLevel, type RunEvent, RunState } from '../gen/qscope/v1/run_event_pb.js';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { failureLines } from './failure.js';
import { printLine, printNote } from './output.js';
import { progressText, share } from './progress-line.js';
import type { Reporter } from './reporter.js';
import { RunModel } from './run-model.js';
import { eventNote, resultLines } from './summary.js';

const LINE_MS = 30_000;
/** Lines per phase, when they come faster than every LINE_MS. */
const LINES = 20;

export interface PlainOptions {
  /** Warnings, failures and what cut a run short, only. */
  quiet?: boolean | undefined;
  now?: () => number;
}

/** What is no success is told also to those who asked for quiet. */
function isWarning({ event }: RunEvent): boolean {
  if (event.case === 'stateChanged') return [RunState.CANCELLED, RunState.PREEMPTED].includes(event.value.state);
  return event.case === 'log' && event.value.level >= LogLevel.WARNING;
}

/** Lines that stay: for log files, CI and terminals that cannot rewrite a line. */
export class PlainReporter implements Reporter {
  private readonly model = new RunModel();
  private last: { phase: string; part: number; time: number } | undefined;

  constructor(private readonly options: PlainOptions = {}) {}

  begin({ runId, folder }: Run): void {
    if (!this.options.quiet) printNote(`Run ${runId} in ${folder}`);
  }

  event(event: RunEvent): void {
    this.model.apply(event);
    const { quiet } = this.options;
    if (event.event.case === 'progress') {
      if (!quiet && this.isDue()) printNote(progressText(this.model));
      return;
    }
    const text = quiet && !isWarning(event) ? undefined : eventNote(event);
    if (text) printNote(text);
  }

  note(text: string): void {
    printNote(text);
  }

  end(run?: Run): void {
    if (!run) return;
    if (!this.options.quiet) for (const line of resultLines(run, this.model)) printLine(line);
    for (const line of failureLines(run)) printNote(line);
  }

  /** A line at the start and end of each phase, and one per 5 % or 30 s between. */
  private isDue(): boolean {
    const { progress } = this.model;
    if (!progress) return false;
    const now = (this.options.now ?? Date.now)();
    const current = { phase: progress.phase, part: Math.floor(share(this.model) * LINES + 1e-9), time: now };
    const { last } = this;
    const due = !last || last.phase !== current.phase || last.part < current.part || now - last.time >= LINE_MS;
    if (due) this.last = current;
    return due;
  }
}
