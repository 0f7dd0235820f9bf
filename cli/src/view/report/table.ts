import type { Table, TableCell, TableColumn } from '../../gen/qscope/v1/report_pb.js';
import { type Content, type Html, html } from './html.js';
import { formatNumber, grouped } from './numbers.js';

/** A table that the reader can sort by any of its columns; without a script it is a plain one. */
export function tableHtml({ caption, columns, rows }: Table, { title }: { title: string }): Html {
  const numeric = columns.map((_, index) => rows.some(({ cells }) => cells[index]?.value.case === 'number'));
  const heads = columns.map(({ name, unit }, index) => {
    const label = html`${breakable(name)}${unit ? html` <span class="unit">${unit}</span>` : undefined}`;
    return html`<th scope="col"${numeric[index] ? NUMERIC : undefined}><button type="button" class="sort">${label}</button></th>`;
  });
  const body = rows.map(
    ({ cells }) => html`<tr>${cells.map((cell, index) => cellHtml(cell, index, columns[index]))}</tr>`,
  );
  return html`<div class="scroll" role="region" aria-label="${caption || title}"><table class="sortable">${
    caption ? html`<caption><span>${caption}</span></caption>` : undefined
  }<thead><tr>${heads}</tr></thead><tbody>${body}</tbody></table></div>${meanings(columns)}`;
}

/** Names like `reconstruction_bias` may be broken where a table is too wide. */
function breakable(name: string): Content {
  return name.split(/(?<=_)/).map((part, index) => html`${index > 0 ? html`<wbr>` : undefined}${part}`);
}

const NUMERIC = html` class="number"`;

function cellHtml(cell: TableCell, index: number, column: TableColumn | undefined): Html {
  const { value } = cell;
  if (index === 0) {
    const key = value.case === 'number' ? html` data-value="${sortKey(value.value)}"` : undefined;
    return html`<th scope="row"${value.case === 'number' ? NUMERIC : undefined}${key}>${cellText(cell, column)}</th>`;
  }
  if (value.case !== 'number') return html`<td>${cellText(cell, column)}</td>`;
  return html`<td class="number" data-value="${sortKey(value.value)}">${cellText(cell, column)}${measured(cell, column)}</td>`;
}

/** What the page sorts by: more digits than it shows, fewer than a double has. */
function sortKey(value: number): number {
  return Number(value.toPrecision(9));
}

function cellText({ value }: TableCell, column: TableColumn | undefined): string {
  if (value.case === 'number') return formatNumber(value.value, column?.format);
  return value.value ?? '';
}

/** The spread of a number and what it was measured on, less loud than the number itself. */
function measured({ spread, n }: TableCell, column: TableColumn | undefined): Html | undefined {
  const parts = [
    spread === undefined ? '' : ` ± ${formatNumber(spread, column?.format)}`,
    n > 0n ? ` n\u202f=\u202f${grouped(Number(n))}` : '',
  ].join('');
  return parts ? html`<span class="spread">${parts}</span>` : undefined;
}

/** What the columns mean, for the reader who asks. */
function meanings(columns: readonly TableColumn[]): Html | undefined {
  const described = columns.filter(({ description }) => description);
  if (described.length === 0) return undefined;
  const list = described.map(({ name, description }) => html`<dt>${name}</dt><dd>${description}</dd>`);
  return html`<details class="data"><summary>What the columns mean</summary><dl class="meanings">${list}</dl></details>`;
}
