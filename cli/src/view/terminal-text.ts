/** Texts of others on a terminal: what they may hold, and how wide they are. All functions are pure. */

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not reach a terminal
const unprintable = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}]/u;
const narrow = /^[\p{Mn}\p{Me}]$/u;

/** One line, safe for a terminal: no escape sequences, no change of direction. */
export function printable(text: string): string {
  return text.replace(/\t/g, ' ').replace(unprintable, '\ufffd');
}

/** Columns that a text takes: two for a wide character, none for a mark that stands on the one before. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) width += wide.test(character) ? 2 : narrow.test(character) ? 0 : 1;
  return width;
}
