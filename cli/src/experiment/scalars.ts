import { type DescField, ScalarType } from '@bufbuild/protobuf';
import { enumNames, fieldInfo, inRange, is64Bit, isFloat, isInteger, rangeOf, rangeText } from './fields.js';
import { nearest } from './nearest.js';
import type { ScalarTree, Tree } from './tree.js';

/** A value of the contract, or why the text is none. */
export type Outcome<T> = { value: T } | { message: string; suggestion?: string };

type Value = string | number | bigint | boolean;

/** Reads one scalar or enum value of a field (or of an item of a list of them). */
export function readScalar(field: DescField, tree: Tree): Outcome<Value> {
  if (tree.kind !== 'scalar') {
    return fault(`expected ${expected(field)}, not a ${tree.kind === 'map' ? 'mapping' : 'list'}`);
  }
  if (tree.value === null && !tree.quoted && tree.text !== '') {
    return fault(`expected ${expected(field)}, not ${tree.text}`, 'remove the line to take the default');
  }
  if (tree.value === null) return fault('has no value', `give ${expected(field)}, or remove the line`);
  if (field.enum) return readEnum(field, tree);
  const type = field.scalar as ScalarType;
  if (type === ScalarType.STRING) return readString(tree);
  if (type === ScalarType.BOOL) return readBool(tree);
  if (isInteger(type) || isFloat(type)) return readNumber(field, type, tree);
  throw new Error(`experiments have no fields of the type of ${field}`);
}

/** "a whole number between 1 and 65536", "true or false", "one of auto, cpu, cuda". */
export function expected(field: DescField): string {
  if (field.enum) return `one of ${[...enumNames(field.enum).keys()].join(', ')}`;
  const type = field.scalar as ScalarType;
  if (type === ScalarType.STRING) return 'text';
  if (type === ScalarType.BOOL) return 'true or false';
  const range = rangeText(rangeOf(field));
  return `a ${isInteger(type) ? 'whole ' : ''}number${range === '' ? '' : ` ${range}`}`;
}

/** The value as written, short enough for a message. */
export function shown(tree: ScalarTree): string {
  const text = tree.text.length > 40 ? `${tree.text.slice(0, 40)}...` : tree.text;
  return tree.quoted || typeof tree.value === 'string' ? JSON.stringify(text) : text;
}

function fault(message: string, suggestion?: string): { message: string; suggestion?: string } {
  return suggestion === undefined ? { message } : { message, suggestion };
}

function readString(tree: ScalarTree): Outcome<string> {
  if (typeof tree.value !== 'string') {
    return fault(
      `expected text, not the ${kind(tree)} ${shown(tree)}`,
      `put it in quotes: ${JSON.stringify(tree.text)}`,
    );
  }
  // Neither survives the way through protobuf and the file system.
  if (tree.value.includes('\0') || /\p{Surrogate}/u.test(tree.value)) {
    return fault(
      'the text holds characters that no path or name can hold',
      'remove the escapes \\0 and \\uD800 to \\uDFFF',
    );
  }
  return { value: tree.value };
}

function readBool(tree: ScalarTree): Outcome<boolean> {
  if (typeof tree.value === 'boolean') return { value: tree.value };
  const word = tree.text.toLowerCase();
  const meant = ['yes', 'on', 'y', '1', 'true'].includes(word)
    ? 'true'
    : ['no', 'off', 'n', '0', 'false'].includes(word)
      ? 'false'
      : undefined;
  return fault(`expected true or false, not ${shown(tree)}`, meant && `write ${meant}`);
}

function readEnum(field: DescField, tree: ScalarTree): Outcome<number> {
  const names = enumNames(field.enum as NonNullable<typeof field.enum>);
  const number = typeof tree.value === 'string' ? names.get(tree.value) : undefined;
  if (number !== undefined) return { value: number };
  const near = nearest(tree.text, names.keys());
  return fault(`expected ${expected(field)}, not ${shown(tree)}`, near && `did you mean ${near}?`);
}

function readNumber(field: DescField, type: ScalarType, tree: ScalarTree): Outcome<number | bigint> {
  const wanted = expected(field);
  if (typeof tree.value === 'string')
    return fault(`expected ${wanted}, not the text ${shown(tree)}`, numberHint(tree.text));
  if (typeof tree.value === 'boolean' || tree.value === null) return fault(`expected ${wanted}, not ${shown(tree)}`);
  if (isFloat(type)) {
    const value = Number(tree.value);
    if (!Number.isFinite(value))
      return fault(`expected ${wanted}, not ${shown(tree)}`, 'only finite numbers can be saved and compared');
    return inRange(value, rangeOf(field))
      ? { value }
      : fault(`must be ${rangeText(rangeOf(field))}, not ${shown(tree)}`);
  }
  if (typeof tree.value === 'number' && !Number.isInteger(tree.value)) {
    return fault(`expected ${wanted}, not ${shown(tree)}`);
  }
  if (typeof tree.value === 'number' && !Number.isSafeInteger(tree.value)) {
    return fault(`expected ${wanted}, not ${shown(tree)}`, 'write large whole numbers with all their digits');
  }
  const value = BigInt(tree.value);
  if (!inRange(value, rangeOf(field)))
    return fault(`must be ${rangeText(rangeOf(field))}, not ${shown(tree)}`, zeroHint(field, value));
  return { value: is64Bit(type) ? value : Number(value) };
}

function kind(tree: ScalarTree): string {
  return typeof tree.value === 'boolean' ? 'truth value' : 'number';
}

const units = new Map([
  ['k', 1e3],
  ['m', 1e6],
  ['b', 1e9],
  ['g', 1e9],
  ['t', 1e12],
]);

/** What the person who wrote `1_000`, `"50"`, `5M` or `3,5` should write. */
function numberHint(text: string): string | undefined {
  const trimmed = text.trim();
  if (trimmed.length > 40) return undefined;
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return `write ${trimmed} without quotes`;
  if (/^[+-]?\d{1,3}([_, ']\d{3})+(\.\d+)?$/.test(trimmed) || /^[+-]?\d[\d_]*(\.[\d_]+)?(e[+-]?\d+)?$/i.test(trimmed)) {
    return `write ${trimmed.replace(/[_, ']/g, '')}`;
  }
  if (/^[+-]?\d+,\d+$/.test(trimmed)) return `write ${trimmed.replace(',', '.')}`;
  const match = /^(\d+(?:\.\d+)?)\s*([kmbgt])$/i.exec(trimmed);
  const unit = match && units.get((match[2] as string).toLowerCase());
  return match && unit ? `write ${Math.round(Number(match[1]) * unit)}` : undefined;
}

function zeroHint(field: DescField, value: bigint): string | undefined {
  const { doc } = fieldInfo(field);
  return value < 0n && / 0 /.test(doc) ? doc : undefined;
}
