import type { Matrix } from '../../gen/qscope/v1/report_pb.js';
import { type Html, html } from './html.js';
import { formatNumber } from './numbers.js';
import { HEAT_SHADES, heatClass, signClass } from './palette.js';

/** Wider matrices show colours alone; their numbers are told to the pointer, the keyboard and the screen reader. */
const WRITTEN_COLUMNS = 14;
/** Wider ones have smaller cells and labels, so that a suite of forty benchmarks is seen at once. */
const LARGE_COLUMNS = 28;

/** A heat map: a table, so that it can be read without its colours. */
export function matrixHtml(matrix: Matrix, { title }: { title: string }): Html {
  const { rowTitle, columnTitle, rowLabels, columnLabels, values, scaleTitle, format, diverging } = matrix;
  const { low, high, shade } = scaleOf(matrix);
  const written = columnLabels.length <= WRITTEN_COLUMNS;
  const heads = columnLabels.map((label) => html`<th scope="col">${label}</th>`);
  const rows = rowLabels.map((label, row) => {
    const cells = columnLabels.map((_, column) => {
      const value = values[row * columnLabels.length + column] as number;
      if (Number.isNaN(value)) return html`<td></td>`;
      const text = formatNumber(value, format);
      return html`<td class="${shade(value)}"><span${written ? undefined : UNSEEN}>${text}</span></td>`;
    });
    return html`<tr><th scope="row">${label}</th>${cells}</tr>`;
  });
  // What rows and columns are stands in the corner.
  const caption = scaleTitle || title;
  const corner = html`<td class="corner">${rowTitle}<span aria-hidden="true"> ↓ → </span>${columnTitle}</td>`;
  const ends = [formatNumber(low, format), formatNumber(high, format)] as const;
  const size = written ? 'matrix' : columnLabels.length <= LARGE_COLUMNS ? 'matrix dense' : 'matrix dense small';
  return html`<div class="scroll" role="region" aria-label="${caption}"><table class="${size}"><caption><span>${caption}</span></caption><thead><tr>${corner}${heads}</tr></thead><tbody>${rows}</tbody></table></div>${scaleHtml(
    scaleTitle,
    ends,
    diverging ? SIGNS : HEAT,
  )}`;
}

const UNSEEN = html` class="unseen"`;
const HEAT = Array.from({ length: HEAT_SHADES + 1 }, (_, index) => heatClass(index / HEAT_SHADES));
const SIGNS = Array.from({ length: 2 * HEAT_SHADES + 1 }, (_, index) => signClass(index / HEAT_SHADES - 1));
const POSITIVE = SIGNS.slice(HEAT_SHADES);

/** The legend of a scale: its two ends and the shades between. */
export function scaleHtml(title: string, [low, high]: readonly [string, string], classes: readonly string[]): Html {
  const swatches = classes.map((name) => html`<i class="${name}"></i>`);
  return html`<p class="scale"><span>${title}</span> <span class="ends">${low}<span class="shades" aria-hidden="true">${swatches}</span>${high}</span></p>`;
}

/** The shades of values of one sign, or of both. */
export function signShades(both: boolean): readonly string[] {
  return both ? SIGNS : POSITIVE;
}

/** Ends of the scale and the class of a value. */
function scaleOf({ values, low: givenLow, high: givenHigh, diverging }: Matrix): {
  low: number;
  high: number;
  shade: (value: number) => string;
} {
  let [smallest, largest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    smallest = Math.min(smallest, value);
    largest = Math.max(largest, value);
  }
  if (smallest > largest) [smallest, largest] = [0, 0];
  const [low, high] = [givenLow ?? smallest, givenHigh ?? largest];
  if (diverging) {
    const reach = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return { low: -reach, high: reach, shade: (value) => signClass(value / reach) };
  }
  // Halved, because the distance of the extremes of a double is no double.
  const length = high / 2 - low / 2 || 1;
  return { low, high, shade: (value) => heatClass((value / 2 - low / 2) / length) };
}
