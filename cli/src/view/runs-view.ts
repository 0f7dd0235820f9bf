import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { commandOfRun } from '../experiment/command.js';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { clock, count, percent } from './format.js';
import { stateName } from './summary.js';
import { table } from './table.js';

/** The runs of a folder, one a line. */
export function runsTable(runs: readonly Run[], width?: number): string[] {
  const rows = runs.map((run) => [
    run.runId,
    stateName(run.state),
    commandOfRun(run),
    localTime(run.created),
    progressOf(run),
  ]);
  const headings = ['run', 'state', 'verb', 'started', 'progress'];
  return table(
    headings.map((heading) => ({ heading })),
    rows,
    width,
  );
}

/** Everything known about one run. */
export function runLines(run: Run): string[] {
  const pairs: Array<[string, string]> = [
    ['run', run.runId],
    ['state', stateName(run.state)],
    ['verb', commandOfRun(run)],
    ['folder', run.folder],
    ['started', localTime(run.created)],
    ['updated', localTime(run.updated)],
    ['progress', progressOf(run)],
    ['process', run.pid ? String(run.pid) : 'none'],
    ['events', String(run.lastSequence)],
  ];
  return pairs.filter(([, value]) => value).map(([name, value]) => `${name.padEnd(8)}  ${value}`);
}

function progressOf({ progress }: Run): string {
  if (!progress) return '';
  const { phase, current, total, unit, etaSeconds } = progress;
  if (total <= 0) return phase;
  const parts = [phase, percent(current / total), `${count(current)}/${count(total)} ${unit}`];
  if (etaSeconds > 0 && current < total) parts.push(`ETA ${clock(etaSeconds)}`);
  return parts.join('  ');
}

/** "2026-03-01 14:05" in the time of this place. */
function localTime(time: Timestamp | undefined): string {
  if (!time) return '';
  const date = new Date(Number(time.seconds) * 1000);
  const two = (part: number) => String(part).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
