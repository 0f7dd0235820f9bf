import { decimals, percent, significant } from './format.js';

/** How the numbers of a metric are written: with so many decimals, as percent, or with 4 significant digits. */
export type MetricFormat = number | 'percent' | 'significant';

/** How a metric is shown. Names that are not listed appear after these, as they are. */
interface Style {
  label: string;
  format: MetricFormat;
}

const STYLES: Readonly<Record<string, Style>> = {
  fvu: { label: 'FVU', format: 4 },
  cosine: { label: 'cosine', format: 4 },
  l0: { label: 'L0', format: 1 },
  dead_share: { label: 'dead', format: 'percent' },
  ce_recovered: { label: 'CE rec.', format: 4 },
  ce_delta: { label: 'CE +', format: 4 },
  kl: { label: 'KL', format: 4 },
  fvu_all_tokens: { label: 'FVU all', format: 4 },
  feature: { label: 'feature', format: 0 },
  held_out_auc: { label: 'AUC', format: 3 },
  auc_low: { label: 'low', format: 3 },
  auc_high: { label: 'high', format: 3 },
  score: { label: 'score', format: 3 },
  held_out_score: { label: 'held out', format: 3 },
  mean_positive: { label: 'mean +', format: 3 },
  mean_negative: { label: 'mean -', format: 3 },
  rate_positive: { label: 'fires +', format: 'percent' },
  rate_negative: { label: 'fires -', format: 'percent' },
  ambient: { label: 'ambient', format: 0 },
  reward: { label: 'reward', format: 3 },
  repeat_ratio: { label: 'loops', format: 'percent' },
  steered_loop_rate: { label: 'steered', format: 'percent' },
  frac_reward_zero_std: { label: 'zero std', format: 'percent' },
  clipped_ratio: { label: 'cut', format: 'percent' },
  steered_advantage: { label: 'advantage', format: 2 },
  steered_token_share: { label: 'share', format: 'percent' },
  steered_pull_share: { label: 'pull', format: 'percent' },
  steered_reward: { label: 'steered reward', format: 3 },
  steered_length: { label: 'steered length', format: 1 },
  steered_dropped: { label: 'dropped', format: 'percent' },
  reward_std: { label: 'reward sd', format: 3 },
  cs_ratio: { label: 'switched', format: 'percent' },
  completion_length: { label: 'length', format: 1 },
  repeated_3grams: { label: '3-grams', format: 'percent' },
  frac_ungraded: { label: 'ungraded', format: 'percent' },
  loss: { label: 'loss', format: 'significant' },
  ce: { label: 'CE', format: 3 },
  sae_loss: { label: 'SAE', format: 'significant' },
  sae_active_share: { label: 'active', format: 'percent' },
  held_out_loss: { label: 'held out', format: 3 },
  held_out_repeat_ratio: { label: 'held-out loops', format: 'percent' },
  held_out_accuracy: { label: 'held-out right', format: 'percent' },
  held_out_clipped_ratio: { label: 'held-out cut', format: 'percent' },
  held_out_repeated_3grams: { label: 'held-out 3-grams', format: 'percent' },
  aux_loss: { label: 'aux loss', format: 'significant' },
  grad_norm: { label: 'gradient', format: 'significant' },
  texts_tried: { label: 'tried', format: 0 },
  texts_kept: { label: 'kept', format: 0 },
  output_tokens: { label: 'tokens', format: 0 },
  cost: { label: 'cost', format: 2 },
};

/** Metrics of the evaluation carry this prefix. */
const EVALUATION = 'eval_';

export function metricLabel(name: string): string {
  return STYLES[base(name)]?.label ?? name;
}

export function formatMetric(name: string, value: number): string {
  const format = metricFormat(name);
  if (typeof format === 'number') return decimals(value, format);
  return format === 'percent' ? percent(value) : significant(value);
}

export function metricFormat(name: string): MetricFormat {
  return STYLES[base(name)]?.format ?? 'significant';
}

/**
 * The metrics to show as columns, most telling first. Where the evaluation measured the same quantity as the training,
 * on more text and text not trained on, only its value is kept; of the evaluation's other measures, those without a
 * style stay in its file, as there are more of them than a table can hold.
 */
export function metricColumns(names: Iterable<string>): string[] {
  const all = new Set(names);
  const order = Object.keys(STYLES);
  const rank = (name: string) => {
    const index = order.indexOf(base(name));
    return index < 0 ? order.length : index;
  };
  const shown = (name: string) => !all.has(EVALUATION + name) && (!name.startsWith(EVALUATION) || base(name) in STYLES);
  return [...all].filter(shown).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}

function base(name: string): string {
  return name.startsWith(EVALUATION) ? name.slice(EVALUATION.length) : name;
}
