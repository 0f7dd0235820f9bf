import { type DescEnum, type DescField, type DescMessage, getOption, hasOption, ScalarType } from '@bufbuild/protobuf';
import { type FieldRules, field as rulesOption } from '../gen/buf/validate/validate_pb.js';
import { ExperimentSchema } from '../gen/qscope/v1/experiment_pb.js';
import { type FieldInfo, info as infoOption } from '../gen/qscope/v1/options_pb.js';
import { commandOf } from './command.js';

/**
 * What the contract says about the fields of an experiment: documentation and defaults from our own option, ranges
 * from the protovalidate rules.
 */

type Info = Pick<FieldInfo, 'doc' | 'default' | 'path' | 'optional'>;

// Options are parsed from bytes at every look.
const infos = new WeakMap<DescField, Info>();
const rules = new WeakMap<DescField, FieldRules>();

/** One line of documentation, default as YAML text, whether the text is a path, whether a group may be absent. */
export function fieldInfo(field: DescField): Info {
  let info = infos.get(field);
  if (!info) {
    info = hasOption(field, infoOption)
      ? getOption(field, infoOption)
      : { doc: '', default: '', path: false, optional: false };
    infos.set(field, info);
  }
  return info;
}

/** The rules of a field, if it has any. */
export function fieldRules(field: DescField): FieldRules | undefined {
  let found = rules.get(field);
  if (!found && hasOption(field, rulesOption)) {
    found = getOption(field, rulesOption);
    rules.set(field, found);
  }
  return found;
}

export function isRequired(field: DescField): boolean {
  return fieldRules(field)?.required ?? false;
}

/** The names a person writes for an enum: lower case, without the prefix, without the zero value. */
export function enumNames(desc: DescEnum): Map<string, number> {
  const prefix = desc.sharedPrefix ?? '';
  return new Map(
    desc.values
      .filter(({ number }) => number !== 0)
      .map(({ name, number }) => [name.slice(prefix.length).toLowerCase(), number]),
  );
}

/** The name of an enum value, or its number where the contract has no name. */
export function enumName(desc: DescEnum, number: number): string {
  for (const [name, candidate] of enumNames(desc)) if (candidate === number) return name;
  return String(number);
}

/** Range of a number: that of its type narrowed by its rules. */
export interface Range {
  minimum?: bigint | number;
  exclusiveMinimum?: bigint | number;
  maximum?: bigint | number;
  exclusiveMaximum?: bigint | number;
}

const integerRanges = new Map<ScalarType, [bigint, bigint]>([
  [ScalarType.INT32, [-(2n ** 31n), 2n ** 31n - 1n]],
  [ScalarType.SINT32, [-(2n ** 31n), 2n ** 31n - 1n]],
  [ScalarType.SFIXED32, [-(2n ** 31n), 2n ** 31n - 1n]],
  [ScalarType.UINT32, [0n, 2n ** 32n - 1n]],
  [ScalarType.FIXED32, [0n, 2n ** 32n - 1n]],
  [ScalarType.INT64, [-(2n ** 63n), 2n ** 63n - 1n]],
  [ScalarType.SINT64, [-(2n ** 63n), 2n ** 63n - 1n]],
  [ScalarType.SFIXED64, [-(2n ** 63n), 2n ** 63n - 1n]],
  [ScalarType.UINT64, [0n, 2n ** 64n - 1n]],
  [ScalarType.FIXED64, [0n, 2n ** 64n - 1n]],
]);

export function isInteger(type: ScalarType): boolean {
  return integerRanges.has(type);
}

export function isFloat(type: ScalarType): boolean {
  return type === ScalarType.DOUBLE || type === ScalarType.FLOAT;
}

export function is64Bit(type: ScalarType): boolean {
  return (integerRanges.get(type)?.[1] ?? 0n) > 2n ** 32n;
}

/** Range of a numeric field, or of the items of a list of numbers. */
export function rangeOf(field: DescField): Range {
  const range: Range = {};
  const [low, high] = integerRanges.get(field.scalar ?? ScalarType.BOOL) ?? [];
  if (low !== undefined) range.minimum = low;
  if (high !== undefined) range.maximum = high;

  const own = fieldRules(field);
  const inner = own?.type.case === 'repeated' ? own.type.value.items : own;
  const numeric = inner?.type.value;
  if (numeric && 'lessThan' in numeric) {
    const { greaterThan, lessThan } = numeric;
    if (greaterThan.case === 'gte') range.minimum = greaterThan.value as bigint | number;
    if (greaterThan.case === 'gt') {
      range.exclusiveMinimum = greaterThan.value as bigint | number;
      delete range.minimum;
    }
    if (lessThan.case === 'lte') range.maximum = lessThan.value as bigint | number;
    if (lessThan.case === 'lt') {
      range.exclusiveMaximum = lessThan.value as bigint | number;
      delete range.maximum;
    }
  }
  return range;
}

/** "between 1 and 65536", "above 0 and at most 1"; empty when there are no bounds. */
export function rangeText({ minimum, exclusiveMinimum, maximum, exclusiveMaximum }: Range): string {
  if (minimum !== undefined && maximum !== undefined) return `between ${minimum} and ${maximum}`;
  const parts = [];
  if (minimum !== undefined) parts.push(`at least ${minimum}`);
  if (exclusiveMinimum !== undefined) parts.push(`above ${exclusiveMinimum}`);
  if (maximum !== undefined) parts.push(`at most ${maximum}`);
  if (exclusiveMaximum !== undefined) parts.push(`below ${exclusiveMaximum}`);
  return parts.join(' and ');
}

/** Whether a number lies in a range; NaN lies in none. */
export function inRange(value: bigint | number, range: Range): boolean {
  const { minimum, exclusiveMinimum, maximum, exclusiveMaximum } = range;
  return (
    (minimum === undefined || value >= minimum) &&
    (exclusiveMinimum === undefined || value > exclusiveMinimum) &&
    (maximum === undefined || value <= maximum) &&
    (exclusiveMaximum === undefined || value < exclusiveMaximum) &&
    !Number.isNaN(Number(value))
  );
}

/** `parent.name`, or the name alone at the root. */
export function join(parent: string, name: string): string {
  return parent === '' ? name : `${parent}.${name}`;
}

/** Paths of the fields called `name` at or below a message, nearest first. */
export function pathsOf(name: string, desc: DescMessage, prefix = '', depth = 0): string[] {
  if (depth > 6) return [];
  const here = desc.fields.filter((field) => field.name === name).map((field) => join(prefix, field.name));
  const below = desc.fields
    .filter((field) => field.fieldKind === 'message')
    .flatMap((field) => pathsOf(name, field.message as DescMessage, join(prefix, field.name), depth + 1));
  return [...here, ...below].sort((a, b) => a.split('.').length - b.split('.').length);
}

/** The tasks an experiment can hold: field name ("train_sae") and command ("train-sae"). */
export function tasks(): { field: DescField & { fieldKind: 'message' }; name: string; command: string }[] {
  return ExperimentSchema.fields
    .filter((field) => field.fieldKind === 'message' && field.oneof !== undefined)
    .map((field) => ({
      field: field as DescField & { fieldKind: 'message' },
      name: field.name,
      command: commandOf(field.name),
    }));
}
