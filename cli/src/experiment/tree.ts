import type { At } from './source.js';

/**
 * YAML values with their places, free of anchors, aliases and merge keys. Several files merge into one tree whose
 * every node still knows the file it came from.
 */
export type Tree = MapTree | ListTree | ScalarTree;

export interface MapTree {
  kind: 'map';
  at: At;
  entries: Map<string, Entry>;
}

export interface Entry {
  keyAt: At;
  value: Tree;
}

export interface ListTree {
  kind: 'list';
  at: At;
  items: Tree[];
}

export interface ScalarTree {
  kind: 'scalar';
  at: At;
  /** Integers are bigint, other numbers are number. */
  value: string | number | bigint | boolean | null;
  /** The text as written, without quotes. */
  text: string;
  quoted: boolean;
}

/** `above` over `below`: mappings merge key by key, everything else is replaced. An empty value keeps a mapping. */
export function merge(below: Tree, above: Tree): Tree {
  if (below.kind === 'map' && above.kind === 'scalar' && above.value === null) return below;
  if (below.kind !== 'map' || above.kind !== 'map') return above;
  const entries = new Map(below.entries);
  for (const [key, entry] of above.entries) {
    const old = entries.get(key);
    entries.set(key, old ? { keyAt: entry.keyAt, value: merge(old.value, entry.value) } : entry);
  }
  return { kind: 'map', at: above.at, entries };
}
