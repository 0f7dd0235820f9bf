import { expect, test } from 'vitest';
import { wrap } from '../src/wrap.js';

test('breaks at spaces, keeps line feeds, and leaves long words whole', () => {
  expect(wrap('one two three', 7)).toEqual(['one two', 'three']);
  expect(wrap('one two three', 80)).toEqual(['one two three']);
  expect(wrap('a\nb c', 80)).toEqual(['a', 'b c']);
  expect(wrap('an extraordinary word', 5)).toEqual(['an', 'extraordinary', 'word']);
  expect(wrap('', 5)).toEqual(['']);
});

test('loses no character but the spaces at which it breaks', () => {
  const text =
    'warning: 20 steps are few for an SAE: expect a large FVU. Raise train_sae.tokens or lower batch_tokens.';
  for (let width = 1; width < 120; width++) {
    const lines = wrap(text, width);
    expect(lines.join(' ')).toBe(text);
    for (const line of lines) expect(line.length <= width || !line.includes(' ')).toBe(true);
  }
});
