export interface Column {
  heading: string;
  align?: 'left' | 'right';
}

/**
 * Lays out a table with two spaces between columns; columns that do not fit into the width are left out from the right.
 * The first column always stays.
 */
export function table(
  columns: readonly Column[],
  rows: ReadonlyArray<readonly string[]>,
  width = Number.POSITIVE_INFINITY,
): string[] {
  const widths = columns.map(({ heading }, index) =>
    Math.max(heading.length, ...rows.map((row) => (row[index] ?? '').length)),
  );
  let used = widths[0] ?? 0;
  let kept = 1;
  while (kept < columns.length && used + 2 + (widths[kept] as number) <= width) {
    used += 2 + (widths[kept] as number);
    kept += 1;
  }
  const line = (cells: readonly string[]) =>
    columns
      .slice(0, kept)
      .map(({ align }, index) => {
        const cell = cells[index] ?? '';
        return align === 'right' ? cell.padStart(widths[index] as number) : cell.padEnd(widths[index] as number);
      })
      .join('  ')
      .trimEnd();
  return [line(columns.map(({ heading }) => heading)), ...rows.map(line)];
}
