import { realpathSync } from 'node:fs';
import path from 'node:path';
import type { DescMessage } from '@bufbuild/protobuf';
import type { Diagnostics } from './diagnostic.js';
import { join, pathsOf } from './fields.js';
import { nearest } from './nearest.js';
import { type At, readSource, SET_FILE, Source } from './source.js';
import { type MapTree, merge, type Tree } from './tree.js';
import { parseYaml } from './yaml.js';

/** Deeper chains are a mistake, and a bound keeps the stack small. */
const MAX_EXTENDS = 16;

interface Context {
  cwd: string;
  diagnostics: Diagnostics;
  /** Every file that was read, lowest first. */
  sources: Source[];
  /** Fields that a misspelt name probably meant. */
  meant: Set<string>;
  /** A file could not be read: what it may have given is not missing. */
  incomplete: boolean;
}

/** Reads a file below the files it extends. */
export function readFileTree(file: string, context: Context, from?: At, chain: string[] = []): MapTree | undefined {
  const { cwd, diagnostics } = context;
  const incomplete = () => {
    context.incomplete = true;
    return undefined;
  };
  const source = readSource(file, from ? { cwd, diagnostics, from } : { cwd, diagnostics });
  if (!source) return incomplete();
  const tree = parseYaml(source, diagnostics);
  const base = tree?.kind === 'map' ? readBase(tree, source, context, [...chain, path.resolve(cwd, file)]) : undefined;
  context.sources.push(source);
  if (!tree) return incomplete();
  if (tree.kind !== 'map') {
    const empty = tree.kind === 'scalar' && tree.value === null;
    const found = empty ? 'the file is empty' : `the file holds a ${tree.kind === 'list' ? 'list' : 'single value'}`;
    diagnostics.add(tree.at, '', `${found}, not an experiment`, 'start from `qscope config init`');
    return incomplete();
  }
  const own = { ...tree, entries: new Map([...tree.entries].filter(([key]) => key !== 'extends')) };
  if (tree.entries.has('extends') && !base) incomplete();
  return base ? (merge(base, own) as MapTree) : own;
}

function readBase(tree: MapTree, source: Source, context: Context, chain: string[]): MapTree | undefined {
  const { cwd, diagnostics } = context;
  const entry = tree.entries.get('extends');
  if (!entry) return undefined;
  const value = entry.value;
  if (value.kind !== 'scalar' || typeof value.value !== 'string' || value.value === '') {
    diagnostics.add(value.at, 'extends', 'expected the path of one YAML file', 'write extends: ./base.yaml');
    return undefined;
  }
  if (value.value.includes('\0')) {
    diagnostics.add(value.at, 'extends', 'the path holds a NUL character');
    return undefined;
  }
  const absolute = path.resolve(source.folder, value.value);
  if (chain.some((seen) => sameFile(seen, absolute)) || chain.length > MAX_EXTENDS) {
    const names = [...chain, absolute].map((name) => path.basename(name)).join(' -> ');
    diagnostics.add(
      value.at,
      'extends',
      chain.length > MAX_EXTENDS
        ? 'too many files extend each other'
        : `the files extend each other in a circle: ${names}`,
    );
    return undefined;
  }
  // A path close by is shown relative, as the person would type it.
  const relative = path.relative(cwd, absolute);
  return readFileTree(relative.startsWith('../..') ? absolute : relative, context, value.at, chain);
}

function sameFile(a: string, b: string): boolean {
  try {
    return realpathSync(a) === realpathSync(b);
  } catch {
    return a === b;
  }
}

/** `PATH=VALUE` that another option than `--set` stands for; its faults carry that option's name. */
export interface OptionSetting {
  option: string;
  setting: string;
}

export type Setting = string | OptionSetting;

/** Turns `PATH=VALUE` arguments into one source, a line each, and a tree that goes over all files. */
export function readSetTree(settings: readonly Setting[], desc: DescMessage, context: Context): Tree | undefined {
  const written = settings.filter((setting) => typeof setting === 'string');
  const source = optionSource(SET_FILE, written.join('\n'), context);
  let start = 0;
  let result: Tree | undefined;
  for (const setting of settings) {
    const own = typeof setting === 'string' ? undefined : setting;
    const text = own ? own.setting : (setting as string);
    const tree = own
      ? readSetting(text, 0, optionSource(own.option, text, context), desc, context)
      : readSetting(text, start, source, desc, context);
    if (tree) result = result ? merge(result, tree) : tree;
    if (!own) start += text.length + 1;
  }
  return result;
}

function optionSource(file: string, text: string, { cwd }: Context): Source {
  return new Source({ file, folder: cwd, text, isOption: true });
}

function readSetting(
  setting: string,
  start: number,
  source: Source,
  root: DescMessage,
  context: Context,
): Tree | undefined {
  const { diagnostics } = context;
  const equals = setting.indexOf('=');
  if (equals <= 0) {
    diagnostics.add(
      { source, offset: start },
      '',
      `expected PATH=VALUE, not ${JSON.stringify(setting.slice(0, 60))}`,
      'for example --set train_sae.sae.k=32',
    );
    return undefined;
  }
  const names = setting.slice(0, equals).trim().split('.');
  const places: At[] = [];
  let desc: DescMessage | undefined = root;
  let offset = start + (setting.length - setting.trimStart().length);
  for (const [index, name] of names.entries()) {
    const at = { source, offset };
    const parent = names.slice(0, index).join('.');
    if (!desc) {
      diagnostics.add(at, join(parent, name), `${parent} holds a value, not fields`, `write ${parent}=VALUE`);
      return undefined;
    }
    const field: (typeof desc.fields)[number] | undefined = desc.fields.find((candidate) => candidate.name === name);
    if (!field) {
      reportUnknownPath(desc, root, name, parent, at, context);
      return undefined;
    }
    places.push(at);
    desc = field.fieldKind === 'message' ? field.message : undefined;
    offset += name.length + 1;
  }
  const value = parseYaml(source, diagnostics, start + equals + 1, start + setting.length);
  return (
    value &&
    names.reduceRight<Tree>((tree, name, index) => {
      const keyAt = places[index] as At;
      return { kind: 'map', at: keyAt, entries: new Map([[name, { keyAt, value: tree }]]) };
    }, value)
  );
}

function reportUnknownPath(
  desc: DescMessage,
  root: DescMessage,
  name: string,
  parent: string,
  at: At,
  { diagnostics, meant }: Context,
): void {
  const list = /^(.*)\[\d*\]$/.exec(name);
  const elsewhere = pathsOf(name, desc, parent).at(0) ?? pathsOf(name, root).at(0);
  const near = nearest(
    name,
    desc.fields.map((field) => field.name),
  );
  if (near) meant.add(join(parent, near));
  const suggestion = list
    ? `lists are replaced as a whole: ${join(parent, list[1] as string)}=[...]`
    : elsewhere
      ? `did you mean ${elsewhere}?`
      : near
        ? `did you mean ${join(parent, near)}?`
        : `the fields here are ${desc.fields.map((field) => field.name).join(', ')}`;
  diagnostics.add(at, join(parent, name.slice(0, 40)), 'unknown field', suggestion);
}
