"""How much of a target set texts cover (Qwen-Scope, eq. 23), text by text, and what other texts would have covered.

    Cov(D) = share of the targets that fire in any text of D

The expected coverage of n texts drawn from a pool has the closed form of :mod:`qscope.features.coverage`: a target
that fires in m of N texts is missed by C(N - m, n) / C(N, n) of the draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qscope.features.coverage import coverage_curve, drawn_curves
from qscope.features.footprints import Footprints


@dataclass(frozen=True)
class TargetSet:
    """The targets, and which of them the seed data set covers.

    Attributes:
        key_T: the targets, see :func:`qscope.synthesis.fired.key_of_feature`; ascending, distinct.
        covered_T: whether the seed data set covers each.
    """

    key_T: np.ndarray
    covered_T: np.ndarray

    @classmethod
    def of(cls, keys: Sequence[int], covered: Sequence[bool]) -> TargetSet:
        """From lists in any order; the keys are distinct."""
        key_T = np.asarray(keys, dtype=np.int64)
        order_T = np.argsort(key_T)
        assert (np.diff(key_T[order_T]) > 0).all(), "a target stands there once"
        return cls(key_T[order_T], np.asarray(covered, dtype=bool)[order_T])

    @property
    def seed_coverage(self) -> float:
        """Coverage of the seed data set alone; NaN without targets."""
        return float(self.covered_T.mean()) if len(self.key_T) else math.nan

    def missing_in(self, key_P: np.ndarray) -> np.ndarray:
        """Those of a text's features that are targets the seed data set misses."""
        missing_M = self.key_T[~self.covered_T]
        return key_P[np.isin(key_P, missing_M, assume_unique=True)]


def coverage_in_order(targets: TargetSet, texts: Sequence[np.ndarray]) -> np.ndarray:
    """Coverage of the seed data set with the first n texts, n = 0 ... N.

    Args:
        targets: the targets.
        texts: features that fire in each text.
    """
    seen: set[int] = set()
    count = [0]
    for key_P in texts:
        seen.update(targets.missing_in(np.asarray(key_P, dtype=np.int64)).tolist())
        count.append(len(seen))
    return (targets.covered_T.sum() + np.asarray(count)) / max(1, len(targets.key_T))


@dataclass(frozen=True)
class DrawnCoverage:
    """Coverage of the seed data set with n texts drawn from a pool.

    Attributes:
        size_S: n.
        mean_S: expected coverage, exact.
        sd_S: its standard deviation over draws, from random orders; 0 where all of the pool is drawn.
    """

    size_S: np.ndarray
    mean_S: np.ndarray
    sd_S: np.ndarray


def coverage_of_draws(
    targets: TargetSet, texts: Sequence[np.ndarray], sizes: Sequence[int], *, draws: int, seed: int
) -> DrawnCoverage:
    """Coverage of the seed data set with n texts drawn from a pool without replacement.

    Args:
        targets: the targets.
        texts: features that fire in each text of the pool.
        sizes: n; those above the size of the pool are left out.
        draws: random orders behind the standard deviation, two at least.
        seed: of the orders.
    """
    size_S = np.asarray([size for size in sizes if size <= len(texts)], dtype=np.int64)
    base, total = float(targets.covered_T.sum()), max(1, len(targets.key_T))
    footprints = _footprints(targets, texts)
    union = len(footprints.features_U)
    mean_S, sd_S = np.full(len(size_S), base / total), np.zeros(len(size_S))
    drawn = size_S > 0
    if union and drawn.any():
        mean_S[drawn] += coverage_curve(footprints, size_S[drawn]) * union / total
        curves = np.array([curve_N[size_S[drawn] - 1] for curve_N in drawn_curves(footprints, draws, seed)])
        sd_S[drawn] = curves.std(axis=0, ddof=1) * union / total
    return DrawnCoverage(size_S, mean_S, sd_S)


def texts_needed(targets: TargetSet, texts: Sequence[np.ndarray], coverage: float) -> int | None:
    """The fewest texts of a pool whose expected coverage reaches a value; None where all of them do not."""
    if coverage <= targets.seed_coverage:
        return 0
    footprints = _footprints(targets, texts)
    if not len(footprints.features_U):
        return None
    curve_N = (targets.covered_T.sum() + coverage_curve(footprints) * len(footprints.features_U)) / len(targets.key_T)
    # Rounding must not let the whole pool miss what it reaches exactly.
    enough = np.flatnonzero(curve_N >= coverage - 1e-12)
    return int(enough[0]) + 1 if len(enough) else None


def _footprints(targets: TargetSet, texts: Sequence[np.ndarray]) -> Footprints:
    """What each text adds, its features numbered by place: keys are sparse, and footprints count by number."""
    found = (targets.missing_in(np.asarray(key_P, dtype=np.int64)) for key_P in texts)
    return Footprints.of([np.searchsorted(targets.key_T, key_P) for key_P in found])
