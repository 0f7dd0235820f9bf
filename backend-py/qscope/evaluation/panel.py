"""What a panel of models says about benchmarks: R, agreement, and agreement with the rising tide removed.

A panel is a matrix of scores by model and item. Kendall's tau is tau-b; on a subset where every model has the same
score it is 0, as such a subset ranks nobody. Where every model has the same accuracy on all items there is no ranking
to keep, and R is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

#: Units below which a bootstrap says nothing of the spread.
MIN_UNITS = 6
#: Share of draws without a value above which the interval would be of something else.
MAX_UNDEFINED = 0.05


def tau_b(first_M: np.ndarray, second_BM: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of one scoring of M models with each of B others.

    Args:
        first_M: scores.
        second_BM: scores, one scoring a row.
    """
    upper = np.triu_indices(first_M.shape[-1], 1)
    sign_P = np.sign(first_M[upper[0]] - first_M[upper[1]])
    sign_BP = np.sign(second_BM[:, upper[0]] - second_BM[:, upper[1]])
    size_B = np.sqrt(np.abs(sign_P).sum() * np.abs(sign_BP).sum(1))
    return np.divide(sign_BP @ sign_P, size_B, out=np.zeros(len(second_BM)), where=size_B > 0)


def subset_sizes(items: int, count: int = 40) -> np.ndarray:
    """Sizes from 1 to N, dense where they are small and ever farther apart; all of them where there are few."""
    if items <= count:
        return np.arange(1, items + 1)
    return np.unique(np.round(np.geomspace(1, items, count)).astype(np.int64))


def ranking_kept(scores_MN: np.ndarray, sizes: Sequence[int] | np.ndarray, draws: int, seed: int) -> np.ndarray:
    """tau_n = tau(p, p(S)) for random subsets of each size, ``[draws, sizes]`` (Qwen-Scope, eq. 4 and 5).

    The subsets of one draw are the beginnings of one random order of the items. Differences of accuracies below 1e-9
    are ties: sums in another order differ in their last bits.
    """
    random = np.random.default_rng(seed)
    size_S = np.asarray(sizes, dtype=np.int64)
    whole_M = np.round(scores_MN.mean(1), 9)
    found = np.zeros((draws, len(size_S)))
    for draw in range(draws):
        order_N = random.permutation(scores_MN.shape[1])
        partial_MS = np.cumsum(scores_MN[:, order_N], axis=1)[:, size_S - 1] / size_S
        found[draw] = tau_b(whole_M, np.round(partial_MS.T, 9))
    return found


def ranks_models(scores_MN: np.ndarray) -> bool:
    """Whether two models differ in their accuracy."""
    return len(np.unique(np.round(scores_MN.mean(1), 9))) > 1


def redundancy(scores_MN: np.ndarray, *, draws: int = 100, seed: int = 0) -> tuple[float, float]:
    """R = mean of tau_1 ... tau_N and its standard error over draws (Qwen-Scope, eq. 6).

    tau_n is measured at :func:`subset_sizes` and taken to be linear in between. Both are NaN where every model has the
    same accuracy on all items.
    """
    if not ranks_models(scores_MN):
        return math.nan, math.nan
    items = scores_MN.shape[1]
    size_S = subset_sizes(items)
    every_N = np.arange(1, items + 1)
    kept = ranking_kept(scores_MN, size_S, draws, seed)
    means = np.array([np.interp(every_N, size_S, row).mean() for row in kept])
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(draws)) if draws > 1 else math.nan


def ranks(values_N: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share their mean. NaN has no rank: leave it out first."""
    assert not np.isnan(values_N).any(), "NaN has no rank"
    _, slot_N, count_U = np.unique(values_N, return_inverse=True, return_counts=True)
    last_U = np.cumsum(count_U)
    return (last_U - (count_U - 1) / 2)[slot_N]


def pearson(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Pearson's correlation; NaN where either does not vary."""
    one, other = first_N - np.mean(first_N), second_N - np.mean(second_N)
    size = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
    return float((one * other).sum() / size) if size > 0 else math.nan


def spearman(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Spearman's rank correlation, ties by mean ranks."""
    return pearson(ranks(np.asarray(first_N)), ranks(np.asarray(second_N)))


def partial(direct: float, with_first: float, with_second: float) -> float:
    """Correlation of two benchmarks with a third, the rising tide, held fixed; NaN where the third explains one whole.

    Args:
        direct: correlation of the two.
        with_first, with_second: of each with the third.
    """
    size = math.sqrt(max(0.0, 1 - with_first**2)) * math.sqrt(max(0.0, 1 - with_second**2))
    return (direct - with_first * with_second) / size if size > 1e-12 else math.nan


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], units: int, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic, over units drawn with replacement.

    A unit is what was sampled independently: a benchmark, never a pair of benchmarks.

    Args:
        statistic: of the units drawn, given as an array of their places.
        units: how many there are.
        draws: how often they are drawn.
        seed: of the draws.

    Returns:
        The interval; NaN with fewer than MIN_UNITS units, and where more than MAX_UNDEFINED of the draws have no value.
    """
    if units < MIN_UNITS:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    drawn = np.array([statistic(random.integers(0, units, units)) for _ in range(draws)])
    known = drawn[np.isfinite(drawn)]
    if len(known) < (1 - MAX_UNDEFINED) * draws:
        return math.nan, math.nan
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def pairs_among(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both places of every pair of distinct units among those drawn; a pair drawn twice counts twice."""
    one, other = np.triu_indices(len(units), 1)
    distinct = units[one] != units[other]
    return units[one][distinct], units[other][distinct]
