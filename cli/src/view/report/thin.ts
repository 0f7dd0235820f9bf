/** Curves that share their x: row i of every column belongs to the same x. */
export type Columns = ReadonlyArray<readonly number[]>;

/**
 * Chooses at most `limit` of the rows to draw. Nothing is averaged: each row that stays is one that was measured. The
 * first and the last stay, every curve keeps its smallest and its largest value (when `limit` has room for them), and of
 * each stretch of rows in between stays the one that differs most from the mean of its stretch, so that a spike is not lost.
 *
 * @param columns one array per curve, all of the same length; NaN stands for a gap.
 * @returns row numbers, ascending.
 */
export function thin(columns: Columns, limit: number): number[] {
  const rows = columns[0]?.length ?? 0;
  if (rows <= limit) return Array.from({ length: rows }, (_, row) => row);
  const kept = new Set([0, rows - 1]);
  for (const column of columns) {
    for (const row of extremes(column)) if (kept.size < limit) kept.add(row);
  }
  const spans = columns.map(spanOf);
  const stretches = limit - kept.size;
  for (let stretch = 0; stretch < stretches; stretch++) {
    const [from, to] = [edge(stretch, stretches, rows), edge(stretch + 1, stretches, rows)];
    if (to > from) kept.add(oddest(columns, spans, from, to));
  }
  return [...kept].sort((a, b) => a - b);
}

function edge(stretch: number, stretches: number, rows: number): number {
  return Math.floor((stretch * rows) / stretches);
}

function extremes(column: readonly number[]): number[] {
  let [low, high] = [-1, -1];
  for (const [row, value] of column.entries()) {
    if (!Number.isFinite(value)) continue;
    if (low < 0 || value < (column[low] as number)) low = row;
    if (high < 0 || value > (column[high] as number)) high = row;
  }
  return low < 0 ? [] : [low, high];
}

/** Makes the distances of different curves comparable. */
function spanOf(column: readonly number[]): number {
  const [low, high] = extremes(column);
  return low === undefined || high === undefined ? 1 : (column[high] as number) - (column[low] as number) || 1;
}

function oddest(columns: Columns, spans: readonly number[], from: number, to: number): number {
  const distances = new Array<number>(to - from).fill(0);
  for (const [index, column] of columns.entries()) {
    const finite = column.slice(from, to).filter(Number.isFinite);
    const mean = finite.reduce((sum, value) => sum + value / finite.length, 0);
    for (let row = from; row < to; row++) {
      const value = column[row] as number;
      if (Number.isFinite(value)) {
        distances[row - from] = (distances[row - from] as number) + Math.abs(value - mean) / (spans[index] as number);
      }
    }
  }
  let best = 0;
  for (const [index, distance] of distances.entries()) if (distance > (distances[best] as number)) best = index;
  return from + best;
}
