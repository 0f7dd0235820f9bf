import { closeSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import type { Diagnostics } from './diagnostic.js';
import { nearestFile } from './nearest.js';

/** Far above any experiment file (a complete one has about 4 KiB), far below what slows the YAML parser down. */
export const MAX_BYTES = 128 * 1024;

/** Name of the source that holds the `--set` options, one a line; an option that stands for one has its own name. */
export const SET_FILE = '--set';

/** A place in a text: what every diagnostic points at. */
export interface At {
  source: Source;
  /** In UTF-16 units from the start of the text. */
  offset: number;
}

export interface SourceInit {
  file: string;
  folder: string;
  text: string;
  isOption?: boolean;
}

/** One text that experiments are read from: a file, or all `--set` options, one a line. */
export class Source {
  /** Name shown to people: the path as it was given, or that of an option of the command line. */
  readonly file: string;
  /** Given on the command line rather than in a file. */
  readonly isOption: boolean;
  /** Folder against which the paths in this text are resolved. */
  readonly folder: string;
  readonly text: string;
  readonly #lineStarts = [0];

  constructor({ file, folder, text, isOption = false }: SourceInit) {
    this.file = file;
    this.isOption = isOption;
    this.folder = folder;
    this.text = text;
    for (let index = text.indexOf('\n'); index >= 0; index = text.indexOf('\n', index + 1)) {
      this.#lineStarts.push(index + 1);
    }
  }

  /** Line and column, both from 1. */
  position(offset: number): { line: number; column: number } {
    let low = 0;
    let high = this.#lineStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#lineStarts[middle] as number) <= offset) low = middle;
      else high = middle - 1;
    }
    return { line: low + 1, column: offset - (this.#lineStarts[low] as number) + 1 };
  }

  /** Text of a line counted from 1, without its end. */
  line(number: number): string {
    const start = this.#lineStarts[number - 1];
    if (start === undefined) return '';
    const end = this.#lineStarts[number];
    return this.text.slice(start, end === undefined ? undefined : end - 1).replace(/\r$/, '');
  }
}

/**
 * Reads a file, or reports at `from` (where an `extends` names it) or at its own first line why it cannot be read.
 *
 * The read is bounded rather than checked by size beforehand, so pipes and devices are as safe as files.
 */
export function readSource(
  file: string,
  { cwd, from, diagnostics }: { cwd: string; from?: At; diagnostics: Diagnostics },
): Source | undefined {
  const absolute = path.resolve(cwd, file);
  const folder = path.dirname(absolute);
  const report = (message: string, suggestion?: string, source?: Source, offset = 0) => {
    const at = source ? { source, offset } : (from ?? { source: new Source({ file, folder, text: '' }), offset: 0 });
    diagnostics.add(at, '', message, suggestion);
    return undefined;
  };

  let bytes: Uint8Array;
  try {
    bytes = readAtMost(absolute, MAX_BYTES + 1);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EISDIR') return report(`${file} is a folder`, 'name a YAML file inside it');
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      const near = nearestFile(absolute);
      return report(
        `there is no file ${file}`,
        near ? `did you mean ${path.join(path.dirname(file), near)}?` : undefined,
      );
    }
    return report(`${file} cannot be read (${code ?? String(error)})`);
  }
  if (bytes.length > MAX_BYTES) {
    return report(`${file} is larger than ${MAX_BYTES / 1024} KiB, too large for an experiment file`);
  }
  try {
    return new Source({ file, folder, text: new TextDecoder('utf-8', { fatal: true }).decode(bytes) });
  } catch {
    const source = new Source({ file, folder, text: new TextDecoder('utf-8').decode(bytes) });
    const offset = Math.max(0, source.text.indexOf('\ufffd'));
    return report('the file is not UTF-8 text', 'save it as UTF-8', source, offset);
  }
}

function readAtMost(file: string, limit: number): Uint8Array {
  const descriptor = openSync(file, 'r');
  try {
    const buffer = Buffer.alloc(limit);
    let length = 0;
    while (length < limit) {
      const count = readSync(descriptor, buffer, length, limit - length, null);
      if (count === 0) break;
      length += count;
    }
    return buffer.subarray(0, length);
  } finally {
    closeSync(descriptor);
  }
}
