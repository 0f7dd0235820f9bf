"""A suite of benchmarks measured together: repetition within each, overlap between them, and what follows from it.

Nothing here needs a model's answers. Numbers of one suite compare with each other; R-hat grows with the number of
items, so that its ranks are compared and not its values.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qscope.evaluation.overlap import ChanceOverlap, excess, overlap, overlap_min, shared_features
from qscope.evaluation.panel import spearman
from qscope.evaluation.redundancy import coverage_auc, drawn_auc, r_hat
from qscope.evaluation.subsets import covered_share, greedy_subset
from qscope.features.footprints import Footprints

#: Share of a benchmark's features in another, larger one from which on keeping both is worth a question,
MERGE_FROM = 0.8
#: its excess over chance from which on that is no accident of size,
EXCESS_FROM = 0.8
#: and the share of the other layers and rules that have to say so, too.
HOLDS_FROM = 0.5
#: Excess over chance with every other benchmark below which one measures something of its own.
OWN_BELOW = 0.25
#: Share of the items of both from which on they count as ending in the same token.
SAME_ENDING_FROM = 0.9
#: Share of the items that is looked at for advice.
TENTH = 0.1
#: Items below which there is no advice.
MIN_ITEMS = 20
#: Share of the features that a tenth of the items keeps, from which on a tenth will do.
SMALL_FROM = 0.9
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
        drawn = [covered_share(footprints, order_N[: size[share]]) for order_N in orders]
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

    @property
    def excess(self) -> np.ndarray:
        """How far ``directed`` goes beyond chance: 0 is chance, 1 all there is."""
        return excess(self.directed, self.chance)

    @property
    def excess_smaller(self) -> np.ndarray:
        """The same of the smaller of two benchmarks in the larger; symmetric."""
        size_B = self.size_B
        return np.where(size_B[:, None] <= size_B[None, :], self.excess, self.excess.T)


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
        halves_matched, halves_matched_sd: the same with halves of ``matched_items`` // 2 items.
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
        *_halves_agreement(suites[main], 0, draws, seed),
        *_halves_agreement(suites[main], size // 2, draws, seed),
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
    return np.array([mean_known([r_hat(part.take(some)) for some in chosen[name]]) for name, part in suite.items()])


def mean_known(values: Sequence[float]) -> float:
    """Mean of the values that are known; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def rank_agreement(one_N: np.ndarray, other_N: np.ndarray) -> float:
    """Spearman's correlation where both are known; NaN with fewer than three such."""
    known = np.isfinite(one_N) & np.isfinite(other_N)
    return spearman(one_N[known], other_N[known]) if known.sum() >= 3 else math.nan


