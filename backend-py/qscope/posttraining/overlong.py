"""What becomes of rollouts that are too long: a soft penalty, no loss, or for rare negatives a limit of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from qscope.errors import UserError

DEFAULT_STEERED_TOKENS = 512
"""A few hundred tokens of a loop say all there is to say; under a token mean a longer one outweighs its group."""


def soft_overlong_penalty(length_B: Tensor, *, longest: int, cache: int) -> Tensor:
    """DAPO's soft punishment (arXiv 2503.14476, eq. 13), to be added to rewards; float64.

    0 up to ``longest - cache`` tokens, then down to -1 at ``longest`` in a straight line, and -1 beyond.

    Raises:
        UserError: the cache is no part of the length (OVERLONG_CACHE).
    """
    if not 0 <= cache <= longest:
        raise UserError(
            f"The overlong cache of {cache} tokens is no part of a length of {longest}.",
            remedy=f"Set it to a number from 0 to {longest}; DAPO has a fifth of the length.",
            reason="OVERLONG_CACHE",
            field="rl.overlong.cache",
        )
    over_B = length_B.double() - (longest - cache)
    # Without a cache there is a step and no line.
    return torch.where(over_B <= 0, 0.0, (-over_B / max(cache, 1)).clamp_min(-1.0) if cache else -1.0)


def overlong_filter(truncated_B: Tensor, steered_B: Tensor) -> Tensor:
    """keep_B of the overlong filter: truncated rollouts get no loss, save rare negatives.

    An endless rollout is always truncated: without the exemption none would ever teach.
    """
    return ~truncated_B | steered_B


def steered_limit(max_completion: int, requested: int | None = None) -> int:
    """Tokens of a rare negative at most: as asked for, else 512; never more than of a normal rollout."""
    return min(max_completion, requested or DEFAULT_STEERED_TOKENS)


def steered_share(length_B: Tensor, advantage_B: Tensor, steered_B: Tensor) -> tuple[float, float]:
    """The rare negatives' share of tokens, and of |advantage| x tokens, which is that of the gradient; NaN of nothing.

    Args:
        length_B: tokens of each rollout that count.
        advantage_B: advantages.
        steered_B: rare negatives.
    """
    tokens_B = length_B.double()
    pull_B = tokens_B * advantage_B.double().abs()
    return tuple(float(part_B[steered_B].sum() / part_B.sum()) for part_B in (tokens_B, pull_B))
