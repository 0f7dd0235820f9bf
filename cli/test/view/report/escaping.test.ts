import fc from 'fast-check';
import { expect, test } from 'vitest';
import { all, type Element, elements, parseHtml, textOf } from '../../support/html.js';
import { EVIL, pageWith } from './fixture.js';

const hostile = fc
  .array(fc.oneof(fc.constantFrom(...EVIL), fc.string({ unit: 'binary', maxLength: 12 })), {
    minLength: 1,
    maxLength: 3,
  })
  .map((parts) => parts.join(''));

/** The page without its texts: elements and the names of their attributes. */
function skeleton(page: Element): string[] {
  return [...elements(page)].map(({ name, attributes }) => [name, ...attributes.keys()].join(' '));
}

const harmless = (text: string) => text.replace(/[<>"'`&]/g, 'x');

test('whatever a text holds, it stays text: the page has the same elements and attributes as with harmless ones', () => {
  fc.assert(
    fc.property(fc.array(hostile, { minLength: 4, maxLength: 8 }), (texts) => {
      const page = parseHtml(pageWith(texts));
      expect(skeleton(page)).toEqual(skeleton(parseHtml(pageWith(texts, harmless))));
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
