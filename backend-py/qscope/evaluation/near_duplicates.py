"""Items that ask for the same: by their words, and by their footprints.

Two items are *alike* when the weighted Jaccard index of their footprints reaches a threshold, each feature weighted by
ln(N / m) where m of the suite's N items activate it: an ending in common lights features that thousands of items have,
and says little. What both share has to weigh ln N at least, enough to single out one item of N: shorter footprints
coincide by chance. They have *the same text* when their prompts are the same words, whatever the features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qscope.evaluation.similarity_join import TOLERANCE, similar_pairs, weights_by_rarity
from qscope.features.footprints import Footprints


@dataclass(frozen=True)
class ItemPair:
    """Two items.

    Attributes:
        first, second: benchmark and item of each, by place; the earlier one in the suite first.
        jaccard: weighted Jaccard index of their footprints; NaN where neither has any weight.
        same_text: whether their prompts are the same words.
    """

    first: tuple[int, int]
    second: tuple[int, int]
    jaccard: float
    same_text: bool


@dataclass(frozen=True)
class NearDuplicates:
    """What of a suite is there twice.

    Attributes:
        alike_within: of each benchmark, items with an earlier one of it that is alike.
        alike_elsewhere: of each benchmark, items with one that is alike in another benchmark.
        same_text_within, same_text_elsewhere: the same by text.
        pairs: same texts first, then by falling index. Of items of one benchmark with equal footprints (or texts) the
            first stands for the others, and is in a pair with each of them.
        found: how many pairs there are; ``pairs`` may be fewer.
    """

    alike_within: tuple[int, ...]
    alike_elsewhere: tuple[int, ...]
    same_text_within: tuple[int, ...]
    same_text_elsewhere: tuple[int, ...]
    pairs: tuple[ItemPair, ...]
    found: int


def near_duplicates(
    suite: Mapping[str, Footprints], keys: Sequence[Sequence[bytes]], *, threshold: float, limit: int
) -> NearDuplicates:
    """Everything that is there twice.

    Args:
        suite: footprints of the benchmarks.
        keys: of each benchmark, one key an item: equal for the same text.
        threshold: weighted Jaccard index from which on two items are alike.
        limit: pairs listed at most. Counts are of all pairs.
    """
    parts = list(suite.values())
    whole = _joined(parts)
    bench_N = np.repeat(np.arange(len(parts)), [part.items for part in parts])
    weight_U = weights_by_rarity(whole)
    least = math.log(max(1, int((np.diff(whole.offset_N) > 0).sum())))
    text_N = _numbered(key for some in keys for key in some)
    of_text, texts = _Groups(text_N, bench_N), _Listed(limit)
    for first, second in of_text.pairs():
        texts.add(first, second, _jaccard(whole, weight_U, first, second))
    of_features, alike = _Groups(_footprint_groups(whole, weight_U, least), bench_N), _Listed(limit)

    def add(first: np.ndarray, second: np.ndarray, jaccard: np.ndarray) -> None:
        new = text_N[first] != text_N[second]
        alike.add(first[new], second[new], jaccard[new])

    for first, second in of_features.pairs():
        add(first, second, np.ones(len(first)))
    groups = whole.take(of_features.first_G)
    rarity_U = weight_U[np.searchsorted(whole.features_U, groups.features_U)]
    for block in similar_pairs(groups, rarity_U, threshold, least_shared=least):
        add(*of_features.join(*block))
    start_B = np.concatenate([[0], np.cumsum([part.items for part in parts])])

    def pairs_of(listed: _Listed, same_text: bool) -> list[ItemPair]:
        return [
            ItemPair(*((int(bench_N[n]), int(n - start_B[bench_N[n]])) for n in (i, j)), float(value), same_text)
            for i, j, value in zip(*listed.best(), strict=True)
        ]

    return NearDuplicates(
        *of_features.counts(len(parts)),
        *of_text.counts(len(parts)),
        tuple([*pairs_of(texts, True), *pairs_of(alike, False)][:limit]),
        texts.found + alike.found,
    )


class _Groups:
    """Items in groups of equals; and for each benchmark in a group what is known of all its items there at once.

    Args:
        group_N: group of each item; -1 for none.
        bench_N: benchmark of each item.
    """

    def __init__(self, group_N: np.ndarray, bench_N: np.ndarray) -> None:
        self._item_I = np.flatnonzero(group_N >= 0)
        benchmarks = int(bench_N.max(initial=0)) + 1
        # An entry is a group within a benchmark; entries of a group stand together, benchmarks ascending.
        entry_I = group_N[self._item_I] * benchmarks + bench_N[self._item_I]
        entry_E, first_E, self._entry_I = np.unique(entry_I, return_index=True, return_inverse=True)
        self._first_E, self._bench_E = self._item_I[first_E], entry_E % benchmarks
        _, self._begin_G, number_E, self._size_G = np.unique(
            entry_E // benchmarks, return_index=True, return_inverse=True, return_counts=True
        )
        #: An item of each group.
        self.first_G = self._first_E[self._begin_G]
        self._earlier_E = self._first_E.copy()
        self._elsewhere_E = self._size_G[number_E] > 1

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Equal items: the first of an entry with each of the others, and the firsts of any two entries of a group."""
        first_I = self._first_E[self._entry_I]
        later = first_I != self._item_I
        yield first_I[later], self._item_I[later]
        for begin, size in zip(self._begin_G[self._size_G > 1], self._size_G[self._size_G > 1], strict=True):
            one, other = np.triu_indices(size, 1)
            found = np.stack([self._first_E[begin + one], self._first_E[begin + other]])
            yield found.min(0), found.max(0)

    def join(self, one_G: np.ndarray, other_G: np.ndarray, value_G: np.ndarray) -> tuple[np.ndarray, ...]:
        """Marks items of groups that are alike, and spreads pairs of groups to pairs of the firsts of their entries."""
        size_G, width_G = self._size_G[one_G] * self._size_G[other_G], self._size_G[other_G]
        pair_C = np.repeat(np.arange(len(one_G)), size_G)
        within_C = np.arange(len(pair_C)) - np.repeat(np.cumsum(size_G) - size_G, size_G)
        one_C = self._begin_G[one_G[pair_C]] + within_C // width_G[pair_C]
        other_C = self._begin_G[other_G[pair_C]] + within_C % width_G[pair_C]
        same_C = self._bench_E[one_C] == self._bench_E[other_C]
        for left_C, right_C in ((one_C, other_C), (other_C, one_C)):
            np.minimum.at(self._earlier_E, left_C[same_C], self._first_E[right_C[same_C]])
            self._elsewhere_E[left_C[~same_C]] = True
        firsts = np.stack([self._first_E[one_C], self._first_E[other_C]])
        return firsts.min(0), firsts.max(0), value_G[pair_C]

    def counts(self, benchmarks: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of each benchmark, items with an earlier one that is alike, and with one elsewhere."""
        bench_I = self._bench_E[self._entry_I]
        earlier_I = self._earlier_E[self._entry_I] < self._item_I
        elsewhere_I = self._elsewhere_E[self._entry_I]
        within, elsewhere = (
            tuple(np.bincount(bench_I[some], minlength=benchmarks).tolist()) for some in (earlier_I, elsewhere_I)
        )
        return within, elsewhere


class _Listed:
    """The best pairs so far, and how many there were."""

    def __init__(self, limit: int) -> None:
        self._limit, self.found = limit, 0
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._held = 0

    def add(self, first: np.ndarray, second: np.ndarray, jaccard: np.ndarray) -> None:
        self._parts.append((first, second, jaccard))
        self.found += len(first)
        self._held += len(first)
        if self._held > 4 * self._limit + 100_000:
            self._parts = [self.best()]
            self._held = len(self._parts[0][0])

    def best(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best, by falling index and then by place."""
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        first, second, jaccard = (np.concatenate(some) for some in zip(*self._parts, strict=True))
        order = np.lexsort((second, first, -np.nan_to_num(jaccard, nan=-1.0)))[: self._limit]
        return first[order], second[order], jaccard[order]


def _joined(parts: Sequence[Footprints]) -> Footprints:
    ends = np.cumsum([0, *(len(part.feature_P) for part in parts)])
    offsets = [part.offset_N[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
    return Footprints(np.concatenate([*offsets, ends[-1:]]), np.concatenate([part.feature_P for part in parts]))


def _numbered(keys: Iterable[bytes]) -> np.ndarray:
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def _footprint_groups(whole: Footprints, weight_U: np.ndarray, least: float) -> np.ndarray:
    """Number of each item's footprint, equal for equal ones; -1 for those that weigh less than ``least``."""
    weight_P = weight_U[np.searchsorted(whole.features_U, whole.feature_P)]
    weight_N = np.bincount(whole.item_P, weights=weight_P, minlength=whole.items)
    seen: dict[bytes, int] = {}
    group_N = np.full(whole.items, -1, dtype=np.int64)
    for item in np.flatnonzero((weight_N >= least - TOLERANCE) & (weight_N > 0)).tolist():
        key = whole.feature_P[whole.offset_N[item] : whole.offset_N[item + 1]].tobytes()
        group_N[item] = seen.setdefault(key, len(seen))
    return group_N


def _jaccard(whole: Footprints, weight_U: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """J of single pairs; NaN where neither weighs anything."""
    found = np.full(len(first), math.nan)
    for place, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        one, other = whole.slots_of(i), whole.slots_of(j)
        shared = weight_U[np.intersect1d(one, other, assume_unique=True)].sum()
        union = weight_U[one].sum() + weight_U[other].sum() - shared
        if union > 0:
            found[place] = min(1.0, shared / union)
    return found
