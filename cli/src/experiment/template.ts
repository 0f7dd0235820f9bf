import { ExperimentSchema } from '../gen/qscope/v1/experiment_pb.js';
import { commandOf } from './command.js';
import { Diagnostics } from './diagnostic.js';
import { emitYaml } from './emit.js';
import { fieldInfo, isRequired } from './fields.js';
import type { Task } from './load.js';
import { type Preset, presets } from './presets.js';
import { readMessage } from './read.js';
import { Source } from './source.js';
import { parseYaml } from './yaml.js';

/** What a first file of each task says beyond the defaults; must be valid as it stands. */
const starts: Record<Task, string> = {
  train_sae: 'model: embedded\ntrain_sae:\n',
  eval_sae: 'model: embedded\neval_sae: {sae: latest}\n',
  extract_features: 'model: embedded\nextract_features: {sae: latest}\n',
  top_features: 'model: embedded\ntop_features: {sae: latest, features: [0/0]}\n',
  language_features: 'model: embedded\nlanguage_features: {sae: latest}\n',
  repetition_features: 'model: embedded\nrepetition_features: {sae: latest}\n',
  explain_features: 'model: embedded\nexplain_features: {sae: latest, feature_set: latest}\n',
  diagnose_features: 'model: embedded\ndiagnose_features: {sae: latest, cases: [{prompt: Hello, response: Bonjour}]}\n',
  contrast_features:
    'model: embedded\ncontrast_features: {sae: latest, positives: {where: language=de}, negatives: {where: language!=de}}\n',
  steer: 'model: embedded\nsteer: {steering: {edits: [{layers: [3], features: [0]}]}}\n',
  bench_redundancy:
    'model: embedded\nbench_redundancy: {sae: latest, benchmarks: [{name: german, source: embedded-heldout, where: language=de}]}\n',
  classify:
    'model: embedded\nclassify: {sae: latest, data: [{source: embedded-heldout, label: language, positive: [de]}]}\n',
  apply_classifier: 'model: embedded\napply_classifier: {classifier: latest, source: embedded-heldout}\n',
  synthesize:
    'model: embedded\nsynthesize: {sae: latest, seed_data: {source: embedded, where: language=en, limit: 500}, reference: {source: embedded-heldout, limit: 500}}\n',
  sft: presets.sft.sasft.start,
  rl: presets.rl['dapo-rare-negative'].start,
  eval_responses: 'model: embedded\neval_responses: {prompts: {source: rows.jsonl}}\n',
};

/** The tasks that have a template, by the word `config init` knows them by. */
export const templateCommands: Readonly<Record<string, Task>> = Object.fromEntries(
  Object.keys(starts).map((task) => [task.replaceAll('_', '-'), task as Task]),
);

export interface TemplateOptions {
  /** What the file will be called. */
  file: string;
  /** Path of the schema from the file. */
  schema: string;
  /** A way to begin other than the task's own. */
  preset?: Preset | undefined;
}

/** A commented experiment file that names every field of a task. */
export function experimentTemplate(task: Task, { file, schema, preset }: TemplateOptions): string {
  const diagnostics = new Diagnostics();
  const text = preset?.start ?? starts[task];
  const tree = parseYaml(new Source({ file: 'template', folder: '/', text }), diagnostics);
  const context = {
    diagnostics,
    meant: new Set<string>(),
    incomplete: false,
    environment: {},
    cwd: '/',
    origins: new Map(),
    places: new Map(),
  };
  const experiment = readMessage(ExperimentSchema, tree, '', context);
  if (diagnostics.count > 0) throw new Error(`the template of ${task} is invalid`);
  const body = emitYaml(ExperimentSchema, experiment, (path, field) => ({
    above: isRequired(field) ? `${fieldInfo(field).doc} (required)` : fieldInfo(field).doc,
    apart: !path.includes('.') || field.fieldKind === 'message',
  }));
  const head = [
    `# yaml-language-server: $schema=${schema}`,
    ...(preset?.about ?? []).map((line) => `# ${line}`),
    preset
      ? '# Every field with its value; one that is removed takes its default.'
      : '# Every field with its default; a field that is removed keeps that default.',
    `# Run it: qscope ${commandOf(task)} ${file}`,
  ];
  return `${head.join('\n')}\n\n${body
    .trimStart()
    .replace(/:\n *\n/g, ':\n')
    .replace(/^ +$/gm, '')}`;
}
