/** "2026-03-01 14:05 UTC": whoever gets the page may be in another place. */
export function utcTime(time: Date): string {
  return `${time.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}
