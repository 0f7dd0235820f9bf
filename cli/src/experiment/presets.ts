/** A way to begin: what a first file says beyond the defaults, which must be valid as it stands. */
export interface Preset {
  /** What it is, as comments at the head of the file. */
  about: readonly string[];
  start: string;
}

const sft = (data: string) => `model: embedded\nsft: {data: {source: rows.jsonl}, ${data}}\n`;
const rl = (rest: string) => `model: embedded\nrl: {prompts: {source: rows.jsonl}, ${rest}}\n`;
const saeLoss = 'sae: latest, features: latest, target_languages: [de]';

/** By task and name; the first of a task is the one that `config init` writes. */
export const presets = {
  sft: {
    sasft: {
      about: [
        'SASFT (arXiv 2507.14894): answers are kept from switching to the target languages.',
        'Its features come from `qscope features language`; name its run, or latest, in sae_loss.features.',
      ],
      start: sft(`sae_loss: {${saeLoss}}, optimizer: {warmup_steps: 100}`),
    },
    'official-code': {
      about: [
        "SASFT as the authors' code computes it, for Gemma-2-2B: the loss of each of 32 micro-batches is added, not",
        'averaged, so that 5e-4 has the force of 0.016 over all tokens of a step.',
      ],
      start: sft(
        `sae_loss: {${saeLoss}, weight: 5e-4, preset: official_code}, micro_batch_rows: 1, accumulate: 32, optimizer: {learning_rate: 5e-5, warmup_steps: 100}`,
      ),
    },
    plain: {
      about: ['Supervised fine-tuning and nothing else.'],
      start: sft('arm: plain, optimizer: {warmup_steps: 100}'),
    },
  },
  rl: {
    'dapo-rare-negative': {
      about: [
        'DAPO with rare negatives (Qwen-Scope, section 8): one rollout of each group is steered into a loop.',
        'Its features come from `qscope features repetition`; name its run, or latest, in rare_negative.feature_set.',
      ],
      start: rl(
        'rewards: [{kind: answer}, {kind: repetition}], sae_penalty: {mode: rare_negative, sae: latest, rare_negative: {feature_set: latest}}',
      ),
    },
    dapo: {
      about: [
        'DAPO (arXiv 2503.14476): a higher upper clip, the mean over tokens, a soft penalty of long rollouts, and groups of',
        'equal rewards drawn again. Its text has no dual clip.',
      ],
      start: rl(
        'rewards: [{kind: answer}], group_size: 16, dual_clip: 0, dynamic_sampling: {enabled: true}, optimizer: {warmup_steps: 20}',
      ),
    },
    grpo: {
      about: [
        "GRPO's clip and advantages, without length penalty or drawing again. The loss is the mean over tokens, as in DAPO,",
        'and there is no KL term: what TRL does by default today.',
      ],
      start: rl('rewards: [{kind: answer}], epsilon_high: 0.2, dual_clip: 0, overlong: {mode: none}'),
    },
  },
} as const satisfies Record<string, Record<string, Preset>>;

export type PresetTask = keyof typeof presets;
