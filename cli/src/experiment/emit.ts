import type { DescField, DescMessage, Message } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { Document, isScalar, Pair, Scalar, YAMLMap, YAMLSeq } from 'yaml';
import { enumName, join } from './fields.js';

/** Comments for one field: lines above it, and a remark behind its value. */
export interface Remark {
  above?: string;
  behind?: string;
  /** An empty line before the field. */
  apart?: boolean;
}

/** Writes a message as YAML: every field that has a value, in the order of the contract. */
export function emitYaml(
  desc: DescMessage,
  message: Message,
  remark: (path: string, field: DescField) => Remark = () => ({}),
): string {
  const document = new Document();
  document.contents = mapOf(reflect(desc, message), '', remark) as never;
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
}

function mapOf(message: ReflectMessage, path: string, remark: (path: string, field: DescField) => Remark): YAMLMap {
  const map = new YAMLMap();
  for (const field of message.fields) {
    if (field.oneof && !message.isSet(field)) continue;
    if (field.fieldKind === 'message' && !message.isSet(field)) continue;
    const fieldPath = join(path, field.name);
    const { above, behind, apart } = remark(fieldPath, field);
    const key = new Scalar(field.name);
    if (above) key.commentBefore = comment(above);
    if (apart) key.spaceBefore = true;
    const value = nodeOf(field, message, fieldPath, remark);
    // A comment behind a block would end up below it.
    if (behind && (isScalar(value) || (value instanceof YAMLSeq && value.flow))) value.comment = comment(behind);
    map.items.push(new Pair(key, value));
  }
  if (map.items.length === 0) map.flow = true;
  return map;
}

function comment(text: string): string {
  return text
    .split('\n')
    .map((line) => ` ${line}`)
    .join('\n');
}

function nodeOf(
  field: DescField,
  message: ReflectMessage,
  path: string,
  remark: (path: string, field: DescField) => Remark,
) {
  if (field.fieldKind === 'message') return mapOf(message.get(field), path, remark);
  if (field.fieldKind === 'list') {
    const list = new YAMLSeq();
    list.flow = field.listKind !== 'message';
    for (const [index, item] of [...message.get(field)].entries()) {
      list.items.push(
        field.listKind === 'message'
          ? mapOf(item as ReflectMessage, `${path}[${index}]`, remark)
          : scalarOf(field, item),
      );
    }
    return list;
  }
  if (field.fieldKind === 'map') {
    const map = new YAMLMap();
    for (const [key, value] of message.get(field)) {
      const node =
        field.mapKind === 'message'
          ? mapOf(value as ReflectMessage, join(path, String(key)), remark)
          : scalarOf(field, value);
      map.items.push(new Pair(new Scalar(key), node));
    }
    map.flow = map.items.length === 0;
    return map;
  }
  return scalarOf(field, message.get(field));
}

function scalarOf(field: DescField, value: unknown): Scalar {
  return new Scalar(field.enum ? enumName(field.enum, value as number) : value);
}
