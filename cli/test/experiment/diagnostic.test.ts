import { expect, test } from 'vitest';
import { type Diagnostic, renderDiagnostics, toJson } from '../../src/experiment/diagnostic.js';

const fault: Diagnostic = {
  file: 'e.yaml',
  line: 3,
  column: 8,
  path: 'train_sae.sae.k',
  message: 'must be between 1 and 65536, not 0',
  suggestion: 'write 50',
  sourceLine: '  k:   0   # features',
};

test('place, message, line, caret, suggestion, count', () => {
  expect(renderDiagnostics([fault], { color: false, columns: 80 })).toMatchInlineSnapshot(`
    "e.yaml:3:8 train_sae.sae.k: must be between 1 and 65536, not 0
        k:   0   # features
             ^
      write 50
    the experiment has 1 fault"
  `);
});

test('colours carry no text of their own', () => {
  const painted = renderDiagnostics([fault], { color: true, columns: 80 });
  expect(painted).toContain('\u001b[');
  expect(
    painted
      .split('\u001b')
      .map((part, index) => (index === 0 ? part : part.replace(/^\[\d+m/, '')))
      .join(''),
  ).toBe(renderDiagnostics([fault], { color: false, columns: 80 }));
});

test('the caret stands below its column after wide characters and tabs', () => {
  const sourceLine = '\t名: {k: 0}';
  const [, line, caret] = renderDiagnostics([{ ...fault, column: 9, sourceLine }], { color: false, columns: 80 }).split(
    '\n',
  );
  expect(line).toBe('   名: {k: 0}');
  // The wide character takes two columns but is one in the text.
  expect(caret?.indexOf('^')).toBe((line?.indexOf('0') ?? 0) + 1);
});

test('long lines are cut around the fault', () => {
  const sourceLine = `${'a'.repeat(300)}X${'b'.repeat(300)}`;
  const lines = renderDiagnostics([{ ...fault, column: 301, sourceLine }], { color: false, columns: 60 }).split('\n');
  expect(lines[1]?.length).toBeLessThanOrEqual(60);
  expect(lines[1]?.[lines[2]?.indexOf('^') ?? -1]).toBe('X');
});

test('control characters do not reach the terminal', () => {
  const hostile = 'a\u001b[31m\u202eb';
  const everywhere = { file: hostile, path: hostile, message: hostile, suggestion: hostile, sourceLine: hostile };
  const rendered = renderDiagnostics([{ ...fault, column: 1, ...everywhere }], { color: false, columns: 80 });
  expect(rendered).not.toMatch(/(?!\n)[\p{Cc}\u202e]/u);
  expect(rendered.split('a\ufffd[31m\ufffdb').length).toBe(6);
});

test('as data', () => {
  const { sourceLine: _, ...rest } = fault;
  expect(toJson([fault])).toEqual([rest]);
});
