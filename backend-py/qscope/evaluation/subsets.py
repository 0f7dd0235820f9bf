"""Small subsets of a benchmark that keep its features: greedy maximum coverage (EffiEval, arXiv 2508.09662)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qscope.features.footprints import Footprints


def greedy_subset(footprints: Footprints, size: int, seed: int) -> np.ndarray:
    """Items in the order they are chosen: each time the one with the most features not yet covered, ties at random.

    Covers at least 1 - 1/e of what the best subset of that size covers. When all is covered the rest is random. Work is
    the number of active pairs, and items x those chosen until all is covered: no more than there are features.
    """
    N = footprints.items
    assert 0 <= size <= N, "a subset has at most all items"
    # One number carries both: the gain, and behind it a random order that decides ties.
    tie_N = np.random.default_rng(seed).permutation(N).astype(np.int64)
    key_N = np.diff(footprints.offset_N) * N + tie_N
    covered_U = np.zeros(len(footprints.features_U), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < size and key_N[best := int(key_N.argmax())] >= N:
        chosen.append(best)
        new = [slot for slot in footprints.slots_of(best).tolist() if not covered_U[slot]]
        for slot in new:
            # Each item holds a feature once, so this subtracts one from each.
            key_N[footprints.items_of(slot)] -= N
        covered_U[new] = True
        key_N[best] = -1
    # Of the others none has anything new, and what is left of their keys is the random order.
    rest = np.argsort(-key_N)[: size - len(chosen)]
    return np.concatenate([np.array(chosen, dtype=np.int64), rest])


def covered_share(footprints: Footprints, items: np.ndarray) -> float:
    """Share of the benchmark's features that a subset activates."""
    return covered_shares(footprints, [items])[0]


def covered_shares(footprints: Footprints, subsets: Iterable[np.ndarray]) -> list[float]:
    """The same of several subsets."""
    return [float((count_U > 0).mean()) for count_U in footprints.counts_among(subsets)]
