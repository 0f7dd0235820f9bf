import type { ChalkInstance } from 'chalk';
import type { PlanSample } from '../gen/qscope/v1/run_pb.js';
import { displayWidth, printable } from './terminal-text.js';

export interface SampleOptions {
  /** Columns of the terminal. */
  width: number;
  paint: ChalkInstance;
}

/** A character as it is shown, and whether training sees it. */
interface Cell {
  text: string;
  answer: boolean;
}

const INDENT = '  ';
/** Characters of a segment beyond which its middle is left out: both of its ends are what has to be seen. */
const LONG = 480;
const HEAD = 280;
const TAIL = 140;
/** Segments of a row (turns of a conversation) beyond which those in the middle are left out. */
const SEGMENTS = 8;

/**
 * The first rows as the model will read them. What is trained on is underlined: by the terminal where it has colours,
 * else by a line of carets. An arrow stands for a line feed.
 */
export function sampleLines(samples: readonly PlanSample[], options: SampleOptions): string[] {
  return samples.flatMap((sample, index) => [
    ...(index > 0 ? [''] : []),
    options.paint.bold(heading(sample, index, samples.length)),
    ...rowLines(cells(sample), options),
    ...(sample.rightAnswer ? [`right answer: ${printable(sample.rightAnswer)}`] : []),
  ]);
}

function heading({ row, language, tokens, answerTokens }: PlanSample, index: number, count: number): string {
  const facts = [`row ${row}`, language || 'language unknown', `${tokens} tokens`];
  if (answerTokens > 0) facts.push(`${answerTokens} of them trained on`);
  return `sample ${index + 1} of ${count}: ${facts.join(', ')}`;
}

function cells({ segments }: PlanSample): Cell[] {
  const skipped = segments.length - SEGMENTS;
  const shown =
    skipped > 0 ? [...segments.slice(0, SEGMENTS / 2), undefined, ...segments.slice(-SEGMENTS / 2)] : segments;
  return shown.flatMap((segment) => {
    if (!segment) return plain(`[... ${skipped} parts ...]\n`);
    const { text, answer } = segment;
    const characters = [...text].map((character): Cell => ({ text: visible(character), answer }));
    if (characters.length <= LONG) return characters;
    const left = characters.length - HEAD - TAIL;
    return [...characters.slice(0, HEAD), ...plain(`\n[... ${left} characters ...]\n`), ...characters.slice(-TAIL)];
  });
}

/** What is said about a row rather than part of it. */
function plain(text: string): Cell[] {
  return [...text].map((character) => ({ text: character, answer: false }));
}

function visible(character: string): string {
  if (character === '\n') return '\u21b5\n';
  return character === '\t' ? '\u21e5' : printable(character);
}

function rowLines(row: Cell[], { width, paint }: SampleOptions): string[] {
  return linesOf(row, width - INDENT.length).flatMap((line) => {
    if (paint.level > 0) {
      return [
        INDENT +
          runs(line)
            .map(({ text, answer }) => (answer ? paint.green.underline(text) : text))
            .join(''),
      ];
    }
    const text = line.map((cell) => cell.text).join('');
    const carets = line.map((cell) => (cell.answer ? '^' : ' ').repeat(displayWidth(cell.text))).join('');
    return carets.includes('^') ? [INDENT + text, INDENT + carets.trimEnd()] : [INDENT + text];
  });
}

/** Lines of at most `width` columns: broken after line feeds, after a space where there is one in the latter half. */
function linesOf(row: Cell[], width: number): Cell[][] {
  const lines: Cell[][] = [];
  let line: Cell[] = [];
  let used = 0;
  for (const cell of row) {
    const text = cell.text.replace('\n', '');
    const needed = displayWidth(text);
    if (used + needed > width) {
      const space = line.findLastIndex(({ text }) => text === ' ');
      const rest = space > line.length / 2 ? line.splice(space + 1) : [];
      lines.push(line);
      line = rest;
      used = displayWidth(rest.map(({ text }) => text).join(''));
    }
    line.push({ ...cell, text });
    used += needed;
    if (cell.text.endsWith('\n')) {
      lines.push(line);
      line = [];
      used = 0;
    }
  }
  return line.length > 0 ? [...lines, line] : lines;
}

/** Neighbours that are shown alike, as one text. */
function runs(line: Cell[]): Cell[] {
  const joined: Cell[] = [];
  for (const { text, answer } of line) {
    const last = joined.at(-1);
    if (last && last.answer === answer) last.text += text;
    else joined.push({ text, answer });
  }
  return joined;
}
