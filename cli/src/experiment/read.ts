import { create, type DescField, type DescMessage, type Message, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { Diagnostics } from './diagnostic.js';
import { fieldInfo, isRequired, join, pathsOf } from './fields.js';
import { nearest } from './nearest.js';
import { expandEnvironment, resolvePath } from './paths.js';
import { expected, readScalar } from './scalars.js';
import { type At, Source } from './source.js';
import { type Entry, type MapTree, merge, type ScalarTree, type Tree } from './tree.js';
import { parseYaml } from './yaml.js';

/** Where the value of a field came from. */
export type Origin = { kind: 'default' } | { kind: 'given'; at: At; variable?: string };

export interface ReadContext {
  diagnostics: Diagnostics;
  /** Field path to origin, for every field that is set. */
  origins: Map<string, Origin>;
  /** Field path to the place a fault of that field points at: its value, or its key where it is a group. */
  places: Map<string, At>;
  /** Fields that a misspelt name probably meant: they are not missing as well. */
  meant: Set<string>;
  /** A file could not be read: what it may have given is not missing. */
  incomplete: boolean;
  environment: NodeJS.ProcessEnv;
  /** Where the shell stands. */
  cwd: string;
}

type FieldOf<Kind extends DescField['fieldKind']> = DescField & { fieldKind: Kind };

/**
 * Reads a tree and a descriptor in step into a complete message: what the tree does not name takes its default, and
 * groups that are not named are made of defaults. Members of a oneof are only made when named.
 */
export function readMessage(desc: DescMessage, tree: Tree | undefined, path: string, context: ReadContext): Message {
  const message = reflect(desc, create(desc));
  const map = tree && asMap(desc, tree, path, context);
  const given = new Map<DescField, Entry>();
  for (const [key, entry] of map?.entries ?? []) {
    const field = desc.fields.find(({ name }) => name === key);
    if (field) given.set(field, entry);
    else reportUnknown(desc, key, entry.keyAt, path, context);
  }
  for (const oneof of desc.oneofs) {
    const [first, ...others] = oneof.fields.flatMap((field) => {
      const entry = given.get(field);
      return entry ? [{ field, at: entry.keyAt }] : [];
    });
    for (const other of others) {
      if (!first) break;
      const line = `${first.at.source.file}:${first.at.source.position(first.at.offset).line}`;
      const memberPath = join(path, other.field.name);
      context.diagnostics.add(
        other.at,
        memberPath,
        `only one of ${first.field.name} and ${other.field.name} may be given`,
        `${first.field.name} is at ${line}`,
      );
      given.delete(other.field);
    }
  }
  for (const field of desc.fields) {
    const fieldPath = join(path, field.name);
    const entry = given.get(field);
    if (entry) {
      noteOrigin(field, entry, fieldPath, context);
      setField(message, field, entry.value, fieldPath, context);
    } else if (!field.oneof) {
      setDefault(message, field, path, context);
    }
  }
  return message.message;
}

function noteOrigin(field: DescField, { keyAt, value }: Entry, path: string, { origins, places }: ReadContext): void {
  // What the contract says a group holds is nobody's fault, and has no place.
  if (defaultSources.has(keyAt.source)) {
    origins.set(path, { kind: 'default' });
    return;
  }
  const at = field.fieldKind === 'message' || value.kind === 'map' ? keyAt : value.at;
  places.set(path, isEmpty(value) ? keyAt : at);
  origins.set(path, { kind: 'given', at: keyAt });
}

function isEmpty(tree: Tree): boolean {
  return tree.kind === 'scalar' && tree.value === null;
}

function asMap(desc: DescMessage, tree: Tree, path: string, { diagnostics }: ReadContext): MapTree | undefined {
  if (tree.kind === 'map') return tree;
  if (isEmpty(tree)) return undefined;
  const names = desc.fields.map(({ name }) => name);
  const sample = names.length > 4 ? `${names.slice(0, 4).join(', ')}, ...` : names.join(', ');
  const what = tree.kind === 'list' ? 'a list' : 'a single value';
  diagnostics.add(tree.at, path, `expected a mapping (${sample}), not ${what}`);
  return undefined;
}

function reportUnknown(
  desc: DescMessage,
  key: string,
  at: At,
  path: string,
  { diagnostics, meant }: ReadContext,
): void {
  const names = desc.fields.map(({ name }) => name);
  const shown = key.length > 40 ? `${key.slice(0, 40)}...` : key;
  const elsewhere = pathsOf(key, desc, path).at(0);
  const near = nearest(key, names);
  if (near) meant.add(join(path, near));
  const suggestion = elsewhere
    ? `did you mean ${elsewhere}?`
    : near
      ? `did you mean ${near}?`
      : `the fields here are ${names.join(', ')}`;
  diagnostics.add(at, join(path, shown), 'unknown field', suggestion);
}

function setDefault(message: ReflectMessage, field: DescField, parent: string, context: ReadContext): void {
  const path = join(parent, field.name);
  const { default: text, doc, optional } = fieldInfo(field);
  if (field.fieldKind === 'message') {
    if (optional) return;
    context.origins.set(path, { kind: 'default' });
    message.set(field, reflect(field.message, readMessage(field.message, defaultGroup(field), path, context)));
    return;
  }
  context.origins.set(path, { kind: 'default' });
  if (text !== '') {
    const diagnostics = new Diagnostics();
    const tree = defaultTree(text, diagnostics);
    if (tree) setField(message, field, tree, path, { ...context, diagnostics });
    if (diagnostics.count > 0) throw new Error(`the contract gives ${path} a default that does not fit: ${text}`);
    return;
  }
  if (!isRequired(field) || context.incomplete || context.meant.has(path)) return;
  const at = nearestPlace(parent, context.places);
  if (at) context.diagnostics.add(at, path, 'is required', doc && `add ${field.name}: ${doc}`);
}

/** The place of a field or of the nearest group above it. */
export function nearestPlace(path: string, places: ReadonlyMap<string, At>): At | undefined {
  for (let current = path; ; current = current.replace(/(^|\.)[^.[]*$|\[[^\]]*\]$/, '')) {
    const place = places.get(current);
    if (place || current === '') return place;
  }
}

const defaultTrees = new Map<string, Tree | undefined>();
const defaultSources = new WeakSet<Source>();

function defaultTree(text: string, diagnostics: Diagnostics): Tree | undefined {
  const known = defaultTrees.get(text);
  if (known) return known;
  const source = new Source({ file: 'default', folder: '/', text });
  defaultSources.add(source);
  const tree = parseYaml(source, diagnostics);
  defaultTrees.set(text, tree);
  return tree;
}

/** What a group holds instead of the defaults of its fields. */
function defaultGroup(field: FieldOf<'message'>): Tree | undefined {
  const { default: text } = fieldInfo(field);
  if (text === '') return undefined;
  const diagnostics = new Diagnostics();
  const tree = defaultTree(text, diagnostics);
  if (tree?.kind !== 'map') throw new Error(`the contract gives ${field} a default that is no group: ${text}`);
  return tree;
}

function setField(message: ReflectMessage, field: DescField, tree: Tree, path: string, context: ReadContext): void {
  switch (field.fieldKind) {
    case 'message': {
      const below = defaultGroup(field);
      const whole = below ? merge(below, tree) : tree;
      message.set(field, reflect(field.message, readMessage(field.message, whole, path, context)));
      return;
    }
    case 'list':
      setList(message, field, tree, path, context);
      return;
    case 'map':
      setMap(message, field, tree, path, context);
      return;
    default: {
      const value = readValue(field, tree, path, context);
      if (value !== undefined) message.set(field, value);
    }
  }
}

function setList(
  message: ReflectMessage,
  field: FieldOf<'list'>,
  tree: Tree,
  path: string,
  context: ReadContext,
): void {
  if (tree.kind !== 'list') {
    const what = field.message ? 'mappings' : `values, each ${expected(field)}`;
    const single = tree.kind === 'scalar' && tree.value !== null ? tree.text : undefined;
    const given = single === undefined ? (tree.kind === 'map' ? 'a mapping' : 'nothing') : 'a single value';
    const short = single !== undefined && single.length <= 40 ? `write [${single}]` : undefined;
    context.diagnostics.add(tree.at, path, `expected a list of ${what}, not ${given}`, short);
    return;
  }
  const list = message.get(field);
  tree.items.forEach((item, index) => {
    const itemPath = `${path}[${index}]`;
    context.places.set(itemPath, item.at);
    if (field.listKind === 'message') {
      list.add(reflect(field.message, readMessage(field.message, item, itemPath, context)));
    } else {
      const value = readValue(field, item, itemPath, context);
      if (value !== undefined) list.add(value);
    }
  });
}

function setMap(message: ReflectMessage, field: FieldOf<'map'>, tree: Tree, path: string, context: ReadContext): void {
  if (field.mapKey !== ScalarType.STRING) throw new Error(`${field}: experiments only have maps with text keys`);
  if (tree.kind !== 'map') {
    if (!isEmpty(tree)) context.diagnostics.add(tree.at, path, 'expected a mapping of names to values');
    return;
  }
  const map = message.get(field);
  for (const [key, entry] of tree.entries) {
    const entryPath = join(path, key);
    context.places.set(entryPath, entry.value.at);
    if (field.mapKind === 'message') {
      map.set(key, reflect(field.message, readMessage(field.message, entry.value, entryPath, context)));
    } else {
      const value = readValue(field, entry.value, entryPath, context);
      if (value !== undefined) map.set(key, value);
    }
  }
}

function readValue(field: DescField, tree: Tree, path: string, context: ReadContext) {
  const outcome = readScalar(field, tree);
  if (!('value' in outcome)) {
    context.diagnostics.add(tree.at, path, outcome.message, outcome.suggestion);
    return undefined;
  }
  if (typeof outcome.value !== 'string') return outcome.value;
  return readText(field, outcome.value, tree as ScalarTree, path, context);
}

function readText(field: DescField, text: string, tree: ScalarTree, path: string, context: ReadContext) {
  const isPath = fieldInfo(field).path;
  if (!isPath) {
    if (!text.includes('${env:')) return text;
    context.diagnostics.add(tree.at, path, 'only fields that hold a path may name an environment variable');
    return undefined;
  }
  const expanded = expandEnvironment(text, context.environment);
  if ('malformed' in expanded) {
    context.diagnostics.add(tree.at, path, 'the environment variable must be the whole value');
    return undefined;
  }
  if ('missing' in expanded) {
    const { missing } = expanded;
    context.diagnostics.add(
      tree.at,
      path,
      `the environment variable ${missing} is not set`,
      `set it, or write \${env:${missing}:-default}`,
    );
    return undefined;
  }
  const { variable } = expanded;
  if (variable !== undefined) {
    const origin = context.origins.get(path);
    if (origin?.kind === 'given') context.origins.set(path, { ...origin, variable });
  }
  // What the shell handed over is meant from where the shell stands.
  return resolvePath(expanded.text, variable === undefined ? tree.at.source.folder : context.cwd);
}
