import { readdirSync } from 'node:fs';
import path from 'node:path';

/** The candidate a person most likely meant, or nothing when none is close. Ties go to the earlier candidate. */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  if (word.length > 64) return undefined;
  const target = normalise(word);
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(target.length * 0.4)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(target, normalise(candidate));
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Name in the folder of a missing file that is close to it; the ending does not count. */
export function nearestFile(absolute: string): string | undefined {
  try {
    const names = readdirSync(path.dirname(absolute)).slice(0, 1000).sort();
    const stem = (name: string) => path.parse(name).name;
    const near = nearest(stem(absolute), names.map(stem));
    return names.find((name) => stem(name) === near);
  } catch {
    return undefined;
  }
}

// Case, dashes and camelCase are the usual slips; they should cost nothing.
function normalise(word: string): string {
  return word.toLowerCase().replace(/[-_ .]/g, '');
}

/** Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let value = Math.min((row[j - 1] as number) + 1, (last[j] as number) + 1, (last[j - 1] as number) + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        value = Math.min(value, (beforeLast[j - 2] as number) + 1);
      }
      row.push(value);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] as number;
}
