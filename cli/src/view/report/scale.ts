/** Where values stand along an axis. */
export interface Scale {
  /** Place of a value in the units of the drawing; NaN for one that the axis cannot show. */
  at(value: number): number;
  ticks: readonly number[];
  /** Distance of two ticks; 0 on a logarithmic axis. */
  step: number;
}

export interface ScaleOptions {
  values: Iterable<number>;
  /** Ends of the axis in the units of the drawing. */
  range: readonly [number, number];
  log?: boolean;
  /** Makes both ends ticks. */
  round?: boolean;
  /** About how many ticks there shall be. */
  count: number;
}

/** A scale that holds all finite values; on a logarithmic one, those above zero. */
export function scaleOf({ values, range, log = false, round = false, count }: ScaleOptions): Scale {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = log ? [1, 10] : [0, 1];
  return log ? logScale(low, high, range, round) : linearScale(low, high, range, round, count);
}

function linearScale(
  low: number,
  high: number,
  range: readonly [number, number],
  round: boolean,
  count: number,
): Scale {
  let [from, to] = [low, high];
  // Closer than any step between them could be told.
  if (to - from <= Math.max(1e-300, 1e-12 * Math.max(Math.abs(from), Math.abs(to)))) {
    const room = Math.abs(from) / 2;
    // What is zero all along is mostly a count or a loss, which is never below.
    if (room < 1e-300) [from, to] = [0, 1];
    else [from, to] = [Math.max(-Number.MAX_VALUE, from - room), Math.min(Number.MAX_VALUE, to + room)];
  }
  // An axis that nearly begins at zero begins at zero.
  if (round && from > 0 && from < 0.4 * to) from = 0;
  // Divided before it is subtracted: the extremes of a double would overflow.
  const step = niceStep(to / count - from / count);
  if (round) {
    from = Math.max(-Number.MAX_VALUE, Math.floor(from / step + 1e-9) * step);
    to = Math.min(Number.MAX_VALUE, Math.ceil(to / step - 1e-9) * step);
  }
  const ticks: number[] = [];
  const first = Math.ceil(from / step - 1e-9);
  const last = Math.floor(to / step + 1e-9);
  // Numbers so large that steps of this size vanish in their rounding have no ticks between.
  if (Number.isSafeInteger(first) && last - first < 100) {
    for (let index = first; index <= last; index++) {
      const tick = Number((index * step).toPrecision(12));
      if (Number.isFinite(tick)) ticks.push(tick);
    }
  }
  return { at: placed((value) => value, from, to, range), ticks, step };
}

/** Ticks of a decade on a logarithmic axis that is longer than so many decades. */
const MANTISSAS: ReadonlyArray<readonly [decades: number, mantissas: readonly number[]]> = [
  [3, [1]],
  [1.2, [1, 3]],
  [0.6, [1, 2, 5]],
  [0, [1, 1.5, 2, 3, 4, 6, 8]],
];

function logScale(low: number, high: number, range: readonly [number, number], round: boolean): Scale {
  let [from, to] = [Math.log10(low), Math.log10(high)];
  if (to - from < 0.2) [from, to] = [from - 0.1, to + 0.1];
  const mantissas = MANTISSAS.find(([decades]) => to - from > decades)?.[1] ?? [1];
  const decades = Math.max(1, Math.ceil((to - from) / 8));
  let ticks: number[] = [];
  for (let decade = Math.floor(from) - decades; decade <= Math.ceil(to) + decades; decade++) {
    if (mantissas.length === 1 && decade % decades !== 0) continue;
    for (const mantissa of mantissas) ticks.push(Number(`${mantissa}e${decade}`));
  }
  ticks = ticks.filter((tick) => tick > 0 && Number.isFinite(tick));
  if (round) {
    const below = ticks.filter((tick) => Math.log10(tick) <= from + 1e-9).at(-1);
    const above = ticks.find((tick) => Math.log10(tick) >= to - 1e-9);
    if (below) from = Math.log10(below);
    if (above) to = Math.log10(above);
  }
  ticks = ticks.filter((tick) => Math.log10(tick) >= from - 1e-9 && Math.log10(tick) <= to + 1e-9);
  return { at: placed((value) => (value > 0 ? Math.log10(value) : Number.NaN), from, to, range), ticks, step: 0 };
}

function placed(warp: (value: number) => number, from: number, to: number, [start, end]: readonly [number, number]) {
  // Halved, because the distance of the extremes of a double is no double.
  const length = to / 2 - from / 2;
  return (value: number) => start + ((warp(value) / 2 - from / 2) / length) * (end - start);
}

/** The smallest of 1, 2, 5 times a power of ten that is about `step` or above. */
function niceStep(step: number): number {
  const power = 10 ** Math.floor(Math.log10(step));
  for (const factor of [1, 2, 5]) if (factor * power >= step * 0.9) return factor * power;
  return 10 * power;
}
