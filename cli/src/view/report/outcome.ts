import { create } from '@bufbuild/protobuf';
import { commandOfRun } from '../../experiment/command.js';
import { type ReportSection, ReportSectionSchema, ReportTone } from '../../gen/qscope/v1/report_pb.js';
import { RunState } from '../../gen/qscope/v1/run_event_pb.js';
import { resumeCommand } from '../failure.js';
import { clock, count, percent } from '../format.js';
import { stateName } from '../summary.js';
import type { ReportSource } from './build.js';
import { grouped } from './numbers.js';
import type { RunStory } from './story.js';
import { utcTime } from './time.js';

/** One sentence for a run whose recipe has no own. */
export function summary({ run, story, origin }: ReportSource): string {
  const { seconds, steps } = story;
  const what = `${commandOfRun(run)} on ${origin.experiment?.model || 'a model'}`;
  const parts = [seconds > 0 ? `after ${clock(seconds)}` : '', steps > 0 ? `${grouped(steps)} steps` : ''];
  return `${what}: ${[stateName(run.state), ...parts].filter(Boolean).join(', ')}`;
}

/** What the reader of a run must know that has not ended well, or not ended at all. */
export function endSection(source: ReportSource): ReportSection | undefined {
  const { run } = source;
  switch (run.state) {
    case RunState.SUCCEEDED:
      return undefined;
    case RunState.FAILED:
      return failed(source);
    case RunState.CANCELLED:
    case RunState.PREEMPTED:
      return stopped(source);
    default:
      return working(source);
  }
}

function failed({ run }: ReportSource): ReportSection {
  const { failure, logTail } = run;
  const tail = failure?.traceback ? failure.traceback.trimEnd() : logTail.join('\n');
  const text = [
    failure?.message || 'It left no reason.',
    failure?.remedy,
    failure?.field && `The place: ${failure.field}`,
  ];
  return create(ReportSectionSchema, {
    heading: 'The run failed',
    text: text.filter(Boolean).join('\n\n'),
    tone: ReportTone.ERROR,
    ...(tail && { content: { case: 'verbatim' as const, value: { text: tail, language: 'end of the log' } } }),
  });
}

function stopped({ run }: ReportSource): ReportSection {
  const who = run.state === RunState.CANCELLED ? 'on request' : 'by the system';
  const command = resumeCommand(run);
  return create(ReportSectionSchema, {
    heading: 'The run was stopped before its end',
    text: [`It was stopped ${who}${progressOf(run)}.`, command && `Go on with: ${command}`]
      .filter(Boolean)
      .join('\n\n'),
    tone: ReportTone.WARNING,
  });
}

function working({ run, story, now }: ReportSource): ReportSection {
  return create(ReportSectionSchema, {
    heading: run.state === RunState.QUEUED ? 'The run has not begun' : 'The run still works',
    text: `All numbers are as of ${utcTime(now)}, event ${story.sequence}${progressOf(run)}. For newer ones write the page again: qscope report ${run.runId}`,
    tone: ReportTone.WARNING,
  });
}

function progressOf({ progress }: ReportSource['run']): string {
  if (!progress || progress.total <= 0) return '';
  const { phase, current, total, unit } = progress;
  return `, ${percent(current / total)} through ${phase} (${count(current)} of ${count(total)} ${unit})`;
}

/** Everything the run warned of, each once. */
export function warningsSection({ warnings }: RunStory, missing: readonly string[]): ReportSection | undefined {
  const texts = [...warnings].map(([text, times]) => (times > 1 ? `${text} (${times} times)` : text));
  for (const path of missing) texts.push(`The run wrote ${path}, but the file is gone; this page goes without it.`);
  if (texts.length === 0) return undefined;
  return create(ReportSectionSchema, {
    heading: texts.length === 1 ? 'One warning' : `${texts.length} warnings`,
    text: texts.join('\n\n'),
    tone: ReportTone.WARNING,
  });
}
