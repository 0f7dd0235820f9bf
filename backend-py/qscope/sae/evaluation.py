"""Held-out measures of SAEs: reconstruction at the hook, and what splicing the reconstruction does to the model.

Every measure is computed twice. *Filtered* leaves out what the SAE never saw in training: first tokens and norm
outliers (for the cross entropies those positions keep their true activation). *All tokens* leaves out padding only.
Definitions are in docs/eval-sae.md, formulas in :mod:`qscope.sae.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qscope.data import TokenStream
from qscope.models import LoadedModel, capture_residuals, edit_residual, logits_of
from qscope.sae.filtering import TokenFilter
from qscope.sae.metrics import CodeStats, ReconstructionStats, SpliceStats
from qscope.sae.topk import TopKSae
from qscope.v1 import sae_pb2


@dataclass
class EvaluationReport:
    """Measures per layer and what they were measured on."""

    per_layer: dict[int, dict[str, float]]
    density: dict[int, dict[str, list[float]]]
    tokens: int
    filtered_tokens: int
    sequences: int
    source: dict = field(default_factory=dict)

    def to_json(self) -> dict:
        """The report as it is written to ``evaluation.json``."""
        return {
            "tokens": self.tokens,
            "filtered_tokens": self.filtered_tokens,
            "sequences": self.sequences,
            "source": self.source,
            "definitions": "docs/eval-sae.md",
            "layers": {str(layer): row for layer, row in self.per_layer.items()},
            "density_log10_histogram": {str(layer): row for layer, row in self.density.items()},
        }


@torch.no_grad()
def evaluate(
    loaded: LoadedModel,
    saes: dict[int, TopKSae],
    stream: TokenStream,
    *,
    count: int,
    batch_tokens: int,
    filter: sae_pb2.ActivationFilter,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> EvaluationReport | None:
    """Measures SAEs on the first ``count`` tokens of a stream.

    Args:
        loaded: the model the SAEs belong to.
        saes: one SAE per layer.
        stream: held-out token sequences.
        count: tokens to read (rounded up to whole batches).
        batch_tokens: tokens per forward pass.
        filter: what counts as filtered; see the module.
        on_progress: called with the tokens done.
        should_stop: asked between batches.

    Returns:
        The report, or None when ``should_stop`` said so.
    """
    saes = {layer: sae.to(device=loaded.device, dtype=torch.float32) for layer, sae in sorted(saes.items())}
    measured = {layer: _LayerMeasures(sae) for layer, sae in saes.items()}
    token_filter = TokenFilter(filter, list(saes), loaded.device)
    rows = max(1, batch_tokens // stream.context)
    tokens = filtered_tokens = sequences = 0
    while tokens < count:
        if should_stop():
            return None
        batch = stream.next_batch(rows)
        if batch is None:
            break
        ids_BT, mask_BT = batch.input_ids_BT.to(loaded.device), batch.attention_mask_BT.to(loaded.device)
        resid_BTD = capture_residuals(loaded, list(saes), ids_BT, mask_BT)
        keep_BT = torch.zeros_like(mask_BT)
        keep_BT.view(-1)[token_filter.keep(list(resid_BTD.values()), batch)] = True
        clean = _next_token_losses(logits_of(loaded, ids_BT, mask_BT), ids_BT, mask_BT)
        for layer, sae in saes.items():
            measured[layer].add(loaded, sae, layer, resid_BTD[layer].float(), ids_BT, mask_BT, keep_BT, clean)
        tokens += int(mask_BT.sum())
        filtered_tokens += int(keep_BT.sum())
        sequences += ids_BT.shape[0]
        on_progress(min(tokens, count))
    return EvaluationReport(
        per_layer={layer: m.results() for layer, m in measured.items()},
        density={layer: m.codes.density_histogram() for layer, m in measured.items()},
        tokens=tokens,
        filtered_tokens=filtered_tokens,
        sequences=sequences,
        source=stream.describe(),
    )


class _LayerMeasures:
    """Accumulators of one layer."""

    def __init__(self, sae: TopKSae) -> None:
        self.codes = CodeStats(sae.d_sae)
        self.filtered, self.everything = ReconstructionStats(sae.d_in), ReconstructionStats(sae.d_in)
        self.splice, self.splice_everything = SpliceStats(), SpliceStats()

    def add(
        self,
        loaded: LoadedModel,
        sae: TopKSae,
        layer: int,
        x_BTD: Tensor,
        ids_BT: Tensor,
        mask_BT: Tensor,
        keep_BT: Tensor,
        clean: tuple[Tensor, Tensor],
    ) -> None:
        x_ND, kept_N = x_BTD[mask_BT], keep_BT[mask_BT]
        values_NK, indices_NK = sae.encode(x_ND)
        x_hat_ND = sae.decode(values_NK, indices_NK)
        self.codes.add(values_NK[kept_N], indices_NK[kept_N])
        self.filtered.add(x_ND[kept_N], x_hat_ND[kept_N])
        self.everything.add(x_ND, x_hat_ND)

        x_hat_BTD = x_BTD.clone()
        x_hat_BTD[mask_BT] = x_hat_ND
        ablated_BTD = torch.zeros_like(x_BTD)
        log_clean, ce_clean = clean

        def spliced(replacement_BTD: Tensor) -> tuple[Tensor, Tensor]:
            with edit_residual(loaded, layer, lambda resid_BTD: replacement_BTD.to(resid_BTD.dtype)):
                return _next_token_losses(logits_of(loaded, ids_BT, mask_BT), ids_BT, mask_BT)

        kept = keep_BT[:, :, None]
        for stats, sae_BTD, zero_BTD in (
            (self.splice, torch.where(kept, x_hat_BTD, x_BTD), torch.where(kept, ablated_BTD, x_BTD)),
            (self.splice_everything, x_hat_BTD, ablated_BTD),
        ):
            (log_sae, ce_sae), (_, ce_zero) = spliced(sae_BTD), spliced(zero_BTD)
            stats.add(ce_clean=ce_clean, ce_sae=ce_sae, ce_zero=ce_zero, kl=_kl(log_clean, log_sae))

    def results(self) -> dict[str, float]:
        return {
            **self.filtered.results(),
            **self.codes.results(),
            **self.splice.results(),
            **{f"{name}_all_tokens": value for name, value in self.everything.results().items()},
            **{f"{name}_all_tokens": value for name, value in self.splice_everything.results().items()},
        }


def _next_token_losses(logits_BTV: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``[N, V]`` and cross entropies ``[N]`` in nats of every token that has a successor."""
    valid_BT = mask_BT[:, 1:] & mask_BT[:, :-1]
    log_NV = torch.log_softmax(logits_BTV[:, :-1][valid_BT].float(), dim=-1)
    targets_N = ids_BT[:, 1:][valid_BT]
    return log_NV, -log_NV.gather(1, targets_N[:, None])[:, 0]


def _kl(log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
    """KL(p || q) in nats per token, ``[N]``."""
    return (log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1)
