import { create } from '@bufbuild/protobuf';
import { type LinePlot, PlotAxisSchema, type PlotSeries } from '../../gen/qscope/v1/report_pb.js';
import { type Content, type Html, html, json } from './html.js';
import { formatNumber, grouped, tickTexts } from './numbers.js';
import { LINE_COLOURS, lineClass } from './palette.js';
import { type Scale, scaleOf } from './scale.js';

/** Units of the drawing: about pixels on a phone, up to half as large again beside the text of a wide window. */
const [WIDTH, HEIGHT] = [400, 226];
const [BOTTOM, RIGHT] = [34, 12];
/** Room above the plot: for half a number, or for the name of the vertical axis too. */
const [BARE_TOP, NAMED_TOP] = [9, 24];
const X_TICKS = 5;
const Y_TICKS = 5;
/** Curves with few points show them. */
const DOTS_UP_TO = 40;
/** Rows of the table below a plot: as many as its cells allow, within these bounds. */
const [FEWEST_ROWS, MOST_ROWS] = [9, 25];
const TABLE_CELLS = 400;
const LABEL_UNITS = 5.9;
const NO_AXIS = create(PlotAxisSchema);

/** A plot as a drawing with a legend, and its data as a table. The page's script adds the reading of values. */
export function linePlotHtml(plot: LinePlot, { title, legend = true }: { title: string; legend?: boolean }): Html {
  const { series, band } = plot;
  const drawing = draw(plot, title);
  return html`<figure class="plot">${drawing}${
    legend && series.length > 1 ? legendHtml(plot) : undefined
  }${band ? html`<figcaption>Band: ${band}</figcaption>` : undefined}${dataTable(plot, title)}</figure>`;
}

/** The names of the curves; pressing one sets its curves off from the others, everywhere below the same heading. */
export function legendHtml({ series, ordered }: LinePlot): Html {
  const items = series.map(
    ({ name }, index) =>
      html`<button type="button" aria-pressed="false" data-curve="${index}"><svg class="swatch ${lineClass(
        index,
        series.length,
        ordered,
      )}" viewBox="0 0 22 8" aria-hidden="true"><path d="M1 4H21"${dash(index, ordered)}/></svg>${name}</button>`,
  );
  return html`<div class="legend" role="toolbar" aria-label="Curves: press to set one off from the others">${items}</div>`;
}

function draw(plot: LinePlot, title: string): Html {
  const { series, markers, ordered, x: xAxis = NO_AXIS, y: yAxis = NO_AXIS } = plot;
  const yName = yAxis.label === title ? '' : yAxis.label;
  const top = yName ? NAMED_TOP : BARE_TOP;
  const yOptions = { values: [...allY(series), ...yAxis.include], log: yAxis.log, round: true, count: Y_TICKS };
  // The widest number decides where the axis stands.
  const probe = scaleOf({ ...yOptions, range: [0, 1] });
  const yTexts = tickTexts(probe.ticks, probe.step, yAxis.format);
  const left = Math.round(10 + LABEL_UNITS * Math.max(2, ...yTexts.map((text) => text.length)));
  const y = scaleOf({ ...yOptions, range: [HEIGHT - BOTTOM, top] });
  const xValues = [...allX(series), ...markers.map(({ x }) => x), ...xAxis.include];
  const x = scaleOf({ values: xValues, log: xAxis.log, range: [left + 4, WIDTH - RIGHT], count: X_TICKS });

  const rows = y.ticks.map((tick, index) => {
    const at = place(y.at(tick));
    return html`<path d="M${left} ${at}H${WIDTH - RIGHT}"/><text x="${left - 5}" y="${at}" dy=".34em">${yTexts[index]}</text>`;
  });
  const xTexts = tickTexts(x.ticks, x.step, xAxis.format);
  const columns = x.ticks.map((tick, index) => {
    const at = place(x.at(tick));
    const anchor = at > WIDTH - RIGHT - 12 ? html` class="last"` : undefined;
    return html`<path d="M${at} ${HEIGHT - BOTTOM}v4"/><text x="${at}" y="${HEIGHT - BOTTOM + 15}"${anchor}>${xTexts[index]}</text>`;
  });
  const lines = markers
    .filter((marker) => Number.isFinite(x.at(marker.x)))
    .map((marker) => {
      const at = place(x.at(marker.x));
      // Names would run out of the drawing on its right side.
      const side = at > WIDTH * 0.7 ? html` class="before" x="${at - 4}"` : html` x="${at + 4}"`;
      return html`<path d="M${at} ${top}V${HEIGHT - BOTTOM}"/><text${side} y="${top + 3}" dy=".34em">${marker.label}</text>`;
    });
  const curves = series.map((one, index) => {
    const name = lineClass(index, series.length, ordered);
    return html`<g class="curve ${name}" data-curve="${index}">${bandPath(one, x, y)}<path d="${curvePath(one, x, y)}"${dash(
      index,
      ordered,
    )}/>${dots(one, x, y)}</g>`;
  });
  return html`<div class="canvas"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${describe(plot, title)}"><g class="rows">${rows}</g><g class="columns">${columns}</g><g class="markers">${lines}</g>${curves}<text class="x-name" x="${
    WIDTH - RIGHT
  }" y="${HEIGHT - 4}">${xAxis.label}</text>${
    yName ? html`<text class="y-name" x="2" y="9">${yName}</text>` : undefined
  }</svg>${dataBlock(plot, x, [left, top])}</div>`;
}

