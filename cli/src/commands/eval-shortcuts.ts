import { type Command, InvalidArgumentError, Option } from '../commander.js';
import { ExitCode, UserError } from '../errors.js';
import type { OptionSetting } from '../experiment/overlay.js';

export const MEASURES = ['repeat', 'codeswitch', 'accuracy'] as const;
export type Measure = (typeof MEASURES)[number];

/** Short forms of fields of the experiment; each is the same as a `--set`. */
export interface EvalShortcuts {
  also?: Measure[];
  responses?: string;
  model?: string;
  prompts?: string;
  prompt?: string;
  answer?: string;
  language?: string;
  target?: string[];
  rule?: string;
  chat?: boolean;
  maxTokens?: string;
  temperature?: string;
  samples?: string;
  limit?: string;
  seed?: string;
}

export function withEvalShortcuts(command: Command): Command {
  return command
    .option('--also <measure>', `measure this too, of ${MEASURES.join(', ')}; may be repeated`, appendMeasure)
    .addOption(
      new Option('--responses <source>', 'responses written before: a file or a run, no model is loaded').conflicts([
        'prompts',
        'prompt',
      ]),
    )
    .option('-m, --model <name>', 'model that answers, or that wrote the responses')
    .option('--prompts <source>', 'file of prompts that the model answers')
    .option('--prompt <template>', "the prompt of a row, columns in braces: '{question}'")
    .option('--answer <column>', "column of the right answer; of prompts a template: '{answer}'")
    .option('--language <column>', 'column of the language a response should be in')
    .option('--target <language>', 'language that others must not switch to; may be repeated', append)
    .option('--rule <name>', 'how answers are compared: whole, last-number, math')
    .option('--chat', 'wrap prompts in the chat template')
    .option('-n, --max-tokens <number>', 'tokens generated at most')
    .option('-t, --temperature <number>', 'sampling temperature; 0 takes the most likely token')
    .option('--samples <number>', 'responses to each prompt')
    .option('--limit <number>', 'rows at most')
    .option('--seed <number>', 'seed of the random numbers');
}

/**
 * What the options ask for; each fault of it carries the name of its option. Values are YAML, so text is quoted as
 * JSON, which YAML contains.
 *
 * @throws UserError where neither a file nor the options say what is measured.
 */
export function evalSettings(files: readonly string[], options: EvalShortcuts, measure?: Measure): OptionSetting[] {
  if (files.length === 0 && options.responses === undefined && options.prompts === undefined) {
    throw new UserError('There is nothing to measure: no file, no responses, no prompts.', {
      hint: 'Give an experiment file, --responses FILE, or --model NAME --prompts FILE.',
      exitCode: ExitCode.usage,
    });
  }
  if (files.length === 0 && options.prompts !== undefined && options.model === undefined) {
    throw new UserError('--prompts needs a model to answer them.', {
      hint: 'Name it with --model, for example --model embedded.',
      exitCode: ExitCode.usage,
    });
  }
  if (options.also !== undefined && measure === undefined) {
    throw new UserError('--also adds to a measure, and none is named.', {
      hint: `Write for example: qscope eval repeat --also ${options.also[0]}`,
      exitCode: ExitCode.usage,
    });
  }
  const settings: OptionSetting[] = [];
  const give = (option: string, path: string, value: unknown) => {
    if (value !== undefined) settings.push({ option, setting: `${path}=${JSON.stringify(value)}` });
  };
  const number = (option: string, path: string, value: string | undefined) => {
    if (value !== undefined) settings.push({ option, setting: `${path}=${value}` });
  };
  const task = 'eval_responses';
  const rows = options.responses === undefined ? 'prompts' : 'responses';
  if (files.length === 0) {
    // Who wrote saved responses is not known unless somebody says so.
    give('--model', 'model', options.model ?? 'unknown');
    give('--name', 'name', `eval-${measure ?? 'responses'}`);
  } else give('--model', 'model', options.model);
  if (measure !== undefined) {
    give(`eval ${measure}`, `${task}.measures`, [...new Set([measure, ...(options.also ?? [])])]);
  }
  give('--responses', `${task}.responses.source`, options.responses);
  give('--prompts', `${task}.prompts.source`, options.prompts);
  give('--prompt', `${task}.prompts.prompt`, options.prompt);
  give('--answer', `${task}.${rows}.answer`, options.answer);
  give('--language', `${task}.${rows}.language`, options.language);
  number('--limit', `${task}.${rows}.limit`, options.limit);
  give('--target', `${task}.codeswitch.targets`, options.target);
  give('--rule', `${task}.rule`, options.rule);
  if (options.chat) give('--chat', `${task}.format.chat`, true);
  number('--max-tokens', `${task}.sampling.max_tokens`, options.maxTokens);
  number('--temperature', `${task}.sampling.temperature`, options.temperature);
  number('--samples', `${task}.samples`, options.samples);
  number('--seed', 'seed', options.seed);
  return settings;
}

function append(value: string, earlier: string[] = []): string[] {
  return [...earlier, value];
}

function appendMeasure(value: string, earlier: Measure[] = []): Measure[] {
  const measure = MEASURES.find((one) => one === value);
  if (measure === undefined) throw new InvalidArgumentError(`Allowed choices are ${MEASURES.join(', ')}.`);
  return [...earlier, measure];
}
