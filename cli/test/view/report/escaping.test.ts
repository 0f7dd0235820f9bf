import { readFileSync } from 'node:fs';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ReportSchema } from '../../../src/gen/qscope/v1/report_pb.js';
import { reportPage } from '../../../src/view/report/page.js';
import { all, type Element, elements, parseHtml, textOf } from '../../support/html.js';
import { EVERY_KIND } from './fixture.js';

const EVIL = [
  '<script>alert(1)</script>',
  '</script><script>alert(1)</script>',
  '</style><img src=x onerror=alert(1)>',
  '" onfocus="alert(1)" autofocus x="',
  "' onfocus='alert(1)' x='",
  '<svg/onload=alert(1)>',
  '</title></textarea><b>',
  '<!--',
  '-->',
  ']]>',
  '<![CDATA[',
  '&lt;b&gt;',
  '&#x3c;b>',
  '`+alert(1)+`',
  'javascript:alert(1)',
  '\u0000<\u0000s\u0000cript>',
  '\u202e<b>\u2066',
  '\u2028</script\u2029>',
];

const hostile = fc
  .array(fc.oneof(fc.constantFrom(...EVIL), fc.string({ unit: 'binary', maxLength: 12 })), {
    minLength: 1,
    maxLength: 3,
  })
  .map((parts) => parts.join(''));

const template: JsonValue = JSON.parse(readFileSync(EVERY_KIND, 'utf8'));

/** A copy of a value with every text in it replaced; equal texts by equal ones, empty ones not at all. */
function withTexts(value: JsonValue, replace: (text: string) => string, key = ''): JsonValue {
  if (typeof value === 'string') {
    const isText = value !== '' && !/^(REPORT_TONE|NUMBER_STYLE)_/.test(value) && value !== 'NaN' && key !== 'n';
    return isText ? replace(value) : value;
  }
  if (Array.isArray(value)) return value.map((item) => withTexts(item, replace, key));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, withTexts(item, replace, name)]));
}

function pageWith(texts: readonly string[], change: (text: string) => string): Element {
  const known = new Map<string, string>();
  const replaced = withTexts(template, (text) => {
    // A number of its own keeps texts that were different different.
    if (!known.has(text)) known.set(text, `${texts[known.size % texts.length]}${known.size}`);
    return change(known.get(text) as string);
  });
  const [kicker = '', colophon = kicker] = texts.map(change);
  return parseHtml(reportPage(fromJson(ReportSchema, replaced), { kicker, colophon }));
}

/** The page without its texts: elements and the names of their attributes. */
function skeleton(page: Element): string[] {
  return [...elements(page)].map(({ name, attributes }) => [name, ...attributes.keys()].join(' '));
}

const harmless = (text: string) => text.replace(/[<>"'`&]/g, 'x');

test('whatever a text holds, it stays text: the page has the same elements and attributes as with harmless ones', () => {
  fc.assert(
    fc.property(fc.array(hostile, { minLength: 4, maxLength: 8 }), (texts) => {
      const page = pageWith(texts, (text) => text);
      expect(skeleton(page)).toEqual(skeleton(pageWith(texts, harmless)));
      // And it is all there, for the reader to see.
      const seen = textOf(page);
      for (const text of texts) {
        for (const word of text.matchAll(/[a-z<>&;()"'=]{6,}/g)) expect(seen).toContain(word[0]);
      }
      for (const script of all(page, 'script').filter(({ attributes }) => attributes.has('type'))) {
        expect(script.children[0]).not.toContain('<');
        JSON.parse(script.children[0] as string);
      }
    }),
    { numRuns: 40 },
  );
});

test('the test sees what it is there to see', () => {
  const [evil = ''] = EVIL;
  expect(() => parseHtml(`<p class="${evil}"></p>`)).toThrow('no HTML of ours');
  expect(() => parseHtml(`<p>${EVIL[7]}</p>`)).toThrow('no HTML of ours');
  expect(() => parseHtml('<p>a & b</p>')).toThrow('a bare &');
  expect(() => parseHtml('<p onclick=x></p>')).toThrow('no HTML of ours');
  expect(skeleton(parseHtml(`<p>${evil}</p>`))).toEqual(['p', 'script']);
});