/**
 * What the script needs to read values: the places of the points along x and the numbers as they are written. Curves
 * mostly share their x, which is then sent once.
 */
function dataBlock({ series, ...plot }: LinePlot, x: Scale, [left, top]: readonly [number, number]): Html {
  const xs: number[][] = [];
  const known = new Map<string, number>();
  const curves = series.map((one) => {
    const key = one.x.join();
    const index = known.get(key) ?? xs.push(one.x.map((value) => place(x.at(value)))) - 1;
    known.set(key, index);
    return [one.name, index, one.y.map((value) => short(value))] as const;
  });
  const texts = xs.map((_, index) => {
    const owner = series[curves.findIndex(([, own]) => own === index)];
    return owner?.x.map((value) => short(value)) ?? [];
  });
  const data = {
    label: plot.x?.label ?? '',
    x: [plot.x?.format?.style ?? 0, plot.x?.format?.digits ?? 0],
    y: [plot.y?.format?.style ?? 0, plot.y?.format?.digits ?? 0],
    box: [left, top, WIDTH - RIGHT, HEIGHT - BOTTOM, WIDTH, HEIGHT],
    at: xs,
    values: texts,
    curves,
  };
  return html`<script type="application/json">${json(data)}</script>`;
}

/** 5 significant digits are more than the page shows, save of whole numbers such as steps; JSON has no NaN. */
function short(value: number): number | null {
  if (!Number.isFinite(value)) return null;
  return Number.isSafeInteger(value) ? value : Number(value.toPrecision(5));
}

function curvePath({ x: xs, y: ys }: PlotSeries, x: Scale, y: Scale): string {
  let path = '';
  let pen: readonly [number, number] | undefined;
  for (const [index, value] of xs.entries()) {
    const [left, top] = [x.at(value), y.at(ys[index] as number)];
    if (!Number.isFinite(left) || !Number.isFinite(top)) {
      pen = undefined;
      continue;
    }
    const point = [place(left), place(top)] as const;
    // Steps from point to point are half as long to write, and curves are most of the page.
    path += pen
      ? `${path.endsWith('l') ? '' : ' '}${step(pen[0], point[0])} ${step(pen[1], point[1])}`
      : `M${point[0]} ${point[1]}l`;
    pen = point;
  }
  return path.replaceAll(' -', '-');
}

/** Between two places, which are tenths: the sum of all steps ends where the curve does. */
function step(from: number, to: number): string {
  return place(to - from)
    .toString()
    .replace(/^(-?)0\./, '$1.');
}

