import { create } from '@bufbuild/protobuf';
import { UserError } from '../../errors.js';
import { NumberStyle, type ReportSection, ReportSectionSchema } from '../../gen/qscope/v1/report_pb.js';
import { metricColumns } from '../metrics.js';
import { type LayerValues, layerValuesTable } from './layers.js';
import { grouped } from './numbers.js';

/** What artifacts/evaluation.json holds (backend-py/qscope/sae/evaluation.py). */
interface Evaluation {
  tokens: number;
  filtered_tokens: number;
  source?: { source?: string };
  layers: Record<string, Record<string, number | null>>;
  density?: Record<string, { log10_edges: number[]; features: number[]; silent: number[] }>;
}

const UNFILTERED = '_all_tokens';

/**
 * The measures of every layer on held-out text.
 *
 * @throws UserError when the text is not what `eval-sae` writes.
 */
export function evaluationSection(text: string, path: string): ReportSection {
  const evaluation = parse(text, path);
  const { tokens, filtered_tokens: filtered, source } = evaluation;
  const layers: LayerValues = new Map(Object.entries(evaluation.layers).map(([layer, row]) => [Number(layer), row]));
  const all = new Set(Object.values(evaluation.layers).flatMap((row) => Object.keys(row)));
  const kept = metricColumns([...all].filter((name) => !name.endsWith(UNFILTERED)));
  const bare = new Map(
    [...layers].map(([layer, row]) => [
      layer,
      Object.fromEntries(
        Object.entries(row)
          .filter(([name]) => name.endsWith(UNFILTERED))
          .map(([name, value]) => [name.slice(0, -UNFILTERED.length), value]),
      ),
    ]),
  );
  const unfiltered = metricColumns([...bare.values()].flatMap((row) => Object.keys(row)));
  return create(ReportSectionSchema, {
    heading: 'Evaluation on held-out text',
    text:
      `One pass over ${grouped(tokens)} tokens${source?.source ? ` of ${source.source}` : ''}; each number is one mean ` +
      'over them, so it has no spread of its own.',
    content: {
      case: 'table',
      value: layerValuesTable(layers, kept, `n = ${grouped(filtered)} tokens: without first tokens and norm outliers`),
    },
    sections: [
      ...(unfiltered.length > 0
        ? [
            {
              heading: 'With first tokens and norm outliers',
              folded: true,
              content: {
                case: 'table' as const,
                value: layerValuesTable(bare, unfiltered, `n = ${grouped(tokens)} tokens: all but padding`),
              },
            },
          ]
        : []),
      ...densitySections(evaluation),
    ],
  });
}

function densitySections({ density = {}, filtered_tokens: n }: Evaluation) {
  const layers = Object.entries(density).filter(([, { features }]) => features.length > 0);
  if (layers.length === 0) return [];
  // A layer whose features are all silent has no curve.
  const counts = Object.entries(density).map(([layer, { silent }]) => [layer, total(silent)] as const);
  const silent = counts.filter(([, count]) => count > 0).map(([layer, count]) => `${count} in layer ${layer}`);
  const series = layers.map(([layer, { log10_edges: edges, features, silent: own }]) => {
    const all = total(features) + total(own);
    return {
      name: `layer ${layer}`,
      x: features.map((_, bin) => ((edges[bin] as number) + (edges[bin + 1] as number)) / 2),
      y: features.map((value) => value / all),
    };
  });
  return [
    {
      heading: 'How often features fire',
      text:
        `Share of the features by the share of the ${grouped(n)} tokens they fire on, two bins to a power of ten. ` +
        `Never fired: ${silent.length > 0 ? silent.join(', ') : 'none'}.`,
      content: {
        case: 'linePlot' as const,
        value: {
          x: { label: 'log₁₀ of the firing frequency', format: { style: NumberStyle.FIXED, digits: 2 } },
          y: { label: 'share of the features', format: { style: NumberStyle.PERCENT } },
          ordered: layers.length > 1,
          series,
        },
      },
    },
  ];
}

function total(counts: readonly number[]): number {
  return counts.reduce((sum, value) => sum + value, 0);
}

function parse(text: string, path: string): Evaluation {
  let fault = 'it does not hold what an evaluation holds';
  try {
    const value: unknown = JSON.parse(text);
    if (isEvaluation(value)) return value;
  } catch (error) {
    fault = (error as Error).message;
  }
  throw new UserError(`The evaluation ${path} cannot be read: ${fault}.`, {
    hint: 'Restore the file, or move it away to see the rest of the run.',
  });
}

function isEvaluation(value: unknown): value is Evaluation {
  const { tokens, filtered_tokens, layers, density = {} } = (value ?? {}) as Partial<Record<keyof Evaluation, unknown>>;
  const numbers = (list: unknown) => Array.isArray(list) && list.every((item) => typeof item === 'number');
  return (
    typeof tokens === 'number' &&
    typeof filtered_tokens === 'number' &&
    isRecord(layers) &&
    Object.values(layers).every(isRecord) &&
    isRecord(density) &&
    Object.values(density).every(
      (row) =>
        isRecord(row) &&
        [row.log10_edges, row.features, row.silent].every(numbers) &&
        ((row.features as []).length === 0 || (row.log10_edges as []).length === (row.features as []).length + 1),
    )
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
