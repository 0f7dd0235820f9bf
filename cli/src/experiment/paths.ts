import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';

const environmentScalar = /^\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\}$/s;

/** Replaces a whole `${env:NAME}` or `${env:NAME:-default}`; a text without it comes back unchanged. */
export function expandEnvironment(
  text: string,
  environment: NodeJS.ProcessEnv,
): { text: string; variable?: string } | { missing: string } | { malformed: true } {
  if (!text.includes('${env:')) return { text };
  const match = environmentScalar.exec(text);
  if (!match) return { malformed: true };
  const [, variable, fallback] = match as unknown as [string, string, string | undefined];
  const value = environment[variable];
  if (value) return { text: value, variable };
  return fallback === undefined ? { missing: variable } : { text: fallback };
}

/**
 * Makes a relative path absolute, and leaves names ("embedded", "Qwen/Qwen3-1.7B-Base") as they are.
 *
 * A text is a path when it says so (./ ../ / ~/ or a glob), or when it has a slash or dot and exists. A bare word is
 * always a name: otherwise a folder that happens to be called "embedded" would change the meaning of a file.
 */
export function resolvePath(text: string, folder: string): string {
  if (path.isAbsolute(text)) return text;
  if (text === '~' || text.startsWith('~/')) return path.join(homedir(), text.slice(1));
  const explicit = /^\.\.?(\/|$)/.test(text) || /[*?]/.test(text);
  const absolute = path.resolve(folder, text);
  return explicit || (/[/.]/.test(text) && existsSync(absolute)) ? absolute : text;
}
