import { type LinePlot, type ReportSection, ReportTone } from '../../gen/qscope/v1/report_pb.js';
import { type Content, type Html, html } from './html.js';
import { legendHtml, linePlotHtml } from './line-plot.js';
import { matrixHtml } from './matrix.js';
import { tableHtml } from './table.js';
import { samplesHtml, tokensHtml } from './texts.js';

/** Headings begin below that of the page; HTML knows six levels. */
const [FIRST_LEVEL, LAST_LEVEL] = [2, 6];

/** The sections of a report and everything below them, each with an id of its own ("s2", "s2-1"). */
export function sectionsHtml(sections: readonly ReportSection[], parent = '', level = FIRST_LEVEL): Html[] {
  return sections.map((section, index) => sectionHtml(section, idOf(index, parent), level));
}

/** The id of section `index` below `parent`. */
export function idOf(index: number, parent = ''): string {
  return parent ? `${parent}-${index + 1}` : `s${index + 1}`;
}

function sectionHtml(section: ReportSection, id: string, level: number): Html {
  const { heading, text, tone, folded, sections } = section;
  const names: Readonly<Partial<Record<ReportTone, string>>> = {
    [ReportTone.WARNING]: 'warning',
    [ReportTone.ERROR]: 'error',
  };
  const name = names[tone] ? html` class="${names[tone]}"` : undefined;
  const title = html`<h${level} id="${id}-h">${heading}</h${level}>`;
  const inner = html`${paragraphs(text)}${contentHtml(section)}${below(sections, id, level)}`;
  const body = folded ? html`<details><summary>${title}</summary>${inner}</details>` : html`${title}${inner}`;
  return html`<section id="${id}" aria-labelledby="${id}-h"${name}>${body}</section>`;
}

function below(sections: readonly ReportSection[], id: string, level: number): Content {
  if (sections.length === 0) return undefined;
  const inner = Math.min(level + 1, LAST_LEVEL);
  const plots = sections.map(({ content }) => (content.case === 'linePlot' ? content.value : undefined));
  if (sections.length < 2 || !plots.every((plot) => plot !== undefined)) return sectionsHtml(sections, id, inner);
  const shared = sharedLegend(plots);
  const figures = sections.map(({ heading, text }, index) => {
    const own = idOf(index, id);
    const plot = linePlotHtml(plots[index] as LinePlot, { title: heading, legend: !shared });
    return html`<section id="${own}" aria-labelledby="${own}-h"><h${inner} id="${own}-h">${heading}</h${inner}>${paragraphs(text)}${plot}</section>`;
  });
  return html`${shared ? legendHtml(shared) : undefined}<div class="plots">${figures}</div>`;
}

/** A plot whose legend serves for all of them; plots of a single curve need none. */
function sharedLegend(plots: readonly LinePlot[]): LinePlot | undefined {
  const several = plots.filter(({ series }) => series.length > 1);
  const key = ({ series, ordered }: LinePlot) => JSON.stringify([ordered, series.map(({ name }) => name)]);
  const [first, ...others] = several;
  return first && others.length > 0 && others.every((plot) => key(plot) === key(first)) ? first : undefined;
}

function contentHtml({ content, heading: title }: ReportSection): Content {
  switch (content.case) {
    case 'table':
      return tableHtml(content.value, { title });
    case 'linePlot':
      return linePlotHtml(content.value, { title });
    case 'matrix':
      return matrixHtml(content.value, { title });
    case 'samples':
      return samplesHtml(content.value, { title });
    case 'tokens':
      return tokensHtml(content.value, { title });
    case 'facts':
      return html`<dl class="facts">${content.value.facts.map(
        ({ name, value }) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`,
      )}</dl>`;
    case 'verbatim':
      return html`<pre role="region" aria-label="${content.value.language || title}">${content.value.text}</pre>`;
    default:
      return undefined;
  }
}

function paragraphs(text: string): Html[] {
  return text
    .split(/\n\s*\n/)
    .filter((paragraph) => paragraph.trim() !== '')
    .map((paragraph) => html`<p>${paragraph.trim()}</p>`);
}
