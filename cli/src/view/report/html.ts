/** Markup that may stand in the page as it is. Only this file makes any; everything else is text until `html` has escaped it. */
export class Html {
  constructor(readonly text: string) {}
}

export type Content = Html | string | number | undefined | readonly Content[];

/**
 * Markup from a template. Whatever is put into it is escaped, in text and in quoted attribute values alike, unless it is
 * markup already; `undefined` leaves nothing.
 */
export function html(parts: TemplateStringsArray, ...values: readonly Content[]): Html {
  let text = parts[0] as string;
  for (const [index, value] of values.entries()) text += render(value) + parts[index + 1];
  return new Html(text);
}

/** JSON for a data block of a script element, where no escape of HTML counts and only `<` is dangerous. */
export function json(value: unknown): Html {
  return new Html(JSON.stringify(value).replaceAll('<', '\\u003c'));
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
  '`': '&#96;',
};

/** Text for the page. Control characters, which a browser drops or rewrites, become visible symbols. */
export function escapeText(text: string): string {
  return text
    .replaceAll('\r\n', '\n')
    .replace(/[&<>"'`]/g, (char) => ESCAPES[char] as string)
    .replace(/[^\P{Cc}\n\t]/gu, visible);
}

function visible(control: string): string {
  const code = control.charCodeAt(0);
  if (code === 0x7f) return '\u2421';
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : '\ufffd';
}

function render(value: Content): string {
  if (value === undefined) return '';
  if (value instanceof Html) return value.text;
  return Array.isArray(value) ? value.map(render).join('') : escapeText(String(value));
}
