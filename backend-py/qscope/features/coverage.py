"""How many of a set's features n of its texts show (Qwen-Scope, eq. 7): exact, and along random orders.

With m_j texts activating feature j of the union F, and N texts:

    c_n = E |F(S)| / |F| over subsets S of n texts = 1 - mean_j C(N - m_j, n) / C(N, n)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from qscope.features.footprints import Footprints

_AT_ONCE = 1 << 22


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