function bandPath({ x: xs, low, high }: PlotSeries, x: Scale, y: Scale): Html | undefined {
  const points = xs
    .map((value, index) => [x.at(value), y.at(low[index] as number), y.at(high[index] as number)] as const)
    .filter((point) => point.every(Number.isFinite));
  if (low.length === 0 || points.length < 2) return undefined;
  const there = points.map(([left, , top]) => `${place(left)} ${place(top)}`);
  const back = points.map(([left, bottom]) => `${place(left)} ${place(bottom)}`).reverse();
  return html`<path class="band" d="M${[...there, ...back].join('L')}Z"/>`;
}

function dots({ x: xs, y: ys }: PlotSeries, x: Scale, y: Scale): Content {
  if (xs.length > DOTS_UP_TO) return undefined;
  // Arcs of no length with round ends: a point costs 10 bytes instead of 40.
  const marks = xs
    .map((value, index) => [x.at(value), y.at(ys[index] as number)] as const)
    .filter((point) => point.every(Number.isFinite))
    .map(([left, top]) => `M${place(left)} ${place(top)}h0`);
  return html`<path class="dots" d="${marks.join('')}"/>`;
}

function dash(index: number, ordered: boolean): Html | undefined {
  if (ordered || index < LINE_COLOURS) return undefined;
  return html` stroke-dasharray="${['5 3', '1.5 3', '7 2 1.5 2'][Math.floor(index / LINE_COLOURS - 1) % 3]}"`;
}

function describe({ x, y, series, band }: LinePlot, title: string): string {
  const names = series.map(({ name }) => name).filter(Boolean);
  const curves = names.length > 4 ? `${series.length} curves, ${names[0]} to ${names.at(-1)}` : names.join(', ');
  const parts = [`Plot of ${y?.label || title} over ${x?.label || 'x'}`, curves, band && `bands: ${band}`];
  return `${parts.filter(Boolean).join('; ')}. Its data is in the table below.`;
}

/** The numbers of the plot; of a long curve, rows at even distances and the last one. */
function dataTable({ x, y, series }: LinePlot, title: string): Html {
  const all = [...new Set(series.flatMap((one) => one.x))].filter(Number.isFinite).sort((a, b) => a - b);
  const room = Math.min(MOST_ROWS, Math.max(FEWEST_ROWS, Math.floor(TABLE_CELLS / series.length)));
  const chosen = all.length <= room ? all : evenly(all, room);
  const shown = series.map((one) => new Map(one.x.map((value, index) => [value, index])));
  const rows = chosen.map((value) => {
    const cells = series.map((one, index) => {
      const at = shown[index]?.get(value);
      if (at === undefined) return html`<td></td>`;
      const [low, high] = [one.low[at], one.high[at]];
      const band =
        low === undefined || high === undefined
          ? ''
          : ` (${formatNumber(low, y?.format)} to ${formatNumber(high, y?.format)})`;
      return html`<td>${formatNumber(one.y[at] as number, y?.format)}${band}</td>`;
    });
    return html`<tr><th scope="row">${formatNumber(value, x?.format)}</th>${cells}</tr>`;
  });
  const some =
    chosen.length < all.length ? `, ${chosen.length} of ${grouped(all.length)} points; --json writes them all` : '';
  const names = series.map(({ name }) => html`<th scope="col">${name || y?.label || title}</th>`);
  return html`<details class="data"><summary>Data<span class="unseen"> of ${title}</span></summary><div class="scroll" role="region" aria-label="Data of ${title}"><table><caption><span>${title}${some}</span></caption><thead><tr><th scope="col">${
    x?.label || 'x'
  }</th>${names}</tr></thead><tbody>${rows}</tbody></table></div></details>`;
}

function evenly(values: readonly number[], count: number): number[] {
  return Array.from(
    { length: count },
    (_, index) => values[Math.round((index * (values.length - 1)) / (count - 1))] as number,
  );
}

function* allX(series: readonly PlotSeries[]): Generator<number> {
  for (const { x } of series) yield* x;
}

function* allY(series: readonly PlotSeries[]): Generator<number> {
  for (const { y, low, high } of series) {
    yield* y;
    yield* low;
    yield* high;
  }
}

function place(units: number): number {
  return Math.round(units * 10) / 10;
}
