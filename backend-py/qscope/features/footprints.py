"""Which features each item of a benchmark activates, held by active pairs and never as items x features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Footprints:
    """The feature sets F(x_i) of the items of one benchmark (Qwen-Scope, eq. 2), row after row.

    Features of several layers live in one set when the caller numbers them apart, say by layer x d_sae + feature.
    Numbers are places in arrays, from 0 on: memory goes by the largest.

    Attributes:
        offset_N: where each item's features begin, and at last the end; N + 1 numbers.
        feature_P: the features, ascending and distinct within an item; int32 or int64.
    """

    offset_N: np.ndarray
    feature_P: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> Footprints:
        """From one list of features an item, in any order and with repetitions."""
        unique = [np.unique(np.asarray(row, dtype=np.int64)) for row in rows]
        offset_N = np.concatenate([[0], np.cumsum([len(row) for row in unique])]).astype(np.int64)
        return cls(offset_N, np.concatenate(unique) if unique else np.zeros(0, np.int64))

    @property
    def items(self) -> int:
        """N, items without a feature too."""
        return len(self.offset_N) - 1

    @cached_property
    def item_P(self) -> np.ndarray:
        """The item of each pair."""
        return np.repeat(np.arange(self.items), np.diff(self.offset_N))

    @cached_property
    def features_U(self) -> np.ndarray:
        """F(D), the union over items (eq. 3), ascending."""
        return self._union[0]

    @cached_property
    def count_U(self) -> np.ndarray:
        """For each feature of the union the items that activate it: m_j."""
        return self._union[1]

    @cached_property
    def _union(self) -> tuple[np.ndarray, np.ndarray]:
        # Counted, not sorted: features are numbered from 0, and far fewer than pairs.
        count_F = np.bincount(self.feature_P)
        features_U = np.flatnonzero(count_F)
        return features_U, count_F[features_U]

    @cached_property
    def _by_feature(self) -> tuple[np.ndarray, np.ndarray]:
        """Items feature by feature, and where each feature of the union begins."""
        order_P = np.argsort(self.feature_P, kind="stable")
        return self.item_P[order_P], np.concatenate([[0], np.cumsum(self.count_U)]).astype(np.int64)

    def items_of(self, slot: int) -> np.ndarray:
        """Items that activate the feature in place ``slot`` of the union."""
        item_P, start_U = self._by_feature
        return item_P[start_U[slot] : start_U[slot + 1]]

    def slots_of(self, item: int) -> np.ndarray:
        """Places in the union of an item's features."""
        return np.searchsorted(self.features_U, self.feature_P[self.offset_N[item] : self.offset_N[item + 1]])

    def first_ranks(self, rank_N: np.ndarray) -> np.ndarray:
        """For each feature of the union the lowest rank among the items that activate it."""
        item_P, start_U = self._by_feature
        if not len(item_P):
            return np.zeros(0, dtype=rank_N.dtype)
        return np.minimum.reduceat(rank_N[item_P], start_U[:-1])

    def counts_among(self, subsets: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """For each of several subsets of the items, how many of its items activate each feature of the union.

        What :meth:`take` would count, without sorting a subset's features again.

        Args:
            subsets: places of items, distinct within a subset.
        """
        slot_F = np.zeros(self.features_U[-1] + 1 if len(self.features_U) else 0, dtype=np.int32)
        slot_F[self.features_U] = np.arange(len(self.features_U))
        slot_P = slot_F[self.feature_P]
        for chosen in subsets:
            yield np.bincount(slot_P[self._pairs_of(chosen)], minlength=len(self.features_U))

    def take(self, items: Sequence[int] | np.ndarray) -> Footprints:
        """The same of some items, in the order given."""
        chosen = np.asarray(items, dtype=np.int64)
        ends = np.cumsum(np.diff(self.offset_N)[chosen])
        return Footprints(np.concatenate([[0], ends]).astype(np.int64), self.feature_P[self._pairs_of(chosen)])

    def _pairs_of(self, chosen: np.ndarray) -> np.ndarray:
        """Where the features of some items stand, item after item."""
        lengths = self.offset_N[chosen + 1] - self.offset_N[chosen]
        ends = np.cumsum(lengths)
        return np.repeat(self.offset_N[chosen] - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
