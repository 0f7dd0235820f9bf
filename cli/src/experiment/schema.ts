import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { parse } from 'yaml';
import { ExperimentSchema } from '../gen/qscope/v1/experiment_pb.js';
import { enumNames, fieldInfo, fieldRules, isInteger, isRequired, rangeOf } from './fields.js';

/** A JSON Schema node; draft 7, the draft every YAML editor understands. */
export type JsonSchema = { [key: string]: unknown };

/** The JSON Schema of experiment files, for completion and checks in editors. */
export function experimentSchema(): JsonSchema {
  const definitions: Record<string, JsonSchema> = {};
  const root = messageSchema(ExperimentSchema, definitions);
  const choices = ExperimentSchema.oneofs.map(({ fields }) => ({
    oneOf: fields.map(({ name }) => ({ required: [name] })),
  }));
  const { required, ...rest } = root;
  const complete = { ...(required ? { required } : {}), ...(choices.length > 0 ? { allOf: choices } : {}) };
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'qscope experiment',
    ...rest,
    properties: {
      extends: { type: 'string', description: 'YAML file that this one goes over, relative to this one' },
      ...(rest.properties as object),
    },
    // What a file does not say, the file it extends may say.
    anyOf: [{ required: ['extends'] }, complete],
    definitions,
  };
}

function messageSchema(desc: DescMessage, definitions: Record<string, JsonSchema>): JsonSchema {
  const properties = Object.fromEntries(desc.fields.map((field) => [field.name, fieldSchema(field, definitions)]));
  const required = desc.fields.filter((field) => isRequired(field) && !field.oneof).map(({ name }) => name);
  return {
    type: 'object',
    additionalProperties: false,
    properties,
    ...(required.length > 0 ? { required } : {}),
  };
}

function fieldSchema(field: DescField, definitions: Record<string, JsonSchema>): JsonSchema {
  const { doc, default: text } = fieldInfo(field);
  const about = { ...(doc ? { description: doc } : {}), ...(text ? { default: parse(text) } : {}) };
  switch (field.fieldKind) {
    case 'message':
      return { ...about, ...reference(field.message, definitions) };
    case 'list': {
      const items = field.message ? reference(field.message, definitions) : scalarSchema(field);
      return { ...about, type: 'array', items, ...listRules(field) };
    }
    case 'map': {
      const values = field.message ? reference(field.message, definitions) : scalarSchema(field);
      return { ...about, type: 'object', additionalProperties: values };
    }
    default:
      return { ...about, ...scalarSchema(field), ...textRules(field) };
  }
}

/** Draft 7 ignores what stands beside a `$ref`, so it is wrapped; an empty group (`train_sae:`) takes all defaults. */
function reference(desc: DescMessage, definitions: Record<string, JsonSchema>): JsonSchema {
  if (!(desc.name in definitions)) {
    definitions[desc.name] = {};
    definitions[desc.name] = messageSchema(desc, definitions);
  }
  return { anyOf: [{ $ref: `#/definitions/${desc.name}` }, { type: 'null' }] };
}

function scalarSchema(field: DescField): JsonSchema {
  if (field.enum) return { enum: [...enumNames(field.enum).keys()] };
  if (field.scalar === ScalarType.STRING) return { type: 'string' };
  if (field.scalar === ScalarType.BOOL) return { type: 'boolean' };
  // JSON readers round what is beyond 2^53; such a bound helps nobody.
  const bounds = Object.entries(rangeOf(field))
    .map(([name, value]): [string, number] => [name, Number(value)])
    .filter(([, value]) => Math.abs(value) <= Number.MAX_SAFE_INTEGER);
  return { type: isInteger(field.scalar as ScalarType) ? 'integer' : 'number', ...Object.fromEntries(bounds) };
}

function textRules(field: DescField): JsonSchema {
  const rules = fieldRules(field)?.type;
  if (rules?.case !== 'string') return {};
  const { pattern, minLen } = rules.value;
  return { ...(pattern ? { pattern } : {}), ...(minLen ? { minLength: Number(minLen) } : {}) };
}

function listRules(field: DescField): JsonSchema {
  const rules = fieldRules(field)?.type;
  if (rules?.case !== 'repeated') return {};
  const { minItems, maxItems, unique } = rules.value;
  return {
    ...(minItems ? { minItems: Number(minItems) } : {}),
    ...(maxItems ? { maxItems: Number(maxItems) } : {}),
    ...(unique ? { uniqueItems: true } : {}),
  };
}

/** The schema as it stands in configs/schema.json. */
export function experimentSchemaText(): string {
  return `${JSON.stringify(experimentSchema(), null, 2)}\n`;
}
