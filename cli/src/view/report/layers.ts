import { create } from '@bufbuild/protobuf';
import { type ReportSection, ReportSectionSchema, type Table, TableSchema } from '../../gen/qscope/v1/report_pb.js';
import { metricColumns, metricLabel } from '../metrics.js';
import { numberFormat } from './curves.js';
import { MEANINGS } from './meanings.js';
import { type RunStory, WHOLE_RUN } from './story.js';

/** Layer to metric to value; undefined is a measure that does not exist there. */
export type LayerValues = ReadonlyMap<number, Readonly<Record<string, number | null | undefined>>>;

/** One row a layer, one column a metric, the most telling first. */
export function layerValuesTable(layers: LayerValues, names: readonly string[], caption: string): Table {
  return create(TableSchema, {
    caption,
    columns: [
      { name: 'layer' },
      ...names.map((name) => ({
        name: metricLabel(name),
        description: MEANINGS[name] ?? '',
        format: numberFormat(name),
      })),
    ],
    rows: [...layers].map(([layer, values]) => ({
      cells: [
        { value: { case: 'number' as const, value: layer } },
        ...names.map((name) => {
          const value = values[name];
          return typeof value === 'number' ? { value: { case: 'number' as const, value } } : {};
        }),
      ],
    })),
  });
}

/** The newest metrics of every layer, for a run that nobody evaluated; undefined when it has none. */
export function newestSection(story: RunStory): ReportSection | undefined {
  const layers = new Map<number, Record<string, number>>();
  for (const [name, curves] of story.metrics) {
    for (const layer of curves.keys()) {
      if (layer === WHOLE_RUN) continue;
      const values = layers.get(layer) ?? {};
      values[name] = story.newest(name, layer) as number;
      layers.set(layer, values);
    }
  }
  if (layers.size === 0) return undefined;
  const sorted = new Map([...layers].sort(([a], [b]) => a - b));
  const names = metricColumns([...layers.values()].flatMap((values) => Object.keys(values)));
  return create(ReportSectionSchema, {
    heading: 'Newest values by layer',
    text: `As of step ${story.steps}.`,
    content: { case: 'table', value: layerValuesTable(sorted, names, '') },
  });
}
