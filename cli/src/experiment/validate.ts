import type { DescField, DescMessage, DescOneof, Message } from '@bufbuild/protobuf';
import { type Path, pathToString, type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import type { Validator, Violation } from '@bufbuild/protovalidate';
import { fieldInfo, fieldRules, join, rangeOf, rangeText } from './fields.js';
import { nearestPlace, type ReadContext } from './read.js';

// Compiling the rules costs a hundred times what checking them does.
let validator: Promise<Validator> | undefined;

/** Checks a complete message against the rules of the contract; every violation lands at its place in the YAML. */
export async function validate(desc: DescMessage, message: Message, context: ReadContext): Promise<void> {
  validator ??= import('@bufbuild/protovalidate').then(({ createValidator }) => createValidator());
  const result = (await validator).validate(desc, message);
  if (result.kind === 'error') throw result.error;
  for (const violation of result.violations ?? []) report(violation, reflect(desc, message), context);
}

function report(
  violation: Violation,
  root: ReflectMessage,
  { diagnostics, incomplete, meant, places }: ReadContext,
): void {
  const oneof = violation.field.find((element): element is DescOneof => element.kind === 'oneof');
  const path = pathToString(oneof ? violation.field.slice(0, -1) : violation.field);
  const names = oneof?.fields.map(({ name }) => join(path, name)) ?? [];
  // The reader was there first and said it better.
  if (names.some((name) => diagnostics.touches(name) || meant.has(name))) return;
  if (diagnostics.touches(path) || (violation.ruleId === 'required' && (incomplete || meant.has(path)))) return;
  const field = lastField(violation.field);
  const onGroup = violation.ruleId.startsWith('repeated.unique') ? duplicateIndex(violation.field, root) : undefined;
  const place = onGroup === undefined ? path : `${path}[${onGroup}]`;
  const at = nearestPlace(place, places);
  if (!at) throw new Error(`no place in the experiment for ${path}`);
  if (oneof) {
    diagnostics.add(at, path, `one of ${names.join(', ')} is required`);
    return;
  }
  const { message, suggestion } = explain(violation, field, valueAt(violation.field, root), onGroup);
  diagnostics.add(at, path, message, suggestion);
}

function explain(
  { ruleId, message }: Violation,
  field: DescField | undefined,
  value: unknown,
  duplicate: number | undefined,
): { message: string; suggestion?: string } {
  const doc = field && fieldInfo(field).doc;
  const hint = doc ? { suggestion: doc } : {};
  if (!field) return { message };
  if (ruleId === 'required') return { message: 'is required', ...hint };
  const range = rangeText(rangeOf(field));
  if (/^u?int(32|64)\.|^(double|float)\./.test(ruleId) && range !== '')
    return { message: `must be ${range}, not ${value}` };
  // An element of a list may also be left out; what the whole field is for says nothing about how to mend one of it.
  if (ruleId === 'string.min_len' && field.fieldKind === 'list')
    return { message: 'must not be empty', suggestion: 'write something there, or leave it out' };
  if (ruleId === 'string.min_len') return { message: 'must not be empty', ...hint };
  if (ruleId === 'string.pattern') return { message: `${JSON.stringify(value)} is not allowed here`, ...hint };
  if (ruleId === 'repeated.unique')
    return { message: `the value at position ${(duplicate ?? 0) + 1} is given twice`, suggestion: 'keep one' };
  const rules = fieldRules(field);
  if (rules?.type.case === 'repeated') {
    if (ruleId === 'repeated.min_items')
      return { message: `needs at least ${rules.type.value.minItems} value`, ...hint };
    if (ruleId === 'repeated.max_items') return { message: `holds more than ${rules.type.value.maxItems} values` };
  }
  return { message };
}

function lastField(path: Path): DescField | undefined {
  return path.findLast((element): element is DescField => 'kind' in element && element.kind === 'field');
}

/** The value a path leads to. */
function valueAt(path: Path, root: ReflectMessage): unknown {
  let value: unknown = root;
  for (const element of path) {
    if (element.kind === 'field') value = (value as ReflectMessage).get(element);
    else if (element.kind === 'list_sub') value = [...(value as Iterable<unknown>)][element.index];
    else return undefined;
  }
  return value;
}

function duplicateIndex(path: Path, root: ReflectMessage): number | undefined {
  const items = [...(valueAt(path, root) as Iterable<unknown>)];
  const index = items.findIndex((item, position) => items.indexOf(item) < position);
  return index < 0 ? undefined : index;
}
