import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type NumberFormatSchema,
  NumberStyle,
  type ReportSection,
  ReportSectionSchema,
} from '../../gen/qscope/v1/report_pb.js';
import { metricColumns, metricFormat, metricLabel } from '../metrics.js';
import { TITLES } from './meanings.js';
import { grouped } from './numbers.js';
import { type RunStory, WHOLE_RUN } from './story.js';
import { thin } from './thin.js';

/** Points of one curve at most: about one for each pixel of a plot. */
const POINTS = 400;
/** Points of all curves together at most: what keeps the page of a model with many layers at a few hundred kilobytes. */
const ALL_POINTS = 11_000;
const FEWEST = 40;
/** One grows with the step; the ends of an interval are the band of the recipe's own plot. */
const HIDDEN = new Set(['tokens', 'held_out_repeat_low', 'held_out_repeat_high']);
/** Their distance from zero is what counts; on an axis of its own the noise of an L0 that keeps to k would fill the plot. */
const FROM_ZERO = new Set([
  ...['fvu', 'l0', 'dead_share', 'loss', 'aux_loss', 'tokens_per_second', 'learning_rate'],
  ...['sae_loss', 'sae_active_share', 'repeat_ratio', 'cs_ratio', 'clipped_ratio', 'frac_reward_zero_std'],
  ...['frac_ungraded', 'steered_loop_rate', 'steered_dropped', 'steered_token_share', 'steered_pull_share'],
]);
/** What falls by orders of magnitude. */
const LOGARITHMIC = new Set(['grad_norm']);

/** The curves of a run by step, one plot for each metric; undefined when nothing was measured twice. */
export function curvesSection(story: RunStory): ReportSection | undefined {
  // What was measured once, as by the evaluation at the end, has no curve.
  const curved = [...story.metrics.keys()].filter((name) => !HIDDEN.has(name) && layersOf(story, name).length > 0);
  const plots = metricColumns(curved).map((name) => ({ name, layers: layersOf(story, name) }));
  const count = plots.reduce((sum, { layers }) => sum + layers.length, 0);
  if (count === 0) return undefined;
  const limit = Math.min(POINTS, Math.max(FEWEST, Math.floor(ALL_POINTS / count)));
  const sections = plots.map(({ name, layers }) => plotSection(story, name, layers, limit));
  const measured = Math.max(...plots.flatMap(({ layers }) => layers.map(([, curve]) => curve.size)));
  const byLayer = plots.some(({ layers }) => layers[0]?.[0] !== WHOLE_RUN);
  const text = [
    byLayer ? 'By step, one curve a layer.' : 'By step.',
    measured > limit
      ? `Of ${grouped(measured)} points of a curve ${limit} are drawn: measured ones, the extremes among them.`
      : '',
  ];
  return create(ReportSectionSchema, { heading: 'Over the run', text: text.join(' ').trim(), sections });
}

type Layers = Array<[layer: number, curve: ReadonlyMap<number, number>]>;

/** The curves of a metric: of the layers, else of the whole run, which then is no mean of layers. */
function layersOf(story: RunStory, name: string): Layers {
  const all = [...(story.metrics.get(name) ?? [])].filter(([, curve]) => curve.size > 1);
  const layers = all.filter(([layer]) => layer !== WHOLE_RUN).sort(([a], [b]) => a - b);
  return layers.length > 0 ? layers : all;
}

function plotSection(story: RunStory, name: string, layers: Layers, limit: number): ReportSection {
  const steps = [...new Set(layers.flatMap(([, curve]) => [...curve.keys()]))].sort((a, b) => a - b);
  const columns = layers.map(([, curve]) => steps.map((step) => curve.get(step) ?? Number.NaN));
  const rows = thin(columns, limit);
  const x = rows.map((row) => steps[row] as number);
  const log = LOGARITHMIC.has(name) && columns.every((column) => column.every((value) => !(value <= 0)));
  return create(ReportSectionSchema, {
    heading: TITLES[name] ?? metricLabel(name),
    content: {
      case: 'linePlot',
      value: {
        x: { label: 'step', format: { style: NumberStyle.INTEGER } },
        y: { label: '', log, format: numberFormat(name), include: FROM_ZERO.has(name) ? [0] : [] },
        ordered: layers.length > 1,
        series: layers.map(([layer], index) => ({
          name: layer === WHOLE_RUN ? metricLabel(name) : `layer ${layer}`,
          x,
          y: rows.map((row) => columns[index]?.[row] as number),
        })),
        markers: story.resumedAt.map((step) => ({ x: step, label: 'resumed' })),
      },
    },
  });
}

/** How the numbers of a metric are written, as the contract says it. */
export function numberFormat(name: string): MessageInitShape<typeof NumberFormatSchema> {
  const format = metricFormat(name);
  if (format === 'percent') return { style: NumberStyle.PERCENT };
  return format === 'significant' ? {} : { style: NumberStyle.FIXED, digits: format };
}
