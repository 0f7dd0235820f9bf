"""Which benchmarks belong together: average-linkage clustering of what they share beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import linkage, optimal_leaf_ordering, to_tree
from scipy.spatial.distance import squareform

#: Mean likeness of its pairs that a cluster has at least.
CLUSTER_FROM = 0.5


@dataclass(frozen=True)
class Merge:
    """Two groups of benchmarks that became one.

    Attributes:
        members: all of them, in leaf order.
        likeness: mean likeness of the pairs with one benchmark in either group, 0 to 1.
    """

    members: tuple[str, ...]
    likeness: float


@dataclass(frozen=True)
class Clusters:
    """A suite in groups.

    Attributes:
        order: places of the benchmarks in leaf order: neighbours are alike.
        groups: names by cluster, in leaf order; a benchmark of its own kind is a cluster of one.
        merges: every step, the most alike first.
    """

    order: tuple[int, ...]
    groups: tuple[tuple[str, ...], ...]
    merges: tuple[Merge, ...]

    def number_of(self, name: str) -> int:
        """The cluster of a benchmark, from 1."""
        return next(number for number, group in enumerate(self.groups, start=1) if name in group)


def cluster(names: Sequence[str], likeness_BB: np.ndarray) -> Clusters:
    """Joins the two groups whose pairs are most alike on average, over and over.

    Clusters are what has joined at a likeness of CLUSTER_FROM or more. Leaves are ordered such that neighbours differ
    least (Bar-Joseph et al. 2001).

    Args:
        names: the benchmarks.
        likeness_BB: symmetric; counts as 0 below 0 and where it is unknown, as 1 above 1.
    """
    if len(names) < 2:
        return Clusters(tuple(range(len(names))), tuple((name,) for name in names), ())
    distance_BB = 1 - np.clip(np.nan_to_num(likeness_BB, nan=0.0), 0, 1)
    np.fill_diagonal(distance_BB, 0)
    distance_P = squareform(distance_BB, checks=False)
    steps = optimal_leaf_ordering(linkage(distance_P, method="average"), distance_P)
    root, nodes = to_tree(steps, rd=True)
    merges = [
        Merge(tuple(names[leaf] for leaf in node.pre_order()), 1 - float(node.dist))
        for node in nodes
        if not node.is_leaf()
    ]
    groups: list[tuple[str, ...]] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        # Sums of rounded numbers: 0.5 is in.
        if node.is_leaf() or 1 - node.dist >= CLUSTER_FROM - 1e-9:
            groups.append(tuple(names[leaf] for leaf in node.pre_order()))
        else:
            waiting += [node.get_right(), node.get_left()]
    return Clusters(tuple(root.pre_order()), tuple(groups), tuple(sorted(merges, key=lambda one: -one.likeness)))


def likeness_of(excess_smaller_BB: np.ndarray, smaller_BB: np.ndarray) -> np.ndarray:
    """What benchmarks are clustered by: the excess of the smaller in the larger over chance; overlap_min where no third
    benchmark says what chance gives.

    Args:
        excess_smaller_BB: excess of every pair; NaN where chance is unknown.
        smaller_BB: overlap_min of every pair.
    """
    off = ~np.eye(len(smaller_BB), dtype=bool)
    return excess_smaller_BB if np.isfinite(excess_smaller_BB[off]).any() else smaller_BB
