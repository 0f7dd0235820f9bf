"""A suite of benchmarks measured together: repetition within each, and overlap between them.

Nothing here needs a model's answers. Numbers of one suite compare with each other; R-hat grows with the number of
items, so that its ranks are compared and not its values.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qscope.evaluation.overlap import ChanceOverlap, excess, overlap, overlap_min, shared_features
from qscope.evaluation.redundancy import coverage_auc, drawn_auc, r_hat
from qscope.evaluation.subsets import covered_share, covered_shares, greedy_subset
from qscope.features.footprints import Footprints

#: Items below which a benchmark says too little to be compared or advised on.
MIN_ITEMS = 20
#: Share of the items that is looked at for advice.
TENTH = 0.1
RANDOM_SUBSETS = 20


@dataclass(frozen=True)
class SubsetMeasure:
    """A subset of some size.

    Attributes:
        share: of the items.
        items: how many that is.
        covered: share of the features that the greedy subset keeps.
        random_mean, random_sd: the same of random subsets, over 20 of them.
        chosen: places of the greedy subset's items.
    """

    share: float
    items: int
    covered: float
    random_mean: float
    random_sd: float
    chosen: tuple[int, ...]


@dataclass(frozen=True)
class BenchmarkMeasure:
    """One benchmark under one rule at one layer.

    Attributes:
        name: its name.
        items: N.
        features: |F(D)|.
        per_item: features of an item, mean.
        silent: items without any.
        auc: area under the coverage curve.
        r_hat: the proxy of redundancy.
        drawn_gap: distance of the exact AUC from one drawn at random, in standard errors; NaN where none was drawn.
        twins: items with exactly the features of an earlier one.
        subsets: by size.
        tenth: the subset of a tenth, for advice; None without features.
    """

    name: str
    items: int
    features: int
    per_item: float
    silent: int
    auc: float
    r_hat: float
    drawn_gap: float
    twins: int
    subsets: tuple[SubsetMeasure, ...]
    tenth: SubsetMeasure | None


def measure(name: str, footprints: Footprints, *, subsets: Sequence[float], draws: int, seed: int) -> BenchmarkMeasure:
    """All measures of one benchmark.

    Args:
        name: its name.
        footprints: its footprints.
        subsets: sizes as shares of the items.
        draws: random orders that check the closed form; fewer than 2 leave it out.
        seed: of the draws, and of ties.
    """
    by_share = _subsets(footprints, {*subsets, TENTH}, seed) if len(footprints.features_U) else {}
    return BenchmarkMeasure(
        name,
        footprints.items,
        len(footprints.features_U),
        len(footprints.feature_P) / footprints.items,
        int((np.diff(footprints.offset_N) == 0).sum()),
        coverage_auc(footprints),
        r_hat(footprints),
        drawn_gap(footprints, draws, seed) if draws >= 2 else math.nan,
        len(twins_of(footprints)),
        tuple(by_share[share] for share in subsets if by_share),
        by_share.get(TENTH),
    )


def drawn_gap(footprints: Footprints, draws: int, seed: int) -> float:
    """|exact - drawn| / standard error of the AUC; 0 where every draw agrees with it, NaN without features.

    Of the AUC rather than of c_n: near n = N draws differ by a rare feature or two, and a standard error says little.
    """
    if not len(footprints.features_U):
        return math.nan
    drawn, error = drawn_auc(footprints, draws, seed)
    gap = abs(coverage_auc(footprints) - drawn)
    return 0.0 if gap < 1e-12 else gap / error if error > 0 else math.inf


def twins_of(footprints: Footprints) -> np.ndarray:
    """Items whose features are exactly those of an earlier item. Items without features are nobody's twins."""
    seen: set[bytes] = set()
    found = []
    for item in range(footprints.items):
        begin, end = footprints.offset_N[item], footprints.offset_N[item + 1]
        if begin == end:
            continue
        key = footprints.feature_P[begin:end].tobytes()
        if key in seen:
            found.append(item)
        seen.add(key)
    return np.array(found, dtype=np.int64)


def _subsets(footprints: Footprints, shares: Collection[float], seed: int) -> dict[float, SubsetMeasure]:
    """By share. The greedy subset of one size is the beginning of that of every larger one, so it is built once; the
    random ones alike."""
    size = {share: max(1, round(share * footprints.items)) for share in shares}
    largest = greedy_subset(footprints, max(size.values()), seed)
    random = np.random.default_rng(seed)
    orders = [random.permutation(footprints.items) for _ in range(RANDOM_SUBSETS)]
    found = {}
    for share in shares:
        chosen = largest[: size[share]]
        drawn = covered_shares(footprints, (order_N[: size[share]] for order_N in orders))
        found[share] = SubsetMeasure(
            share,
            size[share],
            covered_share(footprints, chosen),
            float(np.mean(drawn)),
            float(np.std(drawn, ddof=1)),
            tuple(chosen.tolist()),
        )
    return found


@dataclass(frozen=True)
class Overlaps:
    """What benchmarks share.

    Attributes:
        names: the benchmarks.
        size_B: |F| of each.
        directed: ``[i, j]``: share of the features of i that j has as well.
        smaller: shared features over the smaller of the two sets.
        chance: ``[i, j]``: what ``directed`` would be if j were as many features of the rest of the suite; NaN with
            fewer than three benchmarks.
        elsewhere: share of each one's features that any other benchmark has.
        by_chance: what ``chance`` comes from.
    """

    names: tuple[str, ...]
    size_B: np.ndarray
    directed: np.ndarray
    smaller: np.ndarray
    chance: np.ndarray
    elsewhere: np.ndarray
    by_chance: ChanceOverlap

    @cached_property
    def excess(self) -> np.ndarray:
        """How far ``directed`` goes beyond chance: 0 is chance, 1 all there is."""
        return excess(self.directed, self.chance)

    @cached_property
    def excess_smaller(self) -> np.ndarray:
        """The same of the smaller of two benchmarks in the larger, the mean of both where they are equally large;
        symmetric."""
        return self._of_smaller(self.excess)

    @cached_property
    def chance_smaller(self) -> np.ndarray:
        """``chance`` of the same."""
        return self._of_smaller(self.chance)

    def _of_smaller(self, values_BB: np.ndarray) -> np.ndarray:
        larger_BB = np.sign(self.size_B[:, None] - self.size_B[None, :])
        return np.select([larger_BB < 0, larger_BB > 0], [values_BB, values_BB.T], (values_BB + values_BB.T) / 2)


def overlaps(suite: Mapping[str, Footprints]) -> Overlaps:
    """The overlap of every pair, what chance would give, and the overlap of each with all others together."""
    parts = list(suite.values())
    shared = shared_features(parts)
    features, counts = np.unique(np.concatenate([part.features_U for part in parts]), return_counts=True)
    several = features[counts > 1]
    elsewhere = np.array(
        [
            np.isin(part.features_U, several, assume_unique=True).mean() if len(part.features_U) else math.nan
            for part in parts
        ]
    )
    by_chance = ChanceOverlap(parts)
    return Overlaps(
        tuple(suite),
        np.diag(shared),
        overlap(shared),
        overlap_min(shared),
        by_chance.matrix(),
        elsewhere,
        by_chance,
    )
