import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../cli/test/support/cli.js';
import { RealSandbox } from './small.js';

// What sft and rl would do, before anything starts: the rows as the model will read them, what does not work, and whether
// the files for Qwen3 hold together with models of that shape.

const ROWS = join(ROOT, 'configs/embedded/rows/exercises.jsonl');
const SFT = `model: embedded
sft:
  data: { source: ${ROWS}, prompt: "{question}", completion: "{response}", limit: 60 }
  format: { chat: true }
  context: 128
`;
const RL = `model: embedded
rl:
  prompts: { source: ${ROWS}, prompt: "{question}", answer: "{answer}", where: kind=sum, limit: 40 }
  format: { chat: true }
  group_size: 4
  prompts_per_step: 2
  steps: 2
  sampling: { max_tokens: 96 }
  rewards: [{ kind: answer }, { kind: endless }]
`;

const box = new RealSandbox();
const plan = async (...args: string[]) => {
  const { code, stdout, stderr } = await box.run(args);
  return { code, stdout, stderr };
};
beforeAll(async () => {
  await box.keepWorker();
  box.experiment(SFT, 'sft.yaml');
  box.experiment(RL, 'rl.yaml');
});
afterAll(() => box.remove());

describe('--dry-run', () => {
  it('sft: the template and what is trained on, in 80 columns', async () => {
    const { code, stdout, stderr } = await plan('sft', 'sft.yaml', '--dry-run');
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^trained +2,230,272 of 2,230,272 parameters/m);
    expect(stdout).toContain(
      '\n  What is 46 plus 25?<|im_end|>↵\n  <|im_start|>assistant↵\n  <think>↵\n  ↵\n  </think>↵\n  ↵\n' +
        '  46 + 25 = 71<|im_end|>\n  ^^^^^^^^^^^^^^^^^^^^^^\n',
    );
    expect(stdout).toMatch(/\nsample 3 of 3: row 2, ru, \d+ tokens, \d+ of them trained on\n/);
    expect(stdout).toMatch(/\nfits\n\ntime +about /);
    for (const line of stdout.split('\n')) expect([...line].length, line).toBeLessThanOrEqual(80);
    expect(box.runFolders()).toEqual([]);
  });

  it('rl: prompts end where the answer begins, with the right one beside', async () => {
    const { code, stdout, stderr } = await plan('rl', 'rl.yaml', '--control', 'pasted', '--dry-run');
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^arm +DAPO with rare negatives, pasted$/m);
    expect(stdout).toContain('\n  <|im_start|>assistant↵\n  <think>↵\n  ↵\n  </think>↵\n  ↵\nright answer: 71\n');
    expect(stdout).not.toContain('^');
    for (const line of stdout.split('\n')) expect([...line].length, line).toBeLessThanOrEqual(80);
    expect(box.runFolders()).toEqual([]);
  });

  it('counts the rows that are left out, with the reason', async () => {
    const rows = ['{"question": "1 + 1 = ?", "response": "2"}', '{"question": "2 + 2 = ?", "response": ""}', 'broken'];
    writeFileSync(join(box.folder, 'rows.jsonl'), rows.join('\n'));
    const { code, stdout, stderr } = await plan(
      'sft',
      'sft.yaml',
      '--dry-run',
      '--set',
      'sft.data.source=./rows.jsonl',
    );
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^rows +1 rows; left out: /m);
    expect(stdout).toContain('1 (no answer)');
  });

  it.each([
    ['sft', 'sft.data.prompt="{ask}"', /sft\.data\.source: .* no column 'ask' with a value/],
    ['sft', 'sft.trainable.layers=[9]', /sft\.trainable\.layers\[0\]: Layer 9 does not exist/],
    ['rl', 'rl.sampling.temperature=0', /rl\.sampling\.temperature: At temperature 0/],
    ['rl', 'rl.rewards=[{kind: answer}]', /No reward tells a loop from a wrong answer/],
  ])('%s refuses %s at its place', async (verb, set, message) => {
    const control = verb === 'rl' ? ['--control', 'pasted'] : [];
    const { code, stderr } = await plan(verb, `${verb}.yaml`, ...control, '--set', set, '--dry-run');
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^\S+:\d+:\d+ \S/);
    expect(stderr).not.toContain('Traceback');
    expect(code).toBe(65);
  });
});

const SHAPES = {
  '1.7b': {
    hidden_size: 2048,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    intermediate_size: 6144,
    tie_word_embeddings: true,
  },
  '8b': {
    hidden_size: 4096,
    num_hidden_layers: 36,
    num_attention_heads: 32,
    intermediate_size: 12288,
    tie_word_embeddings: false,
  },
  '30b-a3b': {
    ...{
      hidden_size: 2048,
      num_hidden_layers: 48,
      num_attention_heads: 32,
      num_key_value_heads: 4,
      intermediate_size: 6144,
    },
    ...{
      moe_intermediate_size: 768,
      num_experts: 128,
      num_experts_per_tok: 8,
      decoder_sparse_step: 1,
      norm_topk_prob: true,
    },
    ...{ architectures: ['Qwen3MoeForCausalLM'], model_type: 'qwen3_moe', tie_word_embeddings: false },
  },
};
const EMBEDDED = join(ROOT, 'backend-py/qscope/embedded/model');

/** A folder that looks like a model of Qwen3, without weights, and with a small tokenizer. */
function shapeOf(name: keyof typeof SHAPES): string {
  const folder = join(box.folder, `qwen3-${name}`);
  mkdirSync(folder, { recursive: true });
  const config = JSON.parse(readFileSync(join(EMBEDDED, 'config.json'), 'utf8'));
  const own = {
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 151936,
    max_position_embeddings: 32768,
    dtype: 'bfloat16',
  };
  writeFileSync(
    join(folder, 'config.json'),
    JSON.stringify({ ...config, layer_types: undefined, ...own, ...SHAPES[name] }),
  );
  for (const file of ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja']) {
    try {
      copyFileSync(join(EMBEDDED, file), join(folder, file));
    } catch {
      // The template may stand in the tokenizer's own file.
    }
  }
  return folder;
}

describe('the files for Qwen3', () => {
  it.each(Object.keys(SHAPES) as (keyof typeof SHAPES)[])('%s', async (name) => {
    const model = shapeOf(name);
    for (const verb of ['sft', 'rl']) {
      const rows = verb === 'sft' ? 'data' : 'prompts';
      const columns = verb === 'sft' ? 'completion: "{response}"' : 'answer: "{answer}"';
      const held = verb === 'sft' ? `sft.held_out.source=${ROWS}` : `rl.evaluate.prompts.source=${ROWS}`;
      const { code, stdout, stderr } = await plan(
        ...[verb, join(ROOT, `configs/qwen/${verb}-${name}.yaml`), '--dry-run', '--set', `model=${model}`],
        ...['--set', `${verb}.${rows}={source: ${ROWS}, prompt: "{question}", ${columns}}`, '--set', held],
        // Neither the SAEs nor their features are here; what stands beside them is what is planned.
        ...(verb === 'sft'
          ? ['--arm', 'plain']
          : ['--control', 'pasted', '--set', 'rl.rewards=[{kind: answer}, {kind: endless}]']),
      );
      // A machine that holds it says 0, another one 1: both have a plan.
      expect([0, 1], stderr).toContain(code);
      expect(stdout, stderr).toMatch(/^model +.*\b(28|36|48) layers/m);
      expect(stdout).toMatch(/\n(fits|DOES NOT FIT)\n/);
      expect(stdout).toMatch(/^memory$/m);
    }
  });
});
