"""Weights for the gap between what generates and what is trained: pi_old / mu, of tokens or of sequences.

One process does both here, so the gap is rounding: another batch, a cache, another number format. Steered rollouts were
sampled from another distribution on purpose; weighed by the gap, none would ever teach. They are exempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

_LOG_BOUND = 20.0


class ImportanceMode(StrEnum):
    """What is weighed."""

    NONE = "none"
    TOKEN_TRUNCATE = "token_truncate"
    SEQUENCE_MASK = "sequence_mask"


@dataclass(frozen=True)
class Importance:
    """How the gap is corrected.

    Attributes:
        mode: see :func:`importance_weights`.
        cap: largest weight.
    """

    mode: ImportanceMode = ImportanceMode.NONE
    cap: float = 3.0


@torch.no_grad()
def importance_weights(
    old_BT: Tensor, sampler_BT: Tensor, mask_BT: Tensor, steered_B: Tensor, importance: Importance
) -> Tensor:
    """weight_BT, 1 for steered rollouts.

    ``token_truncate``: min(pi_old / mu, cap) of each token. ``sequence_mask``: the product over a rollout's tokens for
    all of them, and 0 for a rollout whose product is above the cap.

    Args:
        old_BT: log-probabilities under pi_old, as the trainer computes them.
        sampler_BT: as the sampler did.
        mask_BT: tokens that count.
        steered_B: rare negatives.
        importance: mode and cap.
    """
    gap_BT = torch.where(mask_BT, old_BT - sampler_BT, 0.0)
    if importance.mode is ImportanceMode.SEQUENCE_MASK:
        weight_B1 = gap_BT.sum(1, keepdim=True).clamp(-_LOG_BOUND, _LOG_BOUND).exp()
        weight_BT = torch.where(weight_B1 > importance.cap, 0.0, weight_B1).expand_as(gap_BT)
    elif importance.mode is ImportanceMode.TOKEN_TRUNCATE:
        weight_BT = gap_BT.clamp(-_LOG_BOUND, _LOG_BOUND).exp().clamp_max(importance.cap)
    else:
        weight_BT = torch.ones_like(gap_BT)
    return torch.where(steered_B[:, None], 1.0, weight_BT)
