"""The reward mode of ``--sae-penalty``: features that are too active on generated tokens cost reward.

    R' = R - weight * (1 / n) sum_{t generated} sum_s ReLU( f_s(x_t) - threshold_s )

n are the rollout's own generated tokens, so its length, the padding and the rollouts beside it do not matter. f_s is
the pre-activation: a TopK SAE's activations are mostly 0 and say nothing below the k-th. Not in Qwen-Scope, which warns
against it; see :data:`WARNING`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.models import LoadedModel, capture_residuals
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.sae_loss import FeatureReduction

AT = "rl.sae_penalty.reward"

WARNING = (
    "sae_penalty mode reward also punishes harmless repetition: repetition features fire when an answer echoes the "
    "user or lists choices. Compare with mode rare_negative."
)
"""Said once by every run of this mode (Qwen-Scope, arXiv 2605.11887, section 8.1)."""


@dataclass(frozen=True)
class WatchedFeatures:
    """M features of one layer and where each begins to cost.

    Attributes:
        rows: their encoder rows.
        threshold_M: pre-activations, for one their means on ordinary answers.
    """

    rows: FeatureRows
    threshold_M: Tensor

    def to(self, device: torch.device | str) -> WatchedFeatures:
        """The same elsewhere."""
        return replace(self, rows=self.rows.to(device), threshold_M=self.threshold_M.to(device))


class SaePenalty:
    """What is subtracted from rewards.

    Args:
        watched: one for each layer; layers are added.
        weight: reward a unit of mean excess costs.
        feature_reduction: over the features of a layer.

    Raises:
        UserError: a weight that is no positive number (SAE_PENALTY_WEIGHT).
    """

    def __init__(
        self,
        watched: Sequence[WatchedFeatures],
        *,
        weight: float,
        feature_reduction: FeatureReduction = FeatureReduction.MEAN,
    ) -> None:
        assert watched, "there is no layer"
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(
                f"The weight of the SAE penalty is {weight:g}: it would do nothing, or reward what it is to punish.",
                remedy="Give a weight above zero, or leave the penalty out.",
                reason="SAE_PENALTY_WEIGHT",
                field=f"{AT}.weight",
            )
        self._watched = {part.rows.layer: part for part in watched}
        assert len(self._watched) == len(watched), "a layer stands there twice"
        self._weight, self._reduction = weight, feature_reduction

    @property
    def weight(self) -> float:
        """Reward a unit of mean excess costs."""
        return self._weight

    @property
    def layers(self) -> list[int]:
        """Decoder blocks whose outputs are read, ascending."""
        return sorted(self._watched)

    def record(self) -> list[dict[str, object]]:
        """What costs, for the training record: by layer."""
        return [
            {
                "layer": layer,
                "features": list(self._watched[layer].rows.features),
                "thresholds": self._watched[layer].threshold_M.tolist(),
            }
            for layer in self.layers
        ]

    def excess(self, resids: Mapping[int, Tensor], generated_BT: Tensor) -> Tensor:
        """excess_B: the mean over each rollout's generated tokens, float64; 0 for one without any.

        Args:
            resids: resid_BTD by layer, of the plain model reading prompts and rollouts.
            generated_BT: the rollouts' own tokens; neither prompt nor padding.
        """
        excess_BT = torch.zeros(generated_BT.shape, dtype=torch.float64, device=generated_BT.device)
        for layer in self.layers:
            part = self._watched[layer].to(resids[layer].device)
            u_BTM = part.rows.pre_activations(resids[layer])
            over_BTM = torch.relu(u_BTM - part.threshold_M.to(u_BTM.dtype)).double()
            reduced_BT = over_BTM.mean(-1) if self._reduction is FeatureReduction.MEAN else over_BTM.sum(-1)
            excess_BT += reduced_BT.to(excess_BT.device)
        counted_BT = torch.where(generated_BT, excess_BT, 0.0)
        return counted_BT.sum(1) / generated_BT.sum(1).clamp_min(1)

    def penalised(self, reward_B: Tensor, excess_B: Tensor) -> Tensor:
        """Rewards less the penalty; a rollout that no grader could grade (NaN) stays ungraded."""
        return reward_B - self._weight * excess_B.to(reward_B)


@torch.no_grad()
def penalty_excess(
    loaded: LoadedModel, penalty: SaePenalty, ids_BT: Tensor, attention_mask_BT: Tensor, generated_BT: Tensor
) -> Tensor:
    """excess_B of rollouts, by one forward pass that ends at the highest layer watched.

    Args:
        loaded: the plain model: with a steering edit in place it would be measured too.
        penalty: what is watched.
        ids_BT: prompts and rollouts.
        attention_mask_BT: nonzero where there is a token.
        generated_BT: tokens of the rollouts.
    """
    return penalty.excess(capture_residuals(loaded, penalty.layers, ids_BT, attention_mask_BT), generated_BT)
