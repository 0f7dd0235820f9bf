/** One check of `qscope doctor` for people: the verdict, what was found, and the remedy below it. */
export function checkLine({
  name,
  ok,
  text,
  remedy,
}: {
  name: string;
  ok: boolean;
  text: string;
  remedy?: string;
}): string {
  const indent = ' '.repeat(20);
  const rest = remedy ? `\n${indent}${remedy.replaceAll('\n', `\n${indent}`)}` : '';
  return `${ok ? 'ok  ' : 'FAIL'}  ${name.padEnd(12)}  ${text}${rest}`;
}
