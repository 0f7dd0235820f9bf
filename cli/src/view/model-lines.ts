import path from 'node:path';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { formatMetric } from './metrics.js';
import type { RunModel } from './run-model.js';

/** Measured before training and after it, where the run was asked to. */
const BEFORE_AND_AFTER: Readonly<Record<string, string>> = {
  held_out_loss: 'held-out loss, nats a token',
};

/** What each verb that trains a model trains it for. */
const MEASURE: Readonly<Record<string, string>> = { sft: 'codeswitch', rl: 'repeat' };

/** What became of a model that was trained: what changed, how it is loaded, how it is measured; empty for other runs. */
export function modelLines(run: Run, model: RunModel): string[] {
  const written = [...model.artifacts.values()].findLast(({ kind }) => kind === 'model' || kind === 'adapter');
  if (!written) return [];
  const folder = near(path.join(run.folder, written.path));
  const changes = Object.entries(BEFORE_AND_AFTER).flatMap(([name, title]) => {
    const [first, last] = [model.first.get(name), model.whole.get(name)];
    return first === undefined || last === undefined || !model.again.has(name)
      ? []
      : [`${title}: ${formatMetric(name, first)} before, ${formatMetric(name, last)} after`];
  });
  const load = written.kind === 'adapter' ? 'Load it with transformers and peft:' : 'Load it with transformers:';
  return [
    ...changes,
    ...(changes.length > 0 ? [''] : []),
    load,
    `  AutoModelForCausalLM.from_pretrained(${JSON.stringify(folder)})`,
    'Measure it:',
    `  qscope eval ${MEASURE[run.verb] ?? 'repeat'} --model ${folder} --prompts FILE`,
  ];
}

/** A path as it would be typed from here, where that is shorter. */
function near(absolute: string): string {
  const relative = path.relative(process.cwd(), absolute);
  // Without a dot it could be mistaken for a name of the hub.
  const typed = relative.startsWith('..') ? relative : `./${relative}`;
  return typed.length < absolute.length ? typed : absolute;
}
