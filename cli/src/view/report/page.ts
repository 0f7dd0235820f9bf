import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Report } from '../../gen/qscope/v1/report_pb.js';
import { Html, html } from './html.js';
import { paletteCss } from './palette.js';
import { idOf, sectionsHtml } from './sections.js';

export interface PageOptions {
  /** Above the title: what kind of page it is. */
  kicker: string;
  /** At the end: who wrote it and when. */
  colophon: string;
}

/**
 * A report as one HTML file that needs nothing beside it and asks nobody for anything: style and script are in the page,
 * and its policy lets nothing else in and forbids every connection.
 */
export function reportPage({ title, subtitle, sections }: Report, { kicker, colophon }: PageOptions): string {
  const style = paletteCss() + asset('report.css');
  const script = asset('report.js');
  const policy = [
    "default-src 'none'",
    `style-src ${hashOf(style)}`,
    `script-src ${hashOf(script)}`,
    // The icon, which browsers otherwise ask the server for.
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  const contents = sections.map(({ heading }, index) => html`<li><a href="#${idOf(index)}">${heading}</a></li>`);
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${title}</title>
<link rel="icon" href="${ICON}">
<style>${new Html(style)}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<p class="kicker">${kicker}</p>
<h1>${title}</h1>
${subtitle ? html`<p class="subtitle">${subtitle}</p>` : undefined}
</header>
<nav aria-label="Contents"><ol>${contents}</ol></nav>
<main id="main" tabindex="-1">
${sectionsHtml(sections).map((section) => html`${section}\n`)}</main>
<footer>${colophon}</footer>
<script>${new Html(script)}</script>
</body>
</html>
`;
  return page.text;
}

const ICON =
  "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><path d='M1 13 5 6l3 4 3-8 4 11' fill='none' stroke='%230072b2' stroke-width='2'/></svg>";

/** A file of cli/assets, which lies as far from the sources as from the compiled files. */
function asset(name: string): string {
  return readFileSync(new URL(`../../../assets/${name}`, import.meta.url), 'utf8');
}

function hashOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}
