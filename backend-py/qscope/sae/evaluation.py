"""Held-out measures of SAEs: reconstruction at the hook, and what splicing the reconstruction does to the model.

Every measure is computed twice. *Filtered* leaves out what the SAE never saw in training: first tokens and norm
outliers (for the cross entropies those positions keep their true activation). *All tokens* leaves out padding only.
Definitions are in docs/eval-sae.md, formulas in :mod:`qscope.sae.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qscope.data import TokenStream
from qscope.models import LoadedModel, UpperBlocks, capture_residuals, logits_of
from qscope.sae.filtering import TokenFilter
from qscope.sae.metrics import CodeStats, ReconstructionStats, SpliceStats
from qscope.sae.topk import TopKSae
from qscope.v1 import sae_pb2

_LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Logits of one pass. A vocabulary of 150,000 would otherwise take gigabytes per copy; on a CPU, blocks beyond some
ten MiB are mapped anew at every allocation, and clearing their pages takes longer than the arithmetic."""


LOGIT_COPIES = 4
"""Blocks of logits held at once: two of the clean pass, one spliced before and one after the softmax."""


def tokens_at_once(batch_tokens: int, vocab_size: int, device: torch.device) -> int:
    """Tokens of one forward pass: as many as asked for, fewer when the vocabulary is large."""
    return max(1, min(batch_tokens, _LOGITS_AT_ONCE[device.type] // vocab_size))


@dataclass
class EvaluationReport:
    """Measures per layer and what they were measured on.

    Attributes:
        per_layer: name to value; names as in docs/eval-sae.md.
        density: per layer, the histogram of log10 of the firing frequency.
        tokens: tokens read, without padding.
        filtered_tokens: those the filter kept.
        source: where the text came from.
    """

    per_layer: dict[int, dict[str, float]]
    density: dict[int, dict[str, list[float]]]
    tokens: int
    filtered_tokens: int
    source: dict

    def to_json(self) -> dict:
        """The report as it is written to ``evaluation.json``; a measure that does not exist is null."""
        return {
            "tokens": self.tokens,
            "filtered_tokens": self.filtered_tokens,
            "source": self.source,
            "definitions": "docs/eval-sae.md",
            "layers": {
                str(layer): {name: value if math.isfinite(value) else None for name, value in row.items()}
                for layer, row in self.per_layer.items()
            },
            "density": {str(layer): rows for layer, rows in self.density.items()},
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
        count: tokens to read (rounded up to whole sequences).
        batch_tokens: tokens per forward pass at most; fewer when the vocabulary is large.
        filter: what *filtered* means; see the module.
        on_progress: called with the tokens done.
        should_stop: asked between batches.

    Returns:
        The report, or None when ``should_stop`` said so.
    """
    saes = {layer: sae.to(device=loaded.device, dtype=torch.float32) for layer, sae in sorted(saes.items())}
    measured = {layer: _LayerMeasures(sae) for layer, sae in saes.items()}
    token_filter, upper = TokenFilter(filter, list(saes), loaded.device), UpperBlocks(loaded)
    at_once = tokens_at_once(batch_tokens, loaded.facts.vocab_size, loaded.device)
    sequences = max(1, at_once // stream.context)
    tokens = 0
    while tokens < count:
        if should_stop():
            return None
        batch = stream.next_batch(min(sequences, math.ceil((count - tokens) / stream.context)))
        if batch is None:
            break
        mask_BT = batch.attention_mask_BT.to(loaded.device)
        resids = capture_residuals(loaded, list(saes), batch.input_ids_BT, mask_BT)
        keep_BT = torch.zeros_like(mask_BT)
        keep_BT.view(-1)[token_filter.keep(list(resids.values()), batch)] = True
        passes = _Passes(loaded, upper, batch.input_ids_BT.to(loaded.device), mask_BT)
        for layer, sae in saes.items():
            measured[layer].add(sae, resids[layer].float(), mask_BT, keep_BT, passes)
        tokens += batch.tokens
        on_progress(min(tokens, count))
    return EvaluationReport(
        per_layer={layer: measures.results() for layer, measures in measured.items()},
        density={layer: measures.codes.density_histogram() for layer, measures in measured.items()},
        tokens=tokens,
        filtered_tokens=token_filter.kept,
        source=stream.state()["text"],
    )


class _Passes:
    """Forward passes over one batch: the clean one, kept, and others with a layer's output replaced.

    Everything is per token that has a successor, ``N`` in all; cross entropies and divergences are in nats.

    Attributes:
        ce_clean_N: cross entropies of the clean pass.
    """

    def __init__(self, loaded: LoadedModel, upper: UpperBlocks, ids_BT: Tensor, mask_BT: Tensor) -> None:
        self._upper, self._ids_BT = upper, ids_BT
        # Without padding the model can do without a mask, which is faster.
        self._mask_BT = None if bool(mask_BT.all()) else mask_BT
        self._predicted_BT = mask_BT[:, 1:] & mask_BT[:, :-1]
        self._targets_BT = ids_BT[:, 1:]
        self._log_clean_BTV = self._log_probabilities(logits_of(loaded, ids_BT, self._mask_BT))
        self._clean_BTV = self._log_clean_BTV.exp()
        self.ce_clean_N = self._ce(self._log_clean_BTV)

    def ce(self, layer: int, replacement_BTD: Tensor) -> Tensor:
        """Cross entropies ``[N]`` with the layer's output replaced."""
        return self._ce(self._spliced(layer, replacement_BTD))

    def ce_and_kl(self, layer: int, replacement_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropies and KL(clean || spliced), both ``[N]``, with the layer's output replaced."""
        log_BTV = self._spliced(layer, replacement_BTD)
        ce_N = self._ce(log_BTV)
        # The difference of logarithms first: the sum of either alone would drown a small divergence in its rounding.
        difference_BTV = log_BTV.sub_(self._log_clean_BTV)
        kl_BT = -torch.einsum("btv,btv->bt", self._clean_BTV, difference_BTV)
        return ce_N, kl_BT[:, :-1][self._predicted_BT]

    def _spliced(self, layer: int, replacement_BTD: Tensor) -> Tensor:
        return self._log_probabilities(self._upper.logits(layer, replacement_BTD, self._ids_BT, self._mask_BT))

    def _log_probabilities(self, logits_BTV: Tensor) -> Tensor:
        return torch.log_softmax(logits_BTV.float(), dim=-1)

    def _ce(self, log_BTV: Tensor) -> Tensor:
        # Numbers are picked from whole blocks of logits: to pick rows of logits first would copy nearly all of them.
        return -log_BTV[:, :-1].gather(2, self._targets_BT[:, :, None])[:, :, 0][self._predicted_BT]


class _LayerMeasures:
    """Accumulators of one layer."""

    def __init__(self, sae: TopKSae) -> None:
        self.codes = CodeStats(sae.d_sae)
        self.filtered, self.everything = ReconstructionStats(sae.d_in), ReconstructionStats(sae.d_in)
        self.losses, self.losses_everything = SpliceStats(), SpliceStats()
        self._layer = sae.layer

    def add(self, sae: TopKSae, x_BTD: Tensor, mask_BT: Tensor, keep_BT: Tensor, passes: _Passes) -> None:
        x_ND, kept_N = x_BTD[mask_BT], keep_BT[mask_BT]
        values_NK, indices_NK = sae.encode(x_ND)
        x_hat_ND = sae.decode(values_NK, indices_NK)
        self.codes.add(values_NK[kept_N], indices_NK[kept_N])
        self.filtered.add(x_ND[kept_N], x_hat_ND[kept_N])
        self.everything.add(x_ND, x_hat_ND)

        x_hat_BTD = x_BTD.clone()
        x_hat_BTD[mask_BT] = x_hat_ND
        zero_BTD, kept_BT1 = torch.zeros_like(x_BTD), keep_BT[:, :, None]
        for losses, spliced_BTD, ablated_BTD in (
            (self.losses, torch.where(kept_BT1, x_hat_BTD, x_BTD), torch.where(kept_BT1, zero_BTD, x_BTD)),
            (self.losses_everything, x_hat_BTD, zero_BTD),
        ):
            ce_sae_N, kl_N = passes.ce_and_kl(self._layer, spliced_BTD)
            ce_zero_N = passes.ce(self._layer, ablated_BTD)
            losses.add(ce_clean=passes.ce_clean_N, ce_sae=ce_sae_N, ce_zero=ce_zero_N, kl=kl_N)

    def results(self) -> dict[str, float]:
        everything = self.everything.results() | self.losses_everything.results()
        return (
            self.filtered.results()
            | self.losses.results()
            | self.codes.results()
            | {f"{name}_all_tokens": value for name, value in everything.items()}
        )
