import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { evalSettings } from '../../src/commands/eval-shortcuts.js';
import { loadExperiment } from '../../src/experiment/load.js';
import { Sandbox } from '../support/cli.js';

let sandbox: Sandbox;
beforeAll(() => {
  sandbox = new Sandbox();
  const file = 'model: embedded\neval_responses:\n  measures: [repeat, accuracy]\n  prompts: { source: rows.jsonl }\n';
  writeFileSync(join(sandbox.folder, 'eval.yaml'), file);
  writeFileSync(join(sandbox.folder, 'out.jsonl'), '{"response": "a"}\n');
  writeFileSync(join(sandbox.folder, 'sft.yaml'), 'model: embedded\nsft:\n  data: { source: rows.jsonl }\n');
});
afterAll(() => sandbox.remove());

/** The experiment that options stand for. */
async function asked(
  files: string[],
  ...given: Parameters<typeof evalSettings> extends [unknown, ...infer Rest] ? Rest : never
) {
  const set = evalSettings(files, ...given);
  const { experiment } = await loadExperiment(files, { verb: 'eval_responses', set, cwd: sandbox.folder });
  if (experiment.task.case !== 'evalResponses') throw new Error('another task');
  return { ...experiment, task: experiment.task.value };
}

describe('short forms', () => {
  test('of saved responses: no model is named but for the record', async () => {
    const { model, name, task } = await asked([], { responses: 'out.jsonl', also: ['codeswitch'] }, 'repeat');
    expect({ model, name, measures: task.measures }).toEqual({
      model: 'unknown',
      name: 'eval-repeat',
      measures: [1, 2],
    });
    expect(task.responses?.source).toBe(join(sandbox.folder, 'out.jsonl'));
    expect(task.prompts?.source).toBe('');
    const named = await asked([], { responses: 'latest', model: 'some/model', answer: 'gold', limit: '7' }, 'accuracy');
    expect(named.model).toBe('some/model');
    expect(named.task.responses).toMatchObject({ source: 'latest', answer: 'gold', limit: 7 });
  });

  test('of a model with prompts', async () => {
    const { model, seed, task } = await asked(
      [],
      {
        model: 'embedded',
        prompts: 'questions.jsonl',
        prompt: '{question}: ',
        answer: '{answer}',
        language: 'lang',
        target: ['zh', 'ru'],
        rule: 'whole',
        chat: true,
        maxTokens: '32',
        temperature: '0.5',
        samples: '8',
        limit: '100',
        seed: '9',
      },
      'codeswitch',
    );
    expect({ model, seed }).toEqual({ model: 'embedded', seed: 9 });
    expect(task).toMatchObject({
      measures: [2],
      prompts: { source: 'questions.jsonl', prompt: '{question}: ', answer: '{answer}', language: 'lang', limit: 100 },
      format: { chat: true },
      sampling: { maxTokens: 32, temperature: 0.5, topP: 1 },
      codeswitch: { targets: ['zh', 'ru'], paper: false },
      rule: 'whole',
      samples: 8,
    });
  });

  test('a file keeps what the options leave alone, and its measures unless the command names one', async () => {
    const file = ['eval.yaml'];
    expect((await asked(file, {})).task.measures).toEqual([1, 3]);
    expect((await asked(file, {}, 'codeswitch')).task.measures).toEqual([2]);
    expect((await asked(file, { also: ['repeat', 'codeswitch'] }, 'repeat')).task.measures).toEqual([1, 2]);
    const { model, name, task } = await asked(file, { temperature: '0' });
    expect({ model, name, source: task.prompts?.source }).toEqual({
      model: 'embedded',
      name: 'run',
      source: 'rows.jsonl',
    });
    // A measure takes 256 tokens to see a loop in, unless somebody says otherwise.
    expect(task.sampling).toMatchObject({ temperature: 0, maxTokens: 256 });
  });
});

describe('usage', () => {
  test.each([
    [['eval'], 2, 'There is nothing to measure: no file, no responses, no prompts.\nGive an experiment file,'],
    [['eval', 'repeat', '--prompts', 'a.jsonl'], 2, '--prompts needs a model to answer them.\nName it with --model'],
    [['eval', 'eval.yaml', '--also', 'accuracy'], 2, 'Write for example: qscope eval repeat --also accuracy'],
    [['eval', 'repeat', '--also', 'speed'], 2, "argument 'speed' is invalid. Allowed choices are repeat, codeswitch"],
    [
      ['eval', 'repeat', '--responses', 'a', '--prompts', 'b'],
      2,
      "option '--responses <source>' cannot be used with option '--prompts <source>'",
    ],
    [['eval', 'repeat', 'eval.yaml', '--responses', 'out.jsonl'], 65, 'name either prompts (prompts.source)'],
    [['eval', 'repeat', 'eval.yaml', '-n', '0'], 65, 'eval_responses.sampling.max_tokens: must be'],
    [['eval', 'repeat', 'sft.yaml'], 65, 'this is an experiment for qscope sft, not for qscope eval'],
    [['eval', 'repaet', 'eval.yaml'], 65, 'repaet'],
  ])('%j ends with %i', async (args, wanted, message) => {
    const { stderr, code } = await sandbox.run(args);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain('    at ');
    expect(code).toBe(wanted);
  });

  test('--help of the group and of each measure shows options, examples and the file', async () => {
    for (const measure of [[], ['repeat'], ['codeswitch'], ['accuracy']]) {
      const { stdout, code } = await sandbox.run(['eval', ...measure, '--help']);
      expect(code).toBe(0);
      for (const words of ['--responses', '--also', 'Examples:', 'eval_responses:', '(required)']) {
        expect(stdout).toContain(words);
      }
      for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
    }
  });
});
