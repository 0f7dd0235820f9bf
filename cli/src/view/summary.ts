import { LogLevel, type RunEvent, RunState } from '../gen/qscope/v1/run_event_pb.js';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { layerTable } from './layer-table.js';
import { modelLines } from './model-lines.js';
import type { RunModel } from './run-model.js';

/** "RUN_STATE_SUCCEEDED" as people say it. */
export function stateName(state: RunState): string {
  return (RunState[state] ?? `state ${state}`).toLowerCase();
}

/** The line an event deserves in a text view; undefined when it only moves numbers. */
export function eventNote({ event }: RunEvent): string | undefined {
  switch (event.case) {
    case 'stateChanged':
      // Failures are shown at the end, with all that is known about them.
      return event.value.state === RunState.FAILED ? undefined : event.value.message || undefined;
    case 'log': {
      const { level, text } = event.value;
      if (level === LogLevel.DEBUG) return undefined;
      return level >= LogLevel.WARNING ? `${level === LogLevel.ERROR ? 'error' : 'warning'}: ${text}` : text;
    }
    default:
      return undefined;
  }
}

/** What a run has to show for itself at its end: the table of layers and where the results are. */
export function resultLines(run: Run, model: RunModel, width?: number): string[] {
  const lines = layerTable(model, width);
  if (run.state !== RunState.SUCCEEDED) return lines;
  const results = [...model.artifacts.values()].map(
    ({ path, description }) => `  ${path}${description ? `  ${description}` : ''}`,
  );
  if (lines.length > 0 && results.length > 0) lines.push('');
  if (results.length > 0) lines.push(`Results in ${run.folder}:`, ...results);
  const about = modelLines(run, model);
  if (about.length > 0) lines.push('', ...about);
  return lines;
}
