"""What the measures of a suite suggest for each benchmark, by fixed thresholds and with the number behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qscope.evaluation.overlap import ChanceOverlap, excess
from qscope.evaluation.suite import MIN_ITEMS, BenchmarkMeasure, Overlaps
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
#: Share of the features that a tenth of the items keeps, from which on a tenth will do.
SMALL_FROM = 0.9


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
        text: the token; empty where no item has one.
        share: of the items.
    """

    text: str
    share: float

    @classmethod
    def of(cls, last_N: np.ndarray, decode: Callable[[list[int]], str]) -> Ending:
        """What most items end in.

        Args:
            last_N: the id of each item's last token, -1 where it has none.
            decode: ids to text.
        """
        ids, counts = np.unique(last_N[last_N >= 0], return_counts=True)
        if not len(ids):
            return cls("", 0.0)
        commonest = int(ids[counts.argmax()])
        text = decode([commonest])
        # Two tokens that are each a part of a character look alike, and are not.
        return cls(f"part of a character, token {commonest}" if "\ufffd" in text else text, counts.max() / len(last_N))


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
    elsewhere = [_Suite(other) for other in others]
    return tuple(_advice(index, measures, shared, elsewhere, endings or {}) for index in range(len(measures)))


class _Suite:
    """The same benchmarks at another layer or under another rule."""

    def __init__(self, suite: Mapping[str, Footprints]) -> None:
        self._parts = list(suite.values())

    @cached_property
    def _by_chance(self) -> ChanceOverlap:
        return ChanceOverlap(self._parts)

    def contains(self, index: int, host: int, rest: Sequence[int] | None) -> bool:
        """Whether it says as well that one benchmark is contained in another, with ``rest`` for chance."""
        one, other = self._parts[index].features_U, self._parts[host].features_U
        if not len(one):
            return False
        share = len(np.intersect1d(one, other, assume_unique=True)) / len(one)
        return share >= MERGE_FROM and bool(excess(share, self._by_chance.of(index, host, rest)) >= EXCESS_FROM)


def _advice(
    index: int,
    measures: Sequence[BenchmarkMeasure],
    shared: Overlaps,
    others: Sequence[_Suite],
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
        agreeing = sum(other.contains(index, host, alike) for other in others)
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
            f"{shared.chance_smaller[index, closest]:.0%} by chance)",
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


def _or_low(value: float) -> float:
    return -math.inf if math.isnan(value) else float(value)
