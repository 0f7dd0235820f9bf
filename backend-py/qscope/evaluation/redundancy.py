"""How much a benchmark repeats itself, by its footprints alone (Qwen-Scope, section 4.1), exact.

With m_j items activating feature j of the union F, and N items:

    c_n   = E |F(S)| / |F| over subsets S of n items          (eq. 7)
          = 1 - mean_j C(N - m_j, n) / C(N, n)
    AUC   = mean of c_1 ... c_N                               (eq. 8)
    R-hat = AUC N / |F| = (N + 1) / |F|^2  sum_j m_j / (m_j + 1)   (eq. 9)

The right-hand sides are exact; the paper draws subsets. R-hat lies in [(N + 1) / (2 |F|), (N + 1) / |F|) and grows with
N, so that ranks are compared, not values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from qscope.evaluation.footprints import Footprints

_AT_ONCE = 1 << 22


def r_hat(footprints: Footprints) -> float:
    """R-hat; NaN for a benchmark that activates nothing."""
    features = len(footprints.features_U)
    if features == 0:
        return math.nan
    count_U = footprints.count_U.astype(np.float64)
    return (footprints.items + 1) / features**2 * float((count_U / (count_U + 1)).sum())


def coverage_auc(footprints: Footprints) -> float:
    """AUC of the coverage curve; NaN for a benchmark that activates nothing."""
    features = len(footprints.features_U)
    return r_hat(footprints) * features / footprints.items if features else math.nan


def coverage_curve(footprints: Footprints, sizes: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """c_n at the given sizes of a subset, 1 to N; at all of them for None.

    Features of equal m_j have equal terms, so the work is sizes x distinct counts.
    """
    N = footprints.items
    size_S = np.arange(1, N + 1) if sizes is None else np.asarray(sizes, dtype=np.int64)
    assert ((size_S >= 1) & (size_S <= N)).all(), "a subset has 1 to N items"
    if not len(footprints.features_U):
        return np.full(len(size_S), math.nan)
    count_D, weight_D = np.unique(footprints.count_U, return_counts=True)
    share_D = weight_D / weight_D.sum()
    # log k!, each by itself: a running sum of logarithms loses ten digits over a hundred thousand terms.
    log_factorial = np.array([math.lgamma(k + 1) for k in range(N + 1)])
    missing_S = np.zeros(len(size_S))
    step = max(1, _AT_ONCE // len(count_D))
    for start in range(0, len(size_S), step):
        size_s1 = size_S[start : start + step, None]
        left_sD = N - count_D[None, :] - size_s1
        log_sD = (
            log_factorial[N - count_D][None, :]
            - log_factorial[np.maximum(left_sD, 0)]
            - log_factorial[N]
            + log_factorial[N - size_s1]
        )
        missing_S[start : start + step] = np.where(left_sD >= 0, np.exp(log_sD), 0.0) @ share_D
    return 1.0 - missing_S


def drawn_curves(footprints: Footprints, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Coverage at n = 1 ... N along random orders of the items."""
    random = np.random.default_rng(seed)
    N, features = footprints.items, len(footprints.features_U)
    for _ in range(draws):
        yield np.cumsum(np.bincount(footprints.first_ranks(random.permutation(N)), minlength=N)) / features


def drawn_auc(footprints: Footprints, draws: int, seed: int) -> tuple[float, float]:
    """AUC by random orders of the items: mean and standard error."""
    assert draws >= 2, "an error takes two draws"
    found = np.array([curve_N.mean() for curve_N in drawn_curves(footprints, draws, seed)])
    return float(found.mean()), float(found.std(ddof=1) / math.sqrt(draws))
