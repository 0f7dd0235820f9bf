"""Draws of tokens: the largest of score plus Gumbel noise, row by row from a generator of its own.

argmax(scores + Gumbel noise) is a draw from softmax(scores) (Gumbel-max). The noise is -log(E) of an exponential E, one
number for each token of the vocabulary; beside a small model its logarithms cost as much as the model. Most of them can
be spared: a token whose score is far below the best sum wins only with an E near 0, and E = -log(1 - u) >= u.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

#: Numbers of noise at once: they stay in the cache, and a vocabulary of 248,320 needs no memory for all rows.
_AT_ONCE = 1 << 19
#: Room for rounding in what is compared, and the gap below which only the plain way knows the larger of two.
_SLACK, _TOO_CLOSE = 1e-3, 1e-4


def plain_draws(scores_BV: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """The token of each row, int64 [B].

    Args:
        scores_BV: float32; minus infinity for a token that cannot be drawn.
        generators: one for each row, on the device of the scores; each gives as many numbers as there are tokens.
    """
    noise_BV = torch.empty_like(scores_BV)
    for row, generator in enumerate(generators):
        noise_BV[row].exponential_(generator=generator)
    return (scores_BV + _gumbel(noise_BV)).argmax(-1)


def draws(scores_BV: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """As :func:`plain_draws`, from the same numbers; on a CPU without the logarithms of tokens that cannot win."""
    if scores_BV.device.type != "cpu":
        return plain_draws(scores_BV, generators)
    rows = max(1, _AT_ONCE // scores_BV.shape[1])
    starts = range(0, len(generators), rows)
    return torch.cat([_draws_cpu(scores_BV[at : at + rows], generators[at : at + rows]) for at in starts])


def _draws_cpu(scores_BV: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    # What `exponential_` makes its numbers of on a CPU, in the same order: -log1p(-u) in float64, then rounded.
    uniform_BV = torch.empty(scores_BV.shape, dtype=torch.float64)
    for row, generator in enumerate(generators):
        uniform_BV[row].uniform_(generator=generator)
    # What the most likely token and the luckiest one reach, others must reach as well: E <= exp(score - reached), so u.
    likely_B2 = torch.stack([scores_BV.argmax(-1), uniform_BV.argmin(-1)], 1)
    sums_B2 = scores_BV.gather(1, likely_B2) - (-torch.log1p(-uniform_BV.gather(1, likely_B2))).log().float()
    possible_BV = uniform_BV <= (scores_BV - (sums_B2.amax(-1, keepdim=True) - _SLACK)).exp_()
    row_C, token_C = possible_BV.nonzero(as_tuple=True)
    sums_C = scores_BV[row_C, token_C].double() - (-torch.log1p(-uniform_BV[row_C, token_C])).log()
    order_C = torch.from_numpy(np.lexsort((sums_C.numpy(), row_C.numpy())))
    row_C, token_C, sums_C = row_C[order_C], token_C[order_C], sums_C[order_C]
    # The last of each row is its winner. A row of undefined numbers has none; whoever looks at its token sees them.
    last_R = torch.nonzero(torch.diff(row_C, append=row_C.new_tensor([-1])))[:, 0]
    tokens_B = likely_B2[:, 0].clone()
    tokens_B[row_C[last_R]] = token_C[last_R]
    # Of two nearly equal sums, the plain way decides.
    second_R = (last_R - 1).clamp_min(0)
    rivals_R = (second_R < last_R) & (row_C[second_R] == row_C[last_R])
    close_R = rivals_R & ~(sums_C[last_R] - sums_C[second_R] > _TOO_CLOSE)
    for row in row_C[last_R[close_R]].tolist():
        noise_V = (-torch.log1p(-uniform_BV[row])).float()
        tokens_B[row] = (scores_BV[row] + _gumbel(noise_V)).argmax()
    return tokens_B


def _gumbel(exponential: torch.Tensor) -> torch.Tensor:
    """In place. Exactly zero would be an infinite score."""
    return -exponential.clamp_min_(torch.finfo(torch.float32).tiny).log_()
