import { ExitCode, UserError } from '../errors.js';
import { columns, hasColour } from '../view/output.js';
import { displayWidth, printable } from '../view/terminal-text.js';
import type { At } from './source.js';

/** One fault of an experiment, with its place. */
export interface Diagnostic {
  /** Path as it was given, or the option of the command line. */
  file: string;
  /** From 1. */
  line: number;
  /** From 1, in UTF-16 units. */
  column: number;
  /** Field path, for example "train_sae.layers[2]"; empty when the fault concerns the whole file. */
  path: string;
  /** What is wrong, naming the value given and the values allowed. */
  message: string;
  /** What to do instead. */
  suggestion?: string;
  /** Text of the line, for the caret. */
  sourceLine?: string;
}

/** More than anybody mends in one go; keeps the report of a file of pure noise readable. */
const MAX_DIAGNOSTICS = 100;

/** Collects the faults of one load. */
export class Diagnostics {
  readonly #list: { diagnostic: Diagnostic; order: number }[] = [];
  readonly #files = new Map<object, number>();
  readonly #seen = new Set<string>();
  #omitted = 0;

  get count(): number {
    return this.#list.length;
  }

  /** Adds a fault; the same message at the same place counts once (an alias may be read several times). */
  add(at: At, path: string, message: string, suggestion?: string): void {
    const { line, column } = at.source.position(at.offset);
    // Options stand behind the files on the command line.
    const next = at.source.isOption ? 1e6 : this.#files.size;
    const fileOrder = this.#files.get(at.source) ?? next;
    this.#files.set(at.source, fileOrder);
    // Missing fields of one group share its place.
    const key = `${fileOrder}:${at.offset}:${message}${message === 'is required' ? `:${path}` : ''}`;
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    if (this.#list.length >= MAX_DIAGNOSTICS) {
      this.#omitted += 1;
      return;
    }
    const sourceLine = at.source.line(line);
    this.#list.push({
      order: fileOrder * 1e9 + at.offset,
      diagnostic: {
        file: at.source.file,
        line,
        column,
        path,
        message,
        ...(suggestion === undefined ? {} : { suggestion }),
        ...(sourceLine === '' ? {} : { sourceLine }),
      },
    });
  }

  /** Whether a field, one above it or one below it already has a fault, so that a second text would be noise. */
  touches(path: string): boolean {
    const inside = (inner: string, outer: string) =>
      inner === outer || inner.startsWith(`${outer}.`) || inner.startsWith(`${outer}[`);
    return this.#list.some(
      ({ diagnostic }) => diagnostic.path !== '' && (inside(diagnostic.path, path) || inside(path, diagnostic.path)),
    );
  }

  /** Throws every fault found so far, in the order of the files. */
  throwIfAny(): void {
    if (this.#list.length === 0) return;
    const sorted = this.#list.toSorted((a, b) => a.order - b.order).map(({ diagnostic }) => diagnostic);
    throw new ExperimentError(sorted, this.#omitted);
  }
}

/** The experiment cannot run; holds every fault with its place. */
export class ExperimentError extends UserError {
  override readonly name: string = 'ExperimentError';
  readonly diagnostics: readonly Diagnostic[];
  /** Faults beyond those listed. */
  readonly omitted: number;

  constructor(diagnostics: readonly Diagnostic[], omitted = 0) {
    super(summary(diagnostics.length + omitted), { exitCode: ExitCode.invalid });
    this.diagnostics = diagnostics;
    this.omitted = omitted;
  }

  override render(): string {
    return renderDiagnostics(this.diagnostics, {
      color: hasColour('stderr'),
      columns: columns('stderr'),
      omitted: this.omitted,
    });
  }

  toJSON(): { diagnostics: ReturnType<typeof toJson>; omitted: number } {
    return { diagnostics: toJson(this.diagnostics), omitted: this.omitted };
  }
}

function summary(count: number): string {
  return count === 1 ? 'the experiment has 1 fault' : `the experiment has ${count} faults`;
}

/** The faults as plain data, without the text of their lines. */
export function toJson(diagnostics: readonly Diagnostic[]): Omit<Diagnostic, 'sourceLine'>[] {
  return diagnostics.map(({ sourceLine: _, ...rest }) => rest);
}

export interface RenderOptions {
  color: boolean;
  /** Width of the terminal. */
  columns: number;
  /** Faults beyond those given. */
  omitted?: number;
}

/** `FILE:LINE:COLUMN path: message`, the line, a caret, the suggestion; ends with the count, without a newline. */
export function renderDiagnostics(diagnostics: readonly Diagnostic[], options: RenderOptions): string {
  const paint = (code: number, text: string) => (options.color ? `\u001b[${code}m${text}\u001b[0m` : text);
  const blocks = diagnostics.map((diagnostic) => {
    const { file, line, column, path, message, suggestion, sourceLine } = diagnostic;
    const place = paint(1, printable(`${file}:${line}:${column}`));
    const lines = [`${place} ${path === '' ? '' : `${paint(36, printable(path))}: `}${printable(message)}`];
    if (sourceLine !== undefined) {
      const { text, caret } = excerpt(sourceLine, column, Math.max(20, options.columns) - 4);
      lines.push(`  ${text}`, `  ${caret}${paint(31, '^')}`);
    }
    if (suggestion !== undefined) lines.push(`  ${paint(32, printable(suggestion))}`);
    return lines.join('\n');
  });
  const count = summary(diagnostics.length + (options.omitted ?? 0));
  const tail = options.omitted ? `${count}; the first ${diagnostics.length} are shown` : count;
  return [...blocks, tail].join('\n');
}

/** The part of a line around a column that fits the width, and the blanks that put a caret below that column. */
function excerpt(line: string, column: number, width: number): { text: string; caret: string } {
  const start = column > width - 8 ? column - Math.floor(width / 2) : 0;
  const before = printable(line.slice(start, column - 1));
  let room = width - displayWidth(before);
  let after = '';
  for (const character of printable(line.slice(column - 1, column - 1 + width))) {
    room -= displayWidth(character);
    if (room < 0) break;
    after += character;
  }
  return { text: (before + after).trimEnd(), caret: ' '.repeat(displayWidth(before)) };
}
