import type { Samples, Tokens, TokenValue } from '../../gen/qscope/v1/report_pb.js';
import { significant } from '../format.js';
import { type Content, type Html, html } from './html.js';
import { scaleHtml, signShades } from './matrix.js';
import { signClass } from './palette.js';

/** Samples side by side: a row for each prompt, a column for each arm; on a narrow page the arms stand below each other. */
export function samplesHtml({ arms, rows, valueTitle, max }: Samples, { title }: { title: string }): Html {
  const all = rows.flatMap(({ cells }) => cells.flatMap(({ tokens }) => tokens));
  const reach = reachOf(all, max);
  const heads = arms.map(
    ({ name, description }) =>
      html`<th scope="col">${name}${description ? html`<span class="note">${description}</span>` : undefined}</th>`,
  );
  const body = rows.map(({ prompt, cells }) => {
    const texts = cells.map(({ text, tokens, note }, index) => {
      // The name of the arm is repeated for narrow pages, where the head of the table is out of sight.
      const arm = html`<span class="arm">${arms[index]?.name}</span>`;
      const plain = text
        ? html`<span class="running">${text}</span>`
        : html`<span class="note" lang="en">no text</span>`;
      const shown = tokens.length > 0 ? tokensOf(tokens, reach) : plain;
      const below = note ? html`<span class="note">${note}</span>` : undefined;
      return html`<td${ANY_LANGUAGE}>${arm}${shown}${below}</td>`;
    });
    return html`<tr><th scope="row"${ANY_LANGUAGE}>${prompt}</th>${texts}</tr>`;
  });
  return html`<div class="scroll" role="region" aria-label="${title}"><table class="samples"><caption class="unseen">${title}</caption><thead><tr><th scope="col">prompt</th>${heads}</tr></thead><tbody>${body}</tbody></table></div>${legend(
    all,
    valueTitle,
    reach,
  )}`;
}

/** Texts with their tokens coloured by value. */
export function tokensHtml({ sequences, valueTitle, max }: Tokens, { title }: { title: string }): Html {
  const all = sequences.flatMap(({ tokens }) => tokens);
  const reach = reachOf(all, max);
  const items = sequences.map(({ label, tokens }) => {
    const where = label ? html`<span class="note">${label}</span>` : undefined;
    return html`<li>${where}<span${ANY_LANGUAGE}>${tokensOf(tokens, reach)}</span></li>`;
  });
  return html`<ol class="sequences" aria-label="${title}">${items}</ol>${legend(all, valueTitle, reach)}`;
}

/** Prompts and samples are in any language and run in any direction; the page is English. */
const ANY_LANGUAGE = html` lang="" dir="auto"`;

/** One stop of the Tab key for all tokens of a text; the script moves between them with the arrow keys. */
function tokensOf(tokens: readonly TokenValue[], reach: number): Html {
  const spans = tokens.map(({ text, value }) => {
    const shade = signClass(value / reach);
    const attribute = value === 0 ? undefined : html` data-value="${significant(value)}"`;
    const name = shade ? html` class="${shade}"` : undefined;
    return html`<span${name}${attribute}>${visible(text)}</span>`;
  });
  return html`<span class="tokens" role="group" aria-label="${summary(tokens)}">${spans}</span>`;
}

/** Line feeds stay, and are seen. */
function visible(text: string): Content {
  return text.replaceAll('\n', '↵\n').replaceAll('\t', '⇥\t');
}

function summary(tokens: readonly TokenValue[]): string {
  const largest = tokens.reduce<TokenValue | undefined>(
    (best, token) => (Math.abs(token.value) > Math.abs(best?.value ?? 0) ? token : best),
    undefined,
  );
  const size = `${tokens.length} tokens`;
  return largest ? `${size}, the largest value ${significant(largest.value)} at “${largest.text.trim()}”` : size;
}

function reachOf(tokens: readonly TokenValue[], max: number | undefined): number {
  if (max !== undefined && Math.abs(max) > 0) return Math.abs(max);
  let reach = 0;
  for (const { value } of tokens) if (Number.isFinite(value)) reach = Math.max(reach, Math.abs(value));
  return reach || 1;
}

function legend(tokens: readonly TokenValue[], title: string, reach: number): Html | undefined {
  if (!tokens.some(({ value }) => Math.abs(value) > 0)) return undefined;
  const both = tokens.some(({ value }) => value < 0);
  return scaleHtml(title, [both ? significant(-reach) : '0', significant(reach)], signShades(both));
}