def _halves_agreement(suite: Mapping[str, Footprints], size: int, draws: int, seed: int) -> tuple[float, float]:
    """Of halves, or of ``size`` items on either side where it is not 0."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        sides: tuple[list[float], list[float]] = ([], [])
        for part in suite.values():
            order_N = random.permutation(part.items)
            half = size or part.items // 2
            for side, begin in zip(sides, (0, half), strict=True):
                enough = part.items >= 2 * half
                side.append(r_hat(part.take(order_N[begin : begin + half])) if enough else math.nan)
        found.append(rank_agreement(np.array(sides[0]), np.array(sides[1])))
    known = [value for value in found if not math.isnan(value)]
    if len(known) < 2:
        return mean_known(known), math.nan
    return float(np.mean(known)), float(np.std(known, ddof=1))


@dataclass(frozen=True)
class Advice:
    """What the numbers suggest for one benchmark.

    Attributes:
        name: the benchmark.
        verdict: ``keep``, ``merge``, ``shrink``, ``extend`` or ``unknown``.
        reason: the number behind it, in words.
    """

    name: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Ending:
    """The token that most items of a benchmark end in: features are looked at there.

    Attributes:
        text: the token.
        share: of the items.
    """

    text: str
    share: float


def advise(
    measures: Sequence[BenchmarkMeasure],
    shared: Overlaps,
    others: Sequence[Mapping[str, Footprints]] = (),
    endings: Mapping[str, Ending] | None = None,
) -> tuple[Advice, ...]:
    """One suggestion a benchmark, by fixed thresholds; about features, not about how good a benchmark is.

    In this order: *unknown* where too little was measured, *merge* where a benchmark with more features has most of its
    own, far more than chance, and other layers and rules mostly say so too, *extend* where no other benchmark shares
    much more with it than chance (the suite has nothing else of its kind), *shrink* where a tenth of its items keeps
    nearly all of its features, else *keep*.

    Args:
        measures: the benchmarks.
        shared: their overlaps.
        others: footprints of the same benchmarks at other layers and under other rules.
        endings: what benchmarks end in. Features are looked at there, so two that end alike overlap for that reason
            too: chance is then what the others that end so give, and without any nothing is known.
    """
    return tuple(_advice(index, measures, shared, others, endings or {}) for index in range(len(measures)))


def _advice(
    index: int,
    measures: Sequence[BenchmarkMeasure],
    shared: Overlaps,
    others: Sequence[Mapping[str, Footprints]],
    endings: Mapping[str, Ending],
) -> Advice:
    one = measures[index]

    def advice(verdict: str, reason: str) -> Advice:
        return Advice(one.name, verdict, reason)

    if not one.features:
        return advice("unknown", "no item activates a feature")
    if one.items < MIN_ITEMS:
        return advice("unknown", f"{one.items:,} items say too little, it takes {MIN_ITEMS}")
    compared = [
        other
        for other in range(len(measures))
        if other != index and measures[other].items >= MIN_ITEMS and measures[other].features
    ]
    larger = [other for other in compared if (measures[other].features, -other) > (one.features, -index)]
    containing = [other for other in larger if shared.directed[index, other] >= MERGE_FROM]
    doubtful = ""
    for host in sorted(containing, key=lambda other: -shared.excess[index, other]):
        if math.isnan(shared.chance[index, host]):
            return advice("unknown", f"{_inside(index, host, shared)}, and no third benchmark says what chance gives")
        if shared.excess[index, host] < EXCESS_FROM:
            break
        ending = _shared_ending(one.name, shared.names[host], endings)
        alike, among_alike = None, ""
        if ending:
            alike = [
                other
                for other in compared
                if other != host and _shared_ending(one.name, shared.names[other], endings) == ending
            ]
            if not alike:
                return advice(
                    "unknown",
                    f"{_inside(index, host, shared)}, but both end in {ending!r} and no other benchmark does: nothing "
                    "tells their ending from what they ask",
                )
            chance = shared.by_chance.of(index, host, alike)
            among_alike = f"; {chance:.0%} by chance among those that end in {ending!r} too"
            if not excess(shared.directed[index, host], chance) >= EXCESS_FROM:
                doubtful = doubtful or f"{_inside(index, host, shared)}{among_alike}"
                continue
        agreeing = sum(_contained(index, host, suite, alike) for suite in others)
        among = f"{agreeing} of {len(others)} other layers and rules"
        if agreeing >= HOLDS_FROM * len(others):
            agreed = f"; so at {among}" if others else ""
            return advice("merge", f"{_inside(index, host, shared)}{among_alike}{agreed}")
        doubtful = doubtful or f"{_inside(index, host, shared)}{among_alike}; but so at {among} only"
    closest = max(compared, key=lambda other: _or_low(shared.excess_smaller[index, other]), default=None)
    if closest is not None and shared.excess_smaller[index, closest] < OWN_BELOW:
        return advice(
            "extend",
            f"the suite has nothing else of its kind: with no other benchmark does it share much more than chance "
            f"(most with {shared.names[closest]}: overlap_min {shared.smaller[index, closest]:.0%}, "
            f"{_of_smaller(index, closest, shared):.0%} by chance)",
        )
    if one.tenth is not None and one.tenth.covered >= SMALL_FROM:
        return advice(
            "shrink",
            f"{one.tenth.items:,} of {one.items:,} items keep {one.tenth.covered:.0%} of its features "
            f"(at random {one.tenth.random_mean:.0%})",
        )
    tenth = f"a tenth of its items keeps {one.tenth.covered:.0%} of its features" if one.tenth is not None else ""
    if not compared:
        return advice("unknown", f"there is no other benchmark to compare it with; {tenth}")
    host = max(larger, key=lambda other: _or_low(shared.excess[index, other]), default=None)
    inside = doubtful or (_inside(index, host, shared) if host is not None else "no benchmark has more features")
    return advice("keep", f"{inside}; {tenth}")


def _inside(index: int, host: int, shared: Overlaps) -> str:
    chance = shared.chance[index, host]
    by_chance = "" if math.isnan(chance) else f" ({chance:.0%} by chance)"
    return f"{shared.directed[index, host]:.0%} of its features are active in {shared.names[host]}{by_chance}"


def _shared_ending(one: str, other: str, endings: Mapping[str, Ending]) -> str:
    """The token nearly all items of both end in; empty where there is none."""
    both = [endings[name] for name in (one, other) if name in endings]
    alike = len(both) == 2 and both[0].text == both[1].text
    return both[0].text if alike and min(ending.share for ending in both) >= SAME_ENDING_FROM else ""


def _of_smaller(i: int, j: int, shared: Overlaps) -> float:
    return float(shared.chance[i, j] if shared.size_B[i] <= shared.size_B[j] else shared.chance[j, i])


def _or_low(value: float) -> float:
    return -math.inf if math.isnan(value) else float(value)


def _contained(index: int, host: int, suite: Mapping[str, Footprints], rest: Sequence[int] | None) -> bool:
    """Whether another layer or rule says as well that one benchmark is contained in another."""
    parts = list(suite.values())
    one, other = parts[index].features_U, parts[host].features_U
    if not len(one):
        return False
    share = len(np.intersect1d(one, other, assume_unique=True)) / len(one)
    return share >= MERGE_FROM and bool(excess(share, ChanceOverlap(parts).of(index, host, rest)) >= EXCESS_FROM)
