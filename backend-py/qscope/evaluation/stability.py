"""How far the order of benchmarks by R-hat holds at other layers, under other rules, and in halves of their items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qscope.evaluation.overlap import overlap_min, shared_features
from qscope.evaluation.panel import spearman
from qscope.evaluation.redundancy import r_hat, r_hat_of
from qscope.evaluation.suite import MIN_ITEMS
from qscope.features.footprints import Footprints


@dataclass(frozen=True)
class Agreement:
    """How far another layer or rule tells the same story, by Spearman's correlation.

    Attributes:
        layer, rule: which.
        r_hat: of R-hat with the main one, over benchmarks.
        r_hat_matched: the same at equal numbers of items.
        overlap: of overlap_min with the main one, over pairs.
    """

    layer: int
    rule: str
    r_hat: float
    r_hat_matched: float
    overlap: float


@dataclass(frozen=True)
class Stability:
    """How far the order of benchmarks by R-hat is one of their items, and not of their number.

    R-hat of N items lies between (N + 1) / (2 |F|) and (N + 1) / |F|, so benchmarks of different sizes keep their order
    whatever is measured. At matched size every benchmark stands for itself with equally many random items.

    Attributes:
        matched_items: items at matched size: those of the smallest benchmark with MIN_ITEMS or more; 0 without one.
        draws: random subsets, and random halves.
        items: Spearman's correlation of R-hat with the number of items, over benchmarks: what size alone gives.
        halves, halves_sd: of R-hat on a random half of every benchmark with R-hat on the other half: mean and standard
            deviation over draws.
        halves_matched, halves_matched_sd: the same with halves of ``matched_items`` // 2 items; NaN without any.
        others: every other layer and rule against the main one.
    """

    matched_items: int
    draws: int
    items: float
    halves: float
    halves_sd: float
    halves_matched: float
    halves_matched_sd: float
    others: tuple[Agreement, ...]


def stability(
    suites: Mapping[tuple[int, str], Mapping[str, Footprints]], main: tuple[int, str], *, draws: int, seed: int
) -> Stability:
    """Stability of R-hat over layers, rules and halves; correlations are NaN with fewer than three benchmarks.

    Args:
        suites: footprints by layer and rule, then by benchmark.
        main: the layer and rule to compare with.
        draws: random subsets and halves.
        seed: of both.
    """
    values = {key: np.array([r_hat(part) for part in suite.values()]) for key, suite in suites.items()}
    matched = {key: r_hat_matched(suite, draws=draws, seed=seed) for key, suite in suites.items()}
    pairs = np.triu_indices(len(suites[main]), 1)
    shares = {key: overlap_min(shared_features(list(suite.values())))[pairs] for key, suite in suites.items()}
    size = matched_size(suites[main])
    items_B = np.array([part.items for part in suites[main].values()])
    return Stability(
        size,
        draws,
        rank_agreement(values[main], items_B.astype(np.float64)),
        *_halves_agreement(suites[main], None, draws, seed),
        *(_halves_agreement(suites[main], size // 2, draws, seed) if size else (math.nan, math.nan)),
        tuple(
            Agreement(
                *key,
                rank_agreement(values[key], values[main]),
                rank_agreement(matched[key], matched[main]),
                rank_agreement(shares[key], shares[main]),
            )
            for key in suites
            if key != main
        ),
    )


def matched_size(suite: Mapping[str, Footprints]) -> int:
    """Items of the smallest benchmark that has MIN_ITEMS or more; 0 without one."""
    return min((part.items for part in suite.values() if part.items >= MIN_ITEMS), default=0)


def matched_items(suite: Mapping[str, Footprints], *, draws: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Random subsets of :func:`matched_size` items of every benchmark; none of those that have fewer.

    A function of the numbers of items and the seed alone: every layer and rule gets the same items.
    """
    size, random = matched_size(suite), np.random.default_rng(seed)
    return {
        name: [random.permutation(part.items)[:size] for _ in range(draws)] if part.items >= MIN_ITEMS else []
        for name, part in suite.items()
    }


def r_hat_matched(suite: Mapping[str, Footprints], *, draws: int, seed: int) -> np.ndarray:
    """R-hat of every benchmark at matched size, mean over random subsets; NaN for those with fewer items."""
    chosen = matched_items(suite, draws=draws, seed=seed)
    size = matched_size(suite)
    return np.array(
        [
            mean_known([r_hat_of(count_U, size) for count_U in part.counts_among(chosen[name])])
            for name, part in suite.items()
        ]
    )


def mean_known(values: Sequence[float]) -> float:
    """Mean of the values that are known; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def rank_agreement(one_N: np.ndarray, other_N: np.ndarray) -> float:
    """Spearman's correlation where both are known; NaN with fewer than three such."""
    known = np.isfinite(one_N) & np.isfinite(other_N)
    return spearman(one_N[known], other_N[known]) if known.sum() >= 3 else math.nan


def _halves_agreement(suite: Mapping[str, Footprints], size: int | None, draws: int, seed: int) -> tuple[float, float]:
    """Of halves, or of ``size`` items on either side."""
    random = np.random.default_rng(seed)
    orders = [[random.permutation(part.items) for part in suite.values()] for _ in range(draws)]
    sides = np.full((draws, 2, len(suite)), math.nan)
    for place, part in enumerate(suite.values()):
        half = size or part.items // 2
        if part.items < 2 * half:
            continue
        halves = (order[place][begin : begin + half] for order in orders for begin in (0, half))
        sides[:, :, place] = np.array([r_hat_of(count_U, half) for count_U in part.counts_among(halves)]).reshape(-1, 2)
    found = [rank_agreement(*both) for both in sides]
    known = [value for value in found if not math.isnan(value)]
    if len(known) < 2:
        return mean_known(known), math.nan
    return float(np.mean(known)), float(np.std(known, ddof=1))
