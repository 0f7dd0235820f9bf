import type { ChalkInstance } from 'chalk';

/**
 * The only door to the terminal. stdout is data, stderr is for people.
 * Everything else in the program hands its text to these functions.
 */

/** Writes a line of data to stdout. */
export function printLine(text = ''): void {
  writeTo(process.stdout, `${text}\n`);
}

/** Writes one compact JSON value and a newline to stdout. */
export function printJson(value: unknown): void {
  printLine(JSON.stringify(value));
}

/** Writes a line for people to stderr. */
export function printNote(text = ''): void {
  writeTo(process.stderr, `${text}\n`);
}

/** Writes text as it is; for help texts that bring their own newlines. */
export function writeText(stream: 'stdout' | 'stderr', text: string): void {
  writeTo(process[stream], text);
}

let colourAllowed = true;

/** Switches colours off for the whole program (`--no-color`). */
export function forbidColour(): void {
  colourAllowed = false;
}

/** True when colours may be written to the stream. chalk itself knows nothing of NO_COLOR. */
export function hasColour(stream: 'stdout' | 'stderr'): boolean {
  const { NO_COLOR, TERM } = process.env;
  return colourAllowed && !NO_COLOR && TERM !== 'dumb' && process[stream].isTTY === true;
}

/** chalk for one stream, at level 0 where colours are not wanted. */
export async function colours(stream: 'stdout' | 'stderr'): Promise<ChalkInstance> {
  const { Chalk, supportsColor, supportsColorStderr } = await import('chalk');
  if (!hasColour(stream)) return new Chalk({ level: 0 });
  const support = stream === 'stdout' ? supportsColor : supportsColorStderr;
  return new Chalk({ level: support ? support.level : 1 });
}

/** Width of the terminal; 80 where it is unknown. Some pseudo-terminals (CI, `docker run -t`) claim 0 columns. */
export function columns(stream: 'stdout' | 'stderr'): number {
  return process[stream].columns || 80;
}

/** True when a line may be rewritten in place on stderr. */
export function canRewriteLines(): boolean {
  return process.stderr.isTTY === true && process.stderr.columns > 0 && !process.env.CI && process.env.TERM !== 'dumb';
}

/** True when a person can answer a question. */
export function canPrompt(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true && !process.env.CI;
}

const broken = new AbortController();

/** Aborted once the reader of stdout or stderr has gone (`| head`, a closed terminal). */
export const outputClosed: AbortSignal = broken.signal;

let onClosed: () => void = () => process.exit();

/**
 * Leaves quietly when nobody reads any more. A command that must first put things in order
 * (stop a run, close a worker) replaces the default, which ends the process at once.
 */
export function whenOutputCloses(action: () => void): () => void {
  const previous = onClosed;
  onClosed = action;
  return () => {
    onClosed = previous;
  };
}

const guarded = new Set<NodeJS.WriteStream>();

/**
 * An `error` event without a listener would be a crash with a stack trace. A stream is guarded at its first use: opening
 * one that is not needed costs several milliseconds.
 */
function guard(stream: NodeJS.WriteStream): void {
  if (guarded.has(stream)) return;
  guarded.add(stream);
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // EIO is what a vanished terminal answers.
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
    if (broken.signal.aborted) return;
    broken.abort();
    onClosed();
  });
}

function writeTo(stream: NodeJS.WriteStream, text: string): void {
  if (broken.signal.aborted) return;
  guard(stream);
  stream.write(text);
}
