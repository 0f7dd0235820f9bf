"""A suite of benchmarks: golden values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.evaluation.overlap import ChanceOverlap
from qscope.evaluation.subsets import covered_share, greedy_subset
from qscope.evaluation.suite import measure, overlaps, twins_of
from qscope.features.footprints import Footprints


def test_measures_of_a_benchmark_by_hand():
    one = measure("b", Footprints.of([[1, 2], [1, 2], [3], []]), subsets=[0.25, 1.0], draws=50, seed=0)
    assert (one.items, one.features, one.per_item, one.silent, one.twins) == (4, 3, 1.25, 1, 1)
    # m = 2, 2, 1: R-hat = 5 / 9 x (2/3 + 2/3 + 1/2).
    assert one.r_hat == pytest.approx(5 / 9 * (4 / 3 + 1 / 2))
    assert one.auc == pytest.approx(one.r_hat * 3 / 4)
    assert one.drawn_gap < 5
    quarter, whole = one.subsets
    assert (quarter.items, quarter.covered) == (1, pytest.approx(2 / 3))
    assert (whole.items, whole.covered, whole.random_mean, whole.random_sd) == (4, 1.0, 1.0, 0.0)


def test_a_benchmark_that_activates_nothing_has_no_measures():
    one = measure("b", Footprints.of([[], []]), subsets=[0.5], draws=10, seed=0)
    assert (one.features, one.silent, one.twins, one.subsets) == (0, 2, 0, ())
    assert math.isnan(one.r_hat)
    assert math.isnan(one.drawn_gap)


def test_twins_are_later_items_of_equal_features():
    assert twins_of(Footprints.of([[2, 1], [], [1, 2], [1], [], [1], [1]])).tolist() == [2, 5, 6]


def test_overlaps_by_hand():
    shared = overlaps({"a": Footprints.of([[1, 2, 3, 4]]), "b": Footprints.of([[3], [4]]), "c": Footprints.of([[9]])})
    np.testing.assert_allclose(shared.directed, [[1, 0.5, 0], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(shared.smaller, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(shared.elsewhere, [0.5, 1, 0])


def test_chance_by_hand():
    # The rest activates four features a quarter of the time each; two of them on average when each comes every other
    # time. One of the two features of the first is among them.
    rest = Footprints.of([[1], [3], [4], [5]])
    chance = ChanceOverlap([Footprints.of([[1, 2]]), Footprints.of([[8], [9]]), rest])
    assert chance.of(0, 1) == pytest.approx(0.25)
    # Features as many as the rest has at all: each of them is sure.
    whole = ChanceOverlap([Footprints.of([[1, 2, 3]]), Footprints.of([[6, 7, 8, 9]]), rest])
    assert whole.of(0, 1) == pytest.approx(2 / 3)
    assert math.isnan(ChanceOverlap([rest, rest]).of(0, 1)), "there is no rest"
    assert math.isnan(ChanceOverlap([Footprints.of([[]]), rest, rest]).of(0, 1))


@pytest.mark.slow
@given(
    st.lists(st.lists(st.lists(st.integers(0, 40), max_size=5), min_size=1, max_size=6), min_size=3, max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_chance_solves_its_equation(benchmarks):
    parts = [Footprints.of(rows) for rows in benchmarks]
    matrix = ChanceOverlap(parts).matrix()
    for i, one in enumerate(benchmarks):
        for j, other in enumerate(benchmarks):
            mine, size = set().union(*map(set, one)), len(set().union(*map(set, other)))
            if i == j or not mine or not size:
                assert math.isnan(matrix[i, j])
                continue
            rest = [rows for place, rows in enumerate(benchmarks) if place not in (i, j)]
            rate = {f: sum(sum(f in row for row in rows) / len(rows) for rows in rest) / len(rest) for f in range(41)}
            if sum(value > 0 for value in rate.values()) <= size:
                assert matrix[i, j] == pytest.approx(sum(rate[f] > 0 for f in mine) / len(mine))
                continue
            low, high = 0.0, 1e6
            for _ in range(200):
                middle = (low + high) / 2
                short = sum(1 - (1 - min(p, 1 - 1e-12)) ** middle for p in rate.values()) < size
                low, high = (middle, high) if short else (low, middle)
            expected = sum(1 - (1 - min(rate[f], 1 - 1e-12)) ** low for f in mine) / len(mine)
            assert matrix[i, j] == pytest.approx(expected, abs=1e-3)


@pytest.mark.filterwarnings("error")
def test_chance_does_not_hang_on_which_pair_came_before():
    """Many items of rare features are needed for what a few of the common ones give: t of the first pair lies where
    the second has no slope left."""
    rare = Footprints.of([range(100), *[[0]] * 20_000])
    nearly, common = Footprints.of([range(99)]), Footprints.of([range(60), range(60, 120), *[[0, 119]] * 20])
    chance = ChanceOverlap([common, nearly, rare])
    found = chance.matrix()
    for i, j in zip(*np.nonzero(~np.eye(3, dtype=bool)), strict=True):
        assert found[i, j] == pytest.approx(ChanceOverlap([common, nearly, rare]).of(i, j), abs=1e-5)
    # 99 of the 120 common features, and as large a share of the rare ones among them.
    assert found[2, 1] == pytest.approx(0.825, abs=0.02)


def test_what_the_smaller_has_in_the_larger_is_symmetric_where_both_are_equally_large():
    one, other = Footprints.of([[1, 2, 3], [4]]), Footprints.of([[3, 4], [5, 6]])
    rest = Footprints.of([[1, 2, 9], [1, 5], [3, 8], [7]])
    shared = overlaps({"a": one, "b": other, "c": rest})
    assert shared.size_B[0] == shared.size_B[1] < shared.size_B[2]
    assert shared.chance[0, 1] != pytest.approx(shared.chance[1, 0])
    for smaller, either in ((shared.excess_smaller, shared.excess), (shared.chance_smaller, shared.chance)):
        np.testing.assert_array_equal(smaller[~np.eye(3, dtype=bool)], smaller.T[~np.eye(3, dtype=bool)])
        assert smaller[0, 1] == pytest.approx((either[0, 1] + either[1, 0]) / 2)
        assert smaller[2, 0] == either[0, 2]
        assert smaller[1, 2] == either[1, 2]


def test_the_subsets_of_all_sizes_are_those_built_one_by_one(mixed):
    part = mixed["part"]
    one = measure("b", part, subsets=[0.5, 0.05, 0.2], draws=0, seed=4)
    assert [subset.share for subset in one.subsets] == [0.5, 0.05, 0.2]
    for subset in (*one.subsets, one.tenth):
        alone = greedy_subset(part, subset.items, 4)
        assert subset.chosen == tuple(alone.tolist())
        assert subset.covered == covered_share(part, alone)
    assert (one.tenth.share, one.tenth.items) == (0.1, 6)
