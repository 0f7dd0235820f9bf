import { createInterface } from 'node:readline/promises';
import { ExitCode, UserError } from '../errors.js';
import { type LoadedExperiment, loadExperiment } from '../experiment/load.js';
import type { Experiment } from '../gen/qscope/v1/experiment_pb.js';
import type { Steer } from '../gen/qscope/v1/steer_pb.js';
import { canPrompt, printNote } from '../view/output.js';
import { chooseSteerView } from '../view/steer-view.js';
import { explain } from '../worker/explain.js';
import { placeFaults } from './experiment-faults.js';
import { settings } from './options.js';
import { type Session, withWorker } from './session.js';
import { startRun } from './start-run.js';
import type { SteerOptions } from './steer.js';

/** Streams an answer for `-p` and `-i`; runs the files otherwise. */
export async function steer(files: string[], options: SteerOptions): Promise<void> {
  const whole = { ...options, asked: shortForms(files, options) };
  if (options.dryRun || (!options.prompt && !options.interactive)) {
    if (files.length === 0 && !options.prompt) {
      throw new UserError('There is nothing to steer: no file, no prompt.', {
        hint: 'Give an experiment file, or -p TEXT with -f LAYER:FEATURE.',
        exitCode: ExitCode.usage,
      });
    }
    await startRun('steer', files, whole);
    return;
  }
  if (options.interactive && !canPrompt()) {
    throw new UserError('-i needs a terminal to read prompts from.', {
      hint: 'Give the prompts with -p.',
      exitCode: ExitCode.usage,
    });
  }
  if (options.prompt?.includes('')) {
    throw new UserError('-p holds no text.', {
      hint: 'Write the prompt after -p, or have it asked for with -i.',
      exitCode: ExitCode.usage,
    });
  }
  const loaded = await loadExperiment(files, { verb: 'steer', set: settings(whole) });
  // Faults are placed in files; who gave options only is told what is wrong without a place.
  const locate: Locate = files.length > 0 ? loaded.locate : () => undefined;
  const asked = { experiment: loaded.experiment, locate, options };
  await withWorker(options, (given) => (options.interactive ? converse(asked, given) : answer(asked, given)));
}

/** The short options as `--set` texts. Values are YAML, so text is quoted as JSON, which YAML contains. */
function shortForms(files: string[], options: SteerOptions): string[] {
  const set: string[] = [];
  const give = (path: string, value: string | undefined) => {
    if (value !== undefined) set.push(`${path}=${value}`);
  };
  const text = (value: string | undefined) => (value === undefined ? undefined : JSON.stringify(value));
  give('model', text(options.model ?? (files.length === 0 ? 'embedded' : undefined)));
  give('seed', options.seed);
  give('steer.sae', text(options.sae));
  give('steer.prompts', options.prompt && JSON.stringify(options.prompt));
  // A prompt is asked for later; the contract wants to see one now.
  if (options.interactive && !options.prompt) set.push('steer.prompts=["later"]');
  give('steer.format.chat', options.chat ? 'true' : undefined);
  give('steer.sampling.max_tokens', options.maxTokens);
  give('steer.sampling.temperature', options.temperature);
  give('steer.samples', options.samples);
  if (options.feature) set.push(`steer.steering.edits=${JSON.stringify(edits(options.feature, options))}`);
  return set;
}

/** One edit per feature: each may have a strength of its own. */
function edits(features: string[], { op, strength, unit, phase }: SteerOptions): object[] {
  return features.map((given) => {
    const match = /^(\d+):(\d+)(?:=(-?[\d.]+(?:e-?\d+)?))?$/i.exec(given);
    if (!match) {
      throw new UserError(`${given} is not a feature.`, {
        hint: 'Write LAYER:FEATURE or LAYER:FEATURE=STRENGTH, for example 3:1207=0.5.',
        exitCode: ExitCode.usage,
      });
    }
    const [, layer, feature, own] = match;
    const wanted = own ?? strength;
    return {
      layers: [Number(layer)],
      features: [Number(feature)],
      // Factors have no unit; a strength in multiples of the residual norm means the same at every layer.
      unit: unit ?? (op === 'scale' ? 'raw' : 'norm'),
      ...(op === undefined ? {} : { op }),
      ...(wanted === undefined ? {} : { strength: Number(wanted) }),
      ...(phase === undefined ? {} : { where: { phase } }),
    };
  });
}

