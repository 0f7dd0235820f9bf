/** What the metrics are called where there is room for it, and what they mean; the definitions are in docs/eval-sae.md. */
export const TITLES: Readonly<Record<string, string>> = {
  fvu: 'Fraction of variance unexplained (FVU)',
  l0: 'Active features per token (L0)',
  dead_share: 'Dead features',
  loss: 'Loss',
  aux_loss: 'Auxiliary loss',
  grad_norm: 'Gradient norm',
  learning_rate: 'Learning rate',
  tokens_per_second: 'Tokens per second',
};

export const MEANINGS: Readonly<Record<string, string>> = {
  fvu: 'Σ‖x − x̂‖² / Σ‖x − mean(x)‖²; 0 is a perfect reconstruction',
  cosine: 'mean of cos(x, x̂)',
  l2_ratio: 'mean of ‖x̂‖ / ‖x‖',
  reconstruction_bias: 'E‖x̂‖² / E[x·x̂]; 1 is unbiased, below 1 is shrinkage',
  l0: 'mean number of features above zero per token',
  dead_share: 'share of the features that fired on none of these tokens',
  ce_clean: 'next-token cross entropy of the untouched model, nats',
  ce_sae: 'the same with x̂ in place of x',
  ce_zero: 'the same with zeros in place of x',
  ce_delta: 'ce_sae − ce_clean',
  ce_recovered: '(ce_zero − ce_sae) / (ce_zero − ce_clean); 1 means that the model loses nothing',
  kl: 'mean KL(clean ‖ with x̂) of the next-token distributions, nats',
};
