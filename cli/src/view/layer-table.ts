import { formatMetric, metricColumns, metricLabel } from './metrics.js';
import type { RunModel } from './run-model.js';
import { table } from './table.js';

/** The newest metrics, one row a layer and one for the whole run; empty while there are none. */
export function layerTable({ layers, whole }: RunModel, width?: number): string[] {
  if (layers.size === 0) return [];
  const names = metricColumns([...layers.values()].flatMap((values) => [...values.keys()]));
  const row = (title: string, values: ReadonlyMap<string, number>) => [
    title,
    ...names.map((name) => {
      const value = values.get(name);
      return value === undefined ? '' : formatMetric(name, value);
    }),
  ];
  const sorted = [...layers].sort(([a], [b]) => a - b);
  const rows = sorted.map(([layer, values]) => row(String(layer), values));
  if (layers.size > 1 && names.some((name) => whole.has(name))) rows.push(row('all', whole));
  return table(
    ['layer', ...names.map(metricLabel)].map((heading) => ({ heading, align: 'right' })),
    rows,
    width,
  );
}