type Locate = LoadedExperiment['locate'];

interface Asked {
  experiment: Experiment;
  locate: Locate;
  options: SteerOptions;
}

/** Asks the worker once, for all prompts, and shows the answer as it comes. */
async function answer(asked: Asked, given: Session): Promise<number> {
  await ask(asked, taskOf(asked).prompts, given, given.interrupts.signal);
  return ExitCode.ok;
}

/** Prompt after prompt, until the end of the input. Ctrl-C ends an answer; at the prompt it ends the conversation. */
async function converse(asked: Asked, given: Session): Promise<number> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  let current: AbortController | undefined;
  lines.on('SIGINT', () => (current ? current.abort() : lines.close()));
  const closed = new Promise<undefined>((resolve) => lines.once('close', () => resolve(undefined)));
  printNote('One prompt a line. Ctrl-C stops an answer, Ctrl-D leaves.');
  for (;;) {
    const line = await Promise.race([lines.question('> '), closed]);
    if (line === undefined) break;
    if (line.trim() === '') continue;
    current = new AbortController();
    try {
      await ask(asked, [line], given, current.signal);
    } catch (error) {
      const { signal } = current;
      const shown = signal.aborted ? undefined : explain(error, { log: given.session.log });
      // A prompt that cannot be answered is no reason to leave; a worker that is gone is.
      if (shown instanceof UserError && shown.exitCode !== ExitCode.unreachable) printNote(shown.render());
      else if (shown !== undefined) throw error;
    } finally {
      current = undefined;
    }
  }
  lines.close();
  return ExitCode.ok;
}

async function ask(asked: Asked, prompts: string[], given: Session, signal: AbortSignal): Promise<void> {
  const { experiment, locate, options } = asked;
  const task = taskOf(asked);
  const steers = (task.steering?.edits.length ?? 0) + (task.steering?.abortWhen.length ?? 0) > 0;
  const arms = steers ? (options.baseline ? ['steered', 'unsteered'] : ['steered']) : ['unsteered'];
  const rows = prompts.flatMap((prompt, index) =>
    Array.from({ length: task.samples }, (_, sample) => sample).flatMap((sample) =>
      // Rows of the two arms that belong together draw the same random numbers.
      arms.map((arm) => ({ arm, prompt, sample, noise: noiseOf(experiment.seed, index * task.samples + sample) })),
    ),
  );
  const { modelOptions, compute } = experiment;
  const { format, sampling, steering } = task;
  const request = {
    model: experiment.model,
    sae: task.sae,
    runsFolder: given.runsFolder,
    ...(modelOptions && { modelOptions }),
    ...(compute && { compute }),
    ...(format && { format }),
    ...(sampling && { sampling }),
    rows: rows.map(({ arm, prompt, noise }) => ({
      prompt,
      noise,
      ...(arm === 'steered' && steering ? { steering } : {}),
    })),
  };
  const view = await chooseSteerView({ json: options.json, rows });
  try {
    for await (const message of given.session.inference.generate(request, { signal })) view.show(message);
  } catch (error) {
    throw placeFaults(error, (field) => locate(inExperiment(field)));
  } finally {
    view.end();
  }
}

function noiseOf(seed: number, index: number): bigint {
  return BigInt(seed) * 1_000_003n + BigInt(index);
}

/** A field of the request as the experiment calls it. */
function inExperiment(field: string): string {
  return field
    .replace(/^rows\[\d+\]\.steering/, 'steer.steering')
    .replace(/^rows\[\d+\]\.prompt$/, 'steer.prompts')
    .replace(/^sae$/, 'steer.sae');
}

function taskOf({ experiment }: Asked): Steer {
  if (experiment.task.case !== 'steer') throw new Error('the reader let another task through');
  return experiment.task.value;
}
