"""How much benchmarks share, by the features their items activate (Qwen-Scope, section 4.2), and how much of that is
chance: in a small SAE two benchmarks that light most of it overlap whatever they ask."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from qscope.features.footprints import Footprints

_NEWTON_STEPS = 100
_LEAST_ROOM = 0.05
_FEATURES_AT_ONCE = 1 << 12


def shared_features(benchmarks: Sequence[Footprints]) -> np.ndarray:
    """|F_i n F_j| for every pair, int64; the diagonal holds |F_i|."""
    features_U, slots = _union(benchmarks)
    shared = np.zeros((len(benchmarks), len(benchmarks)), dtype=np.int64)
    for start in range(0, len(features_U), _FEATURES_AT_ONCE):
        # Products of zeros and ones, in float32 for its speed: sums of so few of them are exact.
        has_BU = np.zeros((len(benchmarks), min(_FEATURES_AT_ONCE, len(features_U) - start)), dtype=np.float32)
        for has_U, slot in zip(has_BU, slots, strict=True):
            begin, end = np.searchsorted(slot, (start, start + has_BU.shape[1]))
            has_U[slot[begin:end] - start] = 1
        shared += (has_BU @ has_BU.T).astype(np.int64)
    return shared


def _union(benchmarks: Sequence[Footprints]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The features of all benchmarks, ascending, and for each benchmark the places of its own among them."""
    features_U = np.unique(np.concatenate([part.features_U for part in benchmarks]))
    return features_U, [np.searchsorted(features_U, part.features_U) for part in benchmarks]


def overlap(shared: np.ndarray) -> np.ndarray:
    """overlap[i, j] = |F_i n F_j| / |F_i|: how much of benchmark i is covered by j; NaN where F_i is empty."""
    size = np.diag(shared).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / size[:, None]


def overlap_min(shared: np.ndarray) -> np.ndarray:
    """|F_i n F_j| / min(|F_i|, |F_j|); symmetric, NaN where either is empty."""
    size = np.diag(shared).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / np.minimum(size[:, None], size[None, :])


class ChanceOverlap:
    """Overlap expected of benchmarks that have nothing to do with each other.

    To be covered by chance, benchmark i meets not j but as many features as j has, as they come in the rest of the
    suite: items drawn at random from all other benchmarks (each benchmark as likely as the next), until they activate
    |F_j| features on average. With p_f the share of items that activate feature f, mean over the benchmarks other than
    i and j, and t the number of items,

        |F_j|        = sum over all f of 1 - (1 - p_f)^t
        chance[i, j] = mean over F_i of 1 - (1 - p_f)^t

    Args:
        benchmarks: the footprints of the suite.
    """

    def __init__(self, benchmarks: Sequence[Footprints]) -> None:
        features_U, self._slots = _union(benchmarks)
        # By the features that are there: benchmarks x all features would be mostly zeros in a large SAE.
        self._rates = [part.count_U / part.items for part in benchmarks]
        self._total_U = self._sum_of(range(len(benchmarks)), len(features_U))
        #: The last number of items found for each j, where the next search begins.
        self._items_B = np.zeros(len(benchmarks))

    def of(self, i: int, j: int, rest: Sequence[int] | None = None) -> float:
        """chance[i, j]; NaN where there is no third benchmark, or nothing in i or j.

        Args:
            i, j: places of the two benchmarks.
            rest: places of those that stand for the rest of the suite, neither i nor j; None takes all.
        """
        others = len(self._slots) - 2 if rest is None else len(rest)
        mine, size = self._slots[i], len(self._slots[j])
        if others < 1 or not size or not len(mine):
            return math.nan
        if rest is None:
            rest_U = self._total_U / others
            for one in (i, j):
                rest_U[self._slots[one]] -= self._rates[one] / others
        else:
            rest_U = self._sum_of(rest, len(self._total_U)) / others
        # What remains of a sum taken away again.
        there_U = rest_U > 1e-12
        if there_U.sum() <= size:
            return float(there_U[mine].mean())
        log_U = np.log1p(-np.where(there_U, np.minimum(rest_U, 1 - 1e-12), 0.0))
        # The expected number of features is concave in t, so Newton's steps come from below and never pass the root.
        t = self._items_B[j]
        for _ in range(_NEWTON_STEPS):
            absent_U = np.exp(t * log_U)
            short = size - (1 - absent_U).sum()
            if abs(short) < 1e-6 * size:
                break
            slope = -(log_U * absent_U).sum()
            # Without a slope it stands far behind the root, where the search for another i has ended: from the start.
            t = max(0.0, t + short / slope) if slope > 0 else 0.0
        self._items_B[j] = t
        return float((1 - np.exp(t * log_U[mine])).mean())

    def _sum_of(self, benchmarks: Iterable[int], features: int) -> np.ndarray:
        total_U = np.zeros(features)
        for one in benchmarks:
            total_U[self._slots[one]] += self._rates[one]
        return total_U

    def matrix(self) -> np.ndarray:
        """chance[i, j] of every pair; NaN on the diagonal."""
        count = len(self._slots)
        # By columns: the search for t begins where that of the same j ended.
        columns = [[self.of(i, j) if i != j else math.nan for i in range(count)] for j in range(count)]
        return np.array(columns).T


def excess(overlap: np.ndarray | float, chance: np.ndarray | float) -> np.ndarray | float:
    """(overlap - chance) / (1 - chance): 1 is all that could be shared beyond chance, 0 what chance gives.

    Where chance gives nearly everything, nothing can be told: 1 - chance counts as _LEAST_ROOM at least.
    """
    return (overlap - chance) / np.maximum(1 - chance, _LEAST_ROOM)
