"""Average linkage by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.evaluation.clusters import CLUSTER_FROM, cluster, likeness_of

NAMES = ("a", "b", "c", "d", "e")


def symmetric(pairs: dict[str, float], size: int = 5) -> np.ndarray:
    likeness_BB = np.full((size, size), math.nan)
    for (one, other), value in pairs.items():
        i, j = NAMES.index(one), NAMES.index(other)
        likeness_BB[i, j] = likeness_BB[j, i] = value
    return likeness_BB


def test_golden_values():
    pairs = {"ac": 0.9, "bd": 0.7, "ab": 0.3, "ad": 0.1, "cb": 0.5, "cd": 0.3, "ae": -0.2, "be": 0.1, "ce": 0.0}
    found = cluster(NAMES, symmetric(pairs))
    assert sorted(sorted(group) for group in found.groups) == [["a", "c"], ["b", "d"], ["e"]]
    assert [(set(one.members), one.likeness) for one in found.merges] == [
        ({"a", "c"}, pytest.approx(0.9)),
        ({"b", "d"}, pytest.approx(0.7)),
        # Mean of ab, ad, cb and cd.
        ({"a", "b", "c", "d"}, pytest.approx(0.3)),
        # What is below chance or unknown (de) counts as nothing: mean of 0, 0.1, 0 and 0.
        (set(NAMES), pytest.approx(0.025)),
    ]
    # b and c are the closest of the two pairs, and stand beside each other; e beside b's side or at the end.
    order = "".join(NAMES[place] for place in found.order)
    assert order in ("acbde", "edbca")
    assert [name for group in found.groups for name in group] == list(order)
    assert [found.number_of(name) for name in order] == ([1, 1, 2, 2, 3] if order == "acbde" else [1, 2, 2, 3, 3])


def test_a_group_is_as_alike_as_its_mean_says():
    at = symmetric({"ab": 0.8, "ac": 0.4, "bc": 2 * CLUSTER_FROM - 0.4}, 3)
    assert len(cluster(NAMES[:3], at).groups) == 1
    below = symmetric({"ab": 0.8, "ac": 0.4, "bc": 2 * CLUSTER_FROM - 0.41}, 3)
    assert sorted(map(len, cluster(NAMES[:3], below).groups)) == [1, 2]


def test_one_benchmark_is_a_cluster_and_two_have_no_chance():
    assert cluster(["a"], np.full((1, 1), math.nan)).groups == (("a",),)
    unknown, smaller = np.full((2, 2), math.nan), np.array([[1, 0.75], [0.75, 1]])
    assert likeness_of(unknown, smaller)[0, 1] == 0.75
    assert likeness_of(np.array([[math.nan, 0.1], [0.1, math.nan]]), smaller)[0, 1] == 0.1
    partly = np.full((3, 3), math.nan)
    partly[0, 1] = partly[1, 0] = 0.3
    # A benchmark that activates nothing leaves the others' chance known.
    np.testing.assert_array_equal(likeness_of(partly, np.ones((3, 3))), partly)
    assert cluster(["a", "b"], likeness_of(unknown, smaller)).merges[0].likeness == pytest.approx(0.75)


@given(st.integers(2, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_every_merge_is_the_mean_of_its_pairs(size, data):
    values = np.zeros((size, size))
    upper = np.triu_indices(size, 1)
    values[upper] = [data.draw(st.floats(0, 1)) for _ in range(len(upper[0]))]
    values += values.T
    names = [str(n) for n in range(size)]
    found = cluster(names, values)
    assert sorted(found.order) == list(range(size))
    members = [set(one.members) for one in found.merges] + [{name} for name in names]
    for one in found.merges:
        inside = [some for some in members if some < set(one.members)]
        left = max(inside, key=len)
        right = set(one.members) - left
        if right not in inside:
            continue
        mean = np.mean([values[int(i), int(j)] for i in left for j in right])
        assert one.likeness == pytest.approx(mean, abs=1e-9)
