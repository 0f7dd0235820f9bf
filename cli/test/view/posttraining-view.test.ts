import { create } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { type RunEvent, RunEventSchema, RunState } from '../../src/gen/qscope/v1/run_event_pb.js';
import { type Run, RunSchema } from '../../src/gen/qscope/v1/run_pb.js';
import { joinFields, progressFields, progressText } from '../../src/view/progress-line.js';
import { RunModel } from '../../src/view/run-model.js';
import { resultLines } from '../../src/view/summary.js';

function modelOf(...events: object[]): RunModel {
  const model = new RunModel();
  for (const event of events) model.apply(create(RunEventSchema, { event } as never) as RunEvent);
  return model;
}

const progress = {
  case: 'progress',
  value: { phase: 'training', current: 42, total: 225, unit: 'steps', rate: 2.1, etaSeconds: 87 },
};
const metrics = (values: Record<string, number>, step = 42n) => ({
  case: 'metrics',
  value: { entries: [{ step, layer: -1, values }] },
});
const artifact = (path: string, kind: string, description: string) => ({
  case: 'artifact',
  value: { path, kind, description },
});
const widths = (model: RunModel) => [77, 57, 37].map((width) => joinFields(progressFields(model, width))).join('\n');

const sft = {
  loss: 1.2345,
  ce: 1.2013,
  sae_loss: 0.0332,
  sae_active_share: 0.114,
  tokens_per_second: 4321,
  grad_norm: 1.5,
  learning_rate: 1e-4,
};
const rl = {
  reward: 0.4125,
  repeat_ratio: 0.0313,
  steered_loop_rate: 0.875,
  frac_reward_zero_std: 0.25,
  clipped_ratio: 0.0625,
  steered_advantage: -2.4749,
  steered_token_share: 0.2212,
  tokens_per_second: 812.3,
  loss: -0.02,
};

test('the live line of sft', () => {
  expect(`\n${widths(modelOf(progress, metrics(sft)))}\n`).toMatchInlineSnapshot(`
    "
    training  [#---------]  42/225  ETA 1:27  CE 1.20  SAE 0.033  active 11.4%
    training  [#-----]  42/225  ETA 1:27  CE 1.20  SAE 0.033
    training  [#-----]  42/225  ETA 1:27
    "
  `);
  expect(progressText(modelOf(progress, metrics(sft)))).toMatchInlineSnapshot(
    `"training   18.7%  42/225  ETA 1:27  CE 1.20  SAE 0.033  active 11.4%  loss 1.23  4.3k tok/s"`,
  );
});

test('the live line of rl', () => {
  expect(`\n${widths(modelOf(progress, metrics(rl)))}\n`).toMatchInlineSnapshot(`
    "
    training  [#-----]  42/225  ETA 1:27  reward 0.41  loops 3.1%  steered 87.5%
    training  [#---------]  42/225  ETA 1:27  reward 0.41
    training  [#-----]  42/225  ETA 1:27
    "
  `);
  expect(progressText(modelOf(progress, metrics(rl)))).toMatchInlineSnapshot(
    `"training   18.7%  42/225  ETA 1:27  reward 0.41  loops 3.1%  steered 87.5%  zero std 25.0%  cut 6.3%  advantage -2.47  share 22.1%  812 tok/s"`,
  );
});

test('what an earlier step measured is not shown as if it were of this one', () => {
  const { steered_advantage, ...without } = rl;
  const model = modelOf(progress, metrics(rl, 41n), metrics({ ...without, steered_token_share: 0 }, 42n));
  expect(steered_advantage).toBeLessThan(0);
  expect(progressText(model)).not.toContain('advantage');
  expect(progressText(model)).toContain('share 0.0%');
  const held = modelOf(progress, metrics({ held_out_loss: 4.1 }, 40n), metrics(sft, 42n));
  expect(progressText(held)).toContain('held out 4.10');
});

test('what is not measured is not shown', () => {
  const plain = modelOf(progress, metrics({ loss: 1.2, ce: 1.2 }));
  expect(joinFields(progressFields(plain, 77))).toMatchInlineSnapshot(
    `"training  [#---------]  42/225  2.10 steps/s  ETA 1:27  CE 1.20  loss 1.20"`,
  );
  const dapo = modelOf(progress, metrics({ reward: 0.4, repeat_ratio: 0, frac_reward_zero_std: 1, clipped_ratio: 0 }));
  expect(joinFields(progressFields(dapo, 77))).toMatchInlineSnapshot(
    `"training  [#-------]  42/225  2.10 steps/s  ETA 1:27  reward 0.40  loops 0.0%"`,
  );
});

const ended = (verb: string): Run =>
  create(RunSchema, { runId: 'sft-1a2b', folder: `${process.cwd()}/runs/sft-1a2b`, verb, state: RunState.SUCCEEDED });

test('the end of a run says what changed, how the model is loaded and how it is measured', () => {
  const model = modelOf(
    metrics({ held_out_loss: 4.2312 }, 0n),
    metrics(sft),
    metrics({ held_out_loss: 4.0719 }, 225n),
    artifact('artifacts/training.json', 'training-record', 'what the model was trained on'),
    artifact('artifacts/model', 'model', 'after 225 steps'),
  );
  const lines = resultLines(ended('sft'), model, 80);
  expect(`\n${lines.join('\n').replaceAll(process.cwd(), '/home/me')}\n`).toMatchInlineSnapshot(`
    "
    Results in /home/me/runs/sft-1a2b:
      artifacts/training.json  what the model was trained on
      artifacts/model  after 225 steps

    held-out loss, nats a token: 4.231 before, 4.072 after

    Load it with transformers:
      AutoModelForCausalLM.from_pretrained("./runs/sft-1a2b/artifacts/model")
    Measure it:
      qscope eval codeswitch --model ./runs/sft-1a2b/artifacts/model --prompts FILE
    "
  `);
  for (const line of lines.slice(1)) expect(line.length).toBeLessThanOrEqual(80);
});

test('an adapter needs peft, and one measurement is no change', () => {
  const model = modelOf(metrics({ held_out_loss: 4.2 }), artifact('artifacts/model', 'adapter', 'after 20 steps'));
  const text = resultLines(ended('rl'), model, 80).join('\n');
  expect(text).toContain('Load it with transformers and peft:\n');
  expect(text).toContain('qscope eval repeat --model ./runs/sft-1a2b/artifacts/model --prompts FILE');
  expect(text).not.toContain('before');
});

test('runs that write no model, and runs that failed, end as before', () => {
  const model = modelOf(artifact('artifacts/model', 'model', 'after 20 steps'));
  expect(resultLines(ended('train-sae'), modelOf(metrics(sft)), 80)).toEqual([]);
  const failed = create(RunSchema, { ...ended('sft'), state: RunState.FAILED });
  expect(resultLines(failed, model, 80)).toEqual([]);
});
