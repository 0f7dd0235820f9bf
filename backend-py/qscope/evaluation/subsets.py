"""Small subsets of a benchmark that keep its features: greedy maximum coverage (EffiEval, arXiv 2508.09662)."""

from __future__ import annotations

import numpy as np

from qscope.features.footprints import Footprints


def greedy_subset(footprints: Footprints, size: int, seed: int) -> np.ndarray:
    """Items in the order they are chosen: each time the one with the most features not yet covered, ties at random.

    Covers at least 1 - 1/e of what the best subset of that size covers. When all is covered the rest is random. Work is
    the number of active pairs, and size x items comparisons.
    """
    N = footprints.items
    assert 0 <= size <= N, "a subset has at most all items"
    # One number carries both: the gain, and behind it a random order that decides ties.
    tie_N = np.random.default_rng(seed).permutation(N).astype(np.int64)
    key_N = np.diff(footprints.offset_N) * N + tie_N
    covered_U = np.zeros(len(footprints.features_U), dtype=bool)
    chosen = np.zeros(size, dtype=np.int64)
    for place in range(size):
        best = int(key_N.argmax())
        chosen[place] = best
        new = [slot for slot in footprints.slots_of(best).tolist() if not covered_U[slot]]
        for slot in new:
            # Each item holds a feature once, so this subtracts one from each.
            key_N[footprints.items_of(slot)] -= N
        covered_U[new] = True
        key_N[best] = -1 - N * N
    return chosen


def covered_share(footprints: Footprints, items: np.ndarray) -> float:
    """Share of the benchmark's features that a subset activates."""
    return len(footprints.take(items).features_U) / len(footprints.features_U)
