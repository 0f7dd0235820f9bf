import { clock, count, percent } from './format.js';
import { formatMetric, metricLabel } from './metrics.js';
import type { RunModel } from './run-model.js';

/** A piece of the live line. */
export interface Field {
  kind: 'phase' | 'bar' | 'amount' | 'rate' | 'eta' | 'metric';
  text: string;
}

/**
 * Metrics of the live line, most telling first, by the metric that only their kind of run has. L0 is last because a TopK
 * SAE's is its k.
 */
const LIVE_METRICS: ReadonlyArray<readonly [has: string, show: readonly string[]]> = [
  [
    'reward',
    [
      'reward',
      'repeat_ratio',
      'steered_loop_rate',
      'frac_reward_zero_std',
      'clipped_ratio',
      'steered_advantage',
      'steered_token_share',
    ],
  ],
  ['ce', ['ce', 'sae_loss', 'sae_active_share', 'held_out_loss', 'loss']],
  ['', ['fvu', 'dead_share', 'l0', 'texts_tried', 'output_tokens', 'cost']],
];
const BAR_WIDTHS = [10, 8, 6, 4];

/**
 * The live line, fitted to a width: the bar shrinks first, then fields are left out from the right.
 *
 * @returns the fields to be joined by two spaces; none before the first progress.
 */
export function progressFields(model: RunModel, width: number): Field[] {
  const all = fields(model);
  for (let kept = all.length; kept > 0; kept--) {
    for (const barWidth of BAR_WIDTHS) {
      const line = all
        .slice(0, kept)
        .map((field) => (field.kind === 'bar' ? { ...field, text: bar(model, barWidth) } : field));
      if (joinFields(line).length <= width) return line;
    }
  }
  return all.slice(0, 1);
}

export function joinFields(line: readonly Field[]): string {
  return line.map(({ text }) => text).join('  ');
}

/** The line of the plain reporter: percent instead of a bar, and as wide as it comes. */
export function progressText(model: RunModel): string {
  const line = fields(model).map((field) =>
    field.kind === 'bar' ? { ...field, text: percent(share(model)).padStart(6) } : field,
  );
  return joinFields(line);
}

export function share({ progress }: RunModel): number {
  if (!progress || progress.total <= 0) return 0;
  return Math.min(1, Math.max(0, progress.current / progress.total));
}

function fields(model: RunModel): Field[] {
  const { progress, whole } = model;
  if (!progress) return [];
  const { phase, current, total, unit, rate, etaSeconds } = progress;
  const line: Field[] = [{ kind: 'phase', text: phase }];
  if (total > 0) {
    line.push({ kind: 'bar', text: '' });
    line.push({ kind: 'amount', text: `${count(current)}/${count(total)}` });
  } else if (current > 0) {
    line.push({ kind: 'amount', text: count(current) });
  }
  // The rate names the unit; before there is one the amount must.
  const short = unit === 'tokens' ? 'tok' : unit;
  const tokens = unit === 'steps' ? whole.get('tokens_per_second') : undefined;
  if (tokens === undefined) {
    if (rate > 0) line.push({ kind: 'rate', text: `${count(rate)} ${short}/s` });
    else if (line.length > 1 && unit) line.push({ kind: 'rate', text: unit });
  }
  if (etaSeconds >= 0 && rate > 0 && current < total) line.push({ kind: 'eta', text: `ETA ${clock(etaSeconds)}` });
  const [lead = '', names = []] = LIVE_METRICS.find(([has]) => has === '' || whole.has(has)) ?? [];
  for (const name of names) {
    const value = model.isOfStep(name, lead) || name.startsWith('held_out') ? whole.get(name) : undefined;
    if (value !== undefined) line.push({ kind: 'metric', text: `${metricLabel(name)} ${liveMetric(name, value)}` });
  }
  // Of steps, how they go tells more than how fast.
  if (tokens !== undefined) line.push({ kind: 'rate', text: `${count(tokens)} tok/s` });
  return line;
}

/** One digit less than in tables: the line is read in passing. */
function liveMetric(name: string, value: number): string {
  if (name === 'fvu' && value >= 0.0005 && value < 1000) return value.toFixed(3);
  if (SHORT.has(name) && Math.abs(value) >= 0.1 && Math.abs(value) < 100) return value.toFixed(2);
  if (name === 'sae_loss' && Math.abs(value) < 100) return String(Number(value.toPrecision(2)));
  return formatMetric(name, value);
}

/** Two decimals tell how they go. */
const SHORT = new Set(['loss', 'ce', 'held_out_loss', 'reward']);

function bar(model: RunModel, width: number): string {
  const done = Math.floor(share(model) * width);
  return `[${'#'.repeat(done)}${'-'.repeat(width - done)}]`;
}
