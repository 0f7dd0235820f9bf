import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import {
  NumberFormatSchema,
  NumberStyle,
  ReportSchema,
  type ReportSection,
} from '../../../src/gen/qscope/v1/report_pb.js';
import { tickTexts } from '../../../src/view/report/numbers.js';
import { contrast, paletteCss } from '../../../src/view/report/palette.js';
import { all, elements, parseHtml, textOf } from '../../support/html.js';
import { everyKind, pageOf } from './fixture.js';

const whole = pageOf(everyKind());
const page = parseHtml(whole);

/** The inside of a page of one section. */
function sectionOf(content: ReportSection['content'] | object, more: object = {}): string {
  const report = create(ReportSchema, { title: 'T', sections: [{ heading: 'H', content: content as never, ...more }] });
  return /<main[^>]*>\n(.*)\n<\/main>/s.exec(pageOf(report))?.[1] ?? '';
}

describe('the page', () => {
  test('has one title, a language, and headings in order without a gap', () => {
    expect(all(page, 'html')[0]?.attributes.get('lang')).toBe('en');
    expect(all(page, 'h1')).toHaveLength(1);
    const levels = [...elements(page)].filter(({ name }) => /^h[1-6]$/.test(name)).map(({ name }) => Number(name[1]));
    expect(levels[0]).toBe(1);
    for (const [index, level] of levels.entries()) expect(level).toBeLessThanOrEqual((levels[index - 1] ?? 0) + 1);
  });

  test('gives every section a name of its own and leads to it from the contents', () => {
    const ids = [...elements(page)].flatMap(({ attributes }) => attributes.get('id') ?? []);
    expect(new Set(ids).size).toBe(ids.length);
    for (const section of all(page, 'section')) expect(ids).toContain(section.attributes.get('aria-labelledby'));
    const links = all(all(page, 'nav')[0] as never, 'a').map((link) => link.attributes.get('href')?.slice(1));
    expect(links).toHaveLength(everyKind().sections.length);
    expect(ids).toEqual(expect.arrayContaining(links));
  });

  test('names every plot, table and region', () => {
    for (const svg of all(page, 'svg').filter(({ attributes }) => !attributes.has('aria-hidden'))) {
      expect(svg.attributes.get('role')).toBe('img');
      expect(svg.attributes.get('aria-label')).toMatch(/^Plot of .+ over .+ Its data is in the table below\.$/);
    }
    for (const table of all(page, 'table').filter((one) => !(one.attributes.get('class') ?? '').includes('sortable'))) {
      expect(all(table, 'caption')).toHaveLength(1);
    }
    for (const region of [...elements(page)].filter(({ attributes }) => attributes.get('role') === 'region')) {
      expect(region.attributes.get('aria-label')).toBeTruthy();
    }
    for (const cell of all(page, 'th').filter((one) => textOf(one) !== '')) {
      expect(cell.attributes.get('scope')).toMatch(/^(row|col)$/);
    }
  });

  test('shows the data of every plot as a table too', () => {
    expect(all(page, 'figure')).toHaveLength(4);
    for (const figure of all(page, 'figure')) {
      const [data] = all(figure, 'details', 'data');
      const curves = all(figure, 'g', 'curve').length;
      expect(all(data as never, 'th').filter((one) => one.attributes.get('scope') === 'col')).toHaveLength(curves + 1);
      expect(all(data as never, 'tr').length).toBeGreaterThan(5);
    }
  });

  test('needs nothing beside it and contacts nobody', () => {
    for (const { name, attributes } of elements(page)) {
      for (const [attribute, value] of attributes) {
        if (attribute === 'href') expect(value, name).toMatch(/^(#|data:image\/svg\+xml,)/);
        expect(['src', 'srcset', 'action', 'style', 'ping', 'poster', 'background', 'formaction']).not.toContain(
          attribute,
        );
        expect(attribute).not.toMatch(/^on/);
      }
      expect(['img', 'iframe', 'object', 'embed', 'video', 'audio', 'base', 'form', 'image', 'use']).not.toContain(
        name,
      );
    }
    // Names of the SVG language, which nobody fetches, are the only addresses.
    const addresses = [...whole.matchAll(/[a-z]+:\/\/[^\s"'<>)&]*/g)].map(([address]) => address);
    expect(new Set(addresses)).toEqual(new Set(['http://www.w3.org/2000/svg']));
    expect(
      all(page, 'style')
        .flatMap(({ children }) => children)
        .join(),
    ).not.toMatch(/url\(|@import|@font-face/);
  });

  test('allows its own style and script only, by their hashes, and no connection', () => {
    const [policy] = all(page, 'meta').filter(({ attributes }) => attributes.has('http-equiv'));
    const parts = new Map(
      policy?.attributes
        .get('content')
        ?.split('; ')
        .map((part) => [part.slice(0, part.indexOf(' ')), part.slice(part.indexOf(' ') + 1)]),
    );
    const hash = (text: unknown) => `'sha256-${createHash('sha256').update(String(text)).digest('base64')}'`;
    expect(Object.fromEntries(parts)).toEqual({
      'default-src': "'none'",
      'style-src': hash(all(page, 'style')[0]?.children[0]),
      'script-src': hash(all(page, 'script').findLast(({ attributes }) => attributes.size === 0)?.children[0]),
      'img-src': 'data:',
      'base-uri': "'none'",
      'form-action': "'none'",
    });
    expect(all(page, 'style')).toHaveLength(1);
    // The others are data.
    const types = all(page, 'script').map(({ attributes }) => attributes.get('type') ?? '');
    expect(types.filter((type) => type !== 'application/json')).toEqual(['']);
    // Before anything it has to hold.
    expect(whole.indexOf('Content-Security-Policy')).toBeLessThan(whole.indexOf('<style'));
  });
});

describe('pieces', () => {
  const text = (value: string) => ({ value: { case: 'text', value } });
  const number = (value: number, more: object = {}) => ({ value: { case: 'number', value }, ...more });

  test('a table: numbers with their n and spread, sortable by what they are and not by how they look', () => {
    const table = {
      caption: 'n = 3 seeds',
      columns: [
        { name: 'arm' },
        { name: 'share', format: { style: NumberStyle.PERCENT }, description: 'of the output' },
        { name: 'ce_zero', unit: 'nats', format: { style: NumberStyle.FIXED, digits: 2 } },
      ],
      rows: [
        { cells: [text('a < b'), number(0.953, { spread: 0.011, n: 1064n }), number(Number.NaN)] },
        { cells: [text('c'), {}, number(-2)] },
      ],
    };
    expect(
      sectionOf({ case: 'table', value: table }).replaceAll(
        /(?=<(?:div|table|caption|thead|tbody|tr|t[hd] |details|dl))/g,
        '\n',
      ),
    ).toMatchInlineSnapshot(`
      "<section id="s1" aria-labelledby="s1-h"><h2 id="s1-h">H</h2>
      <div class="scroll" role="region" aria-label="n = 3 seeds">
      <table class="sortable">
      <caption><span>n = 3 seeds</span></caption>
      <thead>
      <tr>
      <th scope="col"><button type="button" class="sort">arm</button></th>
      <th scope="col" class="number"><button type="button" class="sort">share</button></th>
      <th scope="col" class="number"><button type="button" class="sort">ce_<wbr>zero <span class="unit">nats</span></button></th></tr></thead>
      <tbody>
      <tr>
      <th scope="row">a &lt; b</th>
      <td class="number" data-value="0.953">95.3%<span class="spread"> ± 1.1% n = 1,064</span></td>
      <td class="number" data-value="NaN">NaN</td></tr>
      <tr>
      <th scope="row">c</th><td></td>
      <td class="number" data-value="-2">-2.00</td></tr></tbody></table></div>
      <details class="data"><summary>What the columns mean</summary>
      <dl class="meanings"><dt>share</dt><dd>of the output</dd></dl></details></section>"
    `);
  });

  test('a plot: places of the points, the band, a gap, a marker, and its values for the reader', () => {
    const plot = {
      x: { label: 'strength' },
      y: { label: 'share', format: { style: NumberStyle.PERCENT } },
      band: 'sd over 3 seeds',
      markers: [{ x: 2, label: 'off' }],
      series: [
        {
          name: 'a',
          x: [0, 1, 2, 3, 4],
          y: [0, 0.5, Number.NaN, 1, 0.25],
          low: [0, 0.4, 0, 0.9, 0.2],
          high: [0.1, 0.6, 0.1, 1, 0.3],
        },
        { name: 'b', x: [0, 4], y: [1, 1] },
      ],
    };
    const section = parseHtml(sectionOf({ case: 'linePlot', value: plot }));
    const [curve] = all(section, 'g', 'curve');
    expect(all(curve as never, 'path').map(({ attributes }) => attributes.get('d'))).toMatchInlineSnapshot(`
      [
        "M38 175.2L125.5 91.2L213 175.2L300.5 24L388 141.6L388 158.4L300.5 40.8L213 192L125.5 124.8L38 192Z",
        "M38 192l87.5-84M300.5 24l87.5 126",
        "M38 192h0M125.5 108h0M300.5 24h0M388 150h0",
      ]
    `);
    expect(all(all(section, 'g', 'rows')[0] as never, 'text').map(textOf)).toEqual([
      '0%',
      '20%',
      '40%',
      '60%',
      '80%',
      '100%',
    ]);
    expect(JSON.parse(all(section, 'script')[0]?.children[0] as string)).toMatchObject({
      label: 'strength',
      values: [
        [0, 1, 2, 3, 4],
        [0, 4],
      ],
      curves: [
        ['a', 0, [0, 0.5, null, 1, 0.25]],
        ['b', 1, [1, 1]],
      ],
    });
    expect(textOf(all(section, 'figcaption')[0] as never)).toBe('Band: sd over 3 seeds');
    expect(all(section, 'tr').map((row) => row.children.map((cell) => textOf(cell as never)).join(' | '))).toEqual([
      'strength | a | b',
      '0 | 0.0% (0.0% to 10.0%) | 100.0%',
      '1 | 50.0% (40.0% to 60.0%) | ',
      '2 | NaN (0.0% to 10.0%) | ',
      '3 | 100.0% (90.0% to 100.0%) | ',
      '4 | 25.0% (20.0% to 30.0%) | 100.0%',
    ]);
  });

  test('a curve ends where its last point is, however many steps lead there', () => {
    const x = Array.from({ length: 300 }, (_, index) => index);
    const y = x.map((value) => Math.sin(value) + value / 77);
    const value = { x: { label: 'x' }, y: { label: 'y' }, series: [{ x, y }] };
    const [curve] = all(parseHtml(sectionOf({ case: 'linePlot', value })), 'g', 'curve');
    const path = all(curve as never, 'path')[0]?.attributes.get('d') ?? '';
    const [start = '', steps = ''] = path.slice(1).split('l');
    let [left, top] = start.split(' ').map(Number) as [number, number];
    const numbers = [...steps.matchAll(/-?(?:\d+\.?\d*|\.\d+)/g)].map(Number);
    expect(numbers).toHaveLength(2 * 299);
    const places = [top];
    for (let index = 0; index < numbers.length; index += 2) {
      left += numbers[index] as number;
      top += numbers[index + 1] as number;
      places.push(top);
    }
    expect(left).toBeCloseTo(388, 6);
    const unit = ((places[299] as number) - (places[0] as number)) / ((y[299] as number) - (y[0] as number));
    for (const [index, at] of places.entries()) {
      expect(Math.abs(at - (places[0] as number) - unit * ((y[index] as number) - (y[0] as number)))).toBeLessThan(
        0.25,
      );
    }
  });

  test('a long plot shows a few rows of its data and says of how many', () => {
    const x = Array.from({ length: 1000 }, (_, index) => index);
    const axes = { x: { label: 'step' }, y: { label: 'y' } };
    const section = parseHtml(sectionOf({ case: 'linePlot', value: { ...axes, series: [{ x, y: x }] } }));
    expect(textOf(all(section, 'caption')[0] as never)).toBe('H, 25 of 1,000 points; --json writes them all');
    const rows = all(section, 'th').filter(({ attributes }) => attributes.get('scope') === 'row');
    expect([rows.length, textOf(rows[0] as never), textOf(rows.at(-1) as never)]).toEqual([25, '0', '999']);
  });

  test('a matrix: shades by value, an empty cell for what is not there', () => {
    const value = {
      rowLabels: ['r'],
      columnLabels: ['a', 'b', 'c', 'd'],
      values: [0, 0.5, Number.NaN, 1],
      low: 0,
      high: 1,
    };
    const cells = (more: object) =>
      all(parseHtml(sectionOf({ case: 'matrix', value: { ...value, ...more } })), 'td')
        .slice(1)
        .map((cell) => [cell.attributes.get('class') ?? '-', textOf(cell)]);
    expect(cells({})).toEqual([
      ['', '0'],
      ['h6', '0.5000'],
      ['-', ''],
      ['h12', '1'],
    ]);
    expect(cells({ diverging: true, values: [-2, 1, 0, 2], low: undefined, high: undefined })).toEqual([
      ['n12', '-2'],
      ['p6', '1'],
      ['', '0'],
      ['p12', '2'],
    ]);
    const titles = { scaleTitle: 'share', rowTitle: 'features of', columnTitle: 'found in' };
    const page = parseHtml(sectionOf({ case: 'matrix', value: { ...value, ...titles } }));
    const [caption, corner] = [all(page, 'caption')[0], all(page, 'td')[0]].map((node) => textOf(node as never));
    expect([caption, corner]).toEqual(['share', 'features of ↓ → found in']);
  });

  test.each([
    [14, 'matrix'],
    [15, 'matrix dense'],
    [28, 'matrix dense'],
    [29, 'matrix dense small'],
  ])('a matrix of %i columns is drawn as %s', (columns, drawn) => {
    const columnLabels = Array.from({ length: columns }, (_, index) => `c${index}`);
    const value = { rowLabels: ['r'], columnLabels, values: columnLabels.map(() => 1) };
    const table = all(parseHtml(sectionOf({ case: 'matrix', value })), 'table')[0];
    expect(table?.attributes.get('class')).toBe(drawn);
  });

  test('tokens: a shade each by value, never none for a value that is not zero', () => {
    const tokens = [
      { text: 'a\n', value: 9 },
      { text: ' b', value: 0.001 },
      { text: 'c', value: -18 },
      { text: 'd', value: 0 },
    ];
    const section = sectionOf({ case: 'tokens', value: { sequences: [{ label: 'doc 1', tokens }], max: 18 } });
    expect(/<span class="tokens".*?<\/span><\/span>/s.exec(section)?.[0]).toMatchInlineSnapshot(`
      "<span class="tokens" role="group" aria-label="4 tokens, the largest value -18 at “c”"><span class="p6" data-value="9">a↵
      </span><span class="p1" data-value="0.001000"> b</span><span class="n12" data-value="-18">c</span><span>d</span></span>"
    `);
  });

  test('warnings, folded parts and paragraphs', () => {
    expect(sectionOf({}, { text: 'One.\n\nTwo <b>.', tone: 1, folded: true })).toBe(
      '<section id="s1" aria-labelledby="s1-h" class="warning"><details><summary><h2 id="s1-h">H</h2></summary>' +
        '<p>One.</p><p>Two &lt;b&gt;.</p></details></section>',
    );
  });

  test('plots with the same curves share one legend', () => {
    const plot = (names: string[]) => ({
      heading: 'P',
      content: { case: 'linePlot', value: { x: {}, y: {}, series: names.map((name) => ({ name, x: [1], y: [1] })) } },
    });
    const legends = (...plots: object[]) =>
      all(parseHtml(sectionOf({}, { sections: plots })), 'div', 'legend').map((legend) =>
        all(legend, 'button').map(textOf),
      );
    expect(legends(plot(['a', 'b']), plot(['c']), plot(['a', 'b']))).toEqual([['a', 'b']]);
    expect(legends(plot(['a', 'b']), plot(['a', 'c']))).toEqual([
      ['a', 'b'],
      ['a', 'c'],
    ]);
  });
});

describe('numbers of an axis', () => {
  const format = (style?: NumberStyle) => (style === undefined ? undefined : create(NumberFormatSchema, { style }));

  test.each([
    [[0, 0.2, 0.4], 0.2, undefined, '0 0.2 0.4'],
    [[-0.05, 0, 0.05], 0.05, undefined, '-0.05 0 0.05'],
    [[0, 0.00005, 0.0001], 0.00005, undefined, '0 0.00005 0.0001'],
    [[5000, 10_000, 15_000], 5000, undefined, '5k 10k 15k'],
    [[8000, 10_000], 2000, NumberStyle.INTEGER, '8k 10k'],
    [[0, 5e5, 1e6], 5e5, undefined, '0 0.5M 1.0M'],
    [[0, 0.005, 0.01], 0.005, NumberStyle.PERCENT, '0.0% 0.5% 1.0%'],
    [[0.05, 0.5], 0, NumberStyle.PERCENT, '5% 50%'],
    [[1e-5, 1, 3e9, 1e300], 0, undefined, '0.00001 1 3000000000 1e300'],
    [[0, 60], 60, NumberStyle.SECONDS, '0:00 1:00'],
  ])('%s', (ticks, step, style, written) => {
    expect(tickTexts(ticks, step, format(style)).join(' ')).toBe(written);
  });
});

test('words stand out from every shade, lines and words from the paper, in light and dark', () => {
  const [light = '', dark = ''] = paletteCss().split('@media');
  for (const css of [light, dark]) {
    const named = new Map([...css.matchAll(/--([a-z-]+):(#[0-9a-f]{6})/g)].map(([, name, colour]) => [name, colour]));
    const colour = (name: string) => named.get(name) as string;
    for (const name of ['ink', 'soft', 'accent']) expect(contrast(colour(name), colour('paper'))).toBeGreaterThan(4.5);
    for (const tone of ['warning', 'error']) {
      expect(contrast(colour(`${tone}-ink`), colour(`${tone}-paper`))).toBeGreaterThan(4.5);
      expect(contrast(colour('ink'), colour(`${tone}-paper`))).toBeGreaterThan(4.5);
    }
    const shades = [...css.matchAll(/background:(#[0-9a-f]{6});color:(#[0-9a-f]{6})/g)];
    expect(shades).toHaveLength(36);
    for (const [, back, words] of shades) expect(contrast(back as string, words as string)).toBeGreaterThan(4.5);
    const lines = [...css.matchAll(/\.[cq]\d+\{color:(#[0-9a-f]{6})/g)];
    expect(lines).toHaveLength(24);
    for (const [, line] of lines) expect(contrast(line as string, colour('paper'))).toBeGreaterThan(3);
  }
});
