"""Which activations never reach an SAE: padding, attention sinks, outliers of the norm.

On Qwen some positions exceed a hundred times the median norm; left in, they cost reconstruction, cause loss spikes and
kill features (Marks et al., dictionary_learning; Qwen-Scope, section 2.2). A token dropped at one layer is dropped at
all, so that one shuffle order serves every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qscope.data import TokenBatch
from qscope.v1.sae_pb2 import ActivationFilter

# Norms are counted in bins of 1/16 octave from 2^-40 to 2^40: exact integers, so the median depends neither on the
# order of tokens nor on how often a run was resumed, and is known to 2 %.
_BINS_PER_OCTAVE = 16
_OCTAVES = 40
_BINS = 2 * _OCTAVES * _BINS_PER_OCTAVE


class RunningMedian:
    """Median L2 norm of every layer over all tokens seen so far.

    Args:
        n_layers: layers.
        device: where norms are computed.
    """

    def __init__(self, n_layers: int, device: torch.device) -> None:
        self.counts_LH = torch.zeros(n_layers, _BINS, dtype=torch.int64, device=device)

    def update(self, norms_LN: torch.Tensor, counted_LN: torch.Tensor) -> None:
        """Counts the norms where ``counted_LN`` is True; they must be finite there."""
        bins_LN = (norms_LN.log2() * _BINS_PER_OCTAVE).floor() + _OCTAVES * _BINS_PER_OCTAVE
        bins_LN = bins_LN.nan_to_num(0.0).clamp(0, _BINS - 1).long()
        self.counts_LH.scatter_add_(1, bins_LN, counted_LN.long())

    def value_L(self) -> torch.Tensor:
        """The median of each layer; of no meaning before the first token."""
        below_LH = self.counts_LH.cumsum(1)
        bins_L = (2 * below_LH < below_LH[:, -1:]).sum(1)
        return torch.exp2((bins_L.float() + 0.5) / _BINS_PER_OCTAVE - _OCTAVES)


class TokenFilter:
    """Decides which tokens of a batch are kept, and counts the others by reason and layer.

    Args:
        config: the experiment's filter.
        layers: hooked layers.
        device: where the activations are.
    """

    def __init__(self, config: ActivationFilter, layers: Sequence[int], device: torch.device) -> None:
        self._config, self._layers = config, list(layers)
        self.median = RunningMedian(len(self._layers), device)
        self._read = self._kept = self._padding = self._first = 0
        # On the device: reading them is a synchronisation, left to stats().
        self._outliers_L = torch.zeros(len(self._layers), dtype=torch.int64, device=device)
        self._not_finite_L = torch.zeros(len(self._layers), dtype=torch.int64, device=device)

    @property
    def kept(self) -> int:
        """Tokens kept so far."""
        return self._kept

    def keep(self, resids_BTD: Sequence[torch.Tensor], batch: TokenBatch) -> torch.Tensor:
        """Positions to keep, ascending, in the batch flattened to B x T.

        The running median includes this batch, so the very first one is judged by its own. Infinite and undefined
        activations are always dropped.

        Args:
            resids_BTD: the residual stream of each layer.
            batch: the tokens they belong to.
        """
        eligible_BT = batch.attention_mask_BT
        self._read += batch.tokens
        self._padding += eligible_BT.numel() - batch.tokens
        if self._config.drop_first_token:
            self._first += int((eligible_BT & batch.first_token_BT).sum())
            eligible_BT = eligible_BT & ~batch.first_token_BT
        eligible_N = eligible_BT.to(self.median.counts_LH.device, non_blocking=True).flatten()
        norms_LN = torch.stack(
            [torch.linalg.vector_norm(resid, dim=-1, dtype=torch.float32).flatten() for resid in resids_BTD]
        )
        finite_LN = norms_LN.isfinite()
        self.median.update(norms_LN, finite_LN & eligible_N)
        good_LN = finite_LN
        if self._config.max_norm_ratio > 0:
            limit_L = self._config.max_norm_ratio * self.median.value_L()
            good_LN = finite_LN & (norms_LN <= limit_L[:, None])
            self._outliers_L += (eligible_N & finite_LN & ~good_LN).sum(1)
        self._not_finite_L += (eligible_N & ~finite_LN).sum(1)
        kept_N = (eligible_N & good_LN.all(0)).nonzero().squeeze(1)
        self._kept += len(kept_N)
        return kept_N

    def stats(self) -> dict[str, Any]:
        """Counts since the start of the run.

        ``dropped.outlier`` and ``dropped.not_finite`` at one layer count tokens bad at that layer; a token can be bad
        at several, so ``dropped.any_layer`` is what they cost together.
        """
        medians = self.median.value_L().tolist()
        seen = int(self.median.counts_LH.sum()) > 0
        return {
            "tokens_read": self._read,
            "tokens_kept": self._kept,
            "padding": self._padding,
            "dropped": {"first_token": self._first, "any_layer": self._read - self._first - self._kept},
            "layers": {
                layer: {"median_norm": median if seen else None, "outlier": outlier, "not_finite": not_finite}
                for layer, median, outlier, not_finite in zip(
                    self._layers, medians, self._outliers_L.tolist(), self._not_finite_L.tolist(), strict=True
                )
            },
        }

    def state_json(self) -> dict[str, Any]:
        return {"read": self._read, "kept": self._kept, "padding": self._padding, "first_token": self._first}

    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {
            "norm_counts_LH": self.median.counts_LH.cpu(),
            "outliers_L": self._outliers_L.cpu(),
            "not_finite_L": self._not_finite_L.cpu(),
        }

    def load_state(self, state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        self._read, self._kept = int(state["read"]), int(state["kept"])
        self._padding, self._first = int(state["padding"]), int(state["first_token"])
        self.median.counts_LH.copy_(tensors["norm_counts_LH"])
        self._outliers_L.copy_(tensors["outliers_L"])
        self._not_finite_L.copy_(tensors["not_finite_L"])
