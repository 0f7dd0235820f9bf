"""The exact formulas against what they stand for, by going through every subset."""

from __future__ import annotations

import math
from itertools import combinations
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.evaluation import overlap as overlap_module
from qscope.evaluation.overlap import overlap, overlap_min, shared_features
from qscope.evaluation.redundancy import coverage_auc, drawn_auc, r_hat
from qscope.evaluation.subsets import covered_share, greedy_subset
from qscope.features.coverage import coverage_curve, drawn_curves
from qscope.features.footprints import Footprints

ROWS = st.lists(st.lists(st.integers(0, 11), max_size=6), min_size=1, max_size=7)


def by_every_subset(rows: list[list[int]]) -> list[float]:
    """c_1 ... c_N by their definition."""
    whole = set().union(*map(set, rows))
    curve = []
    for size in range(1, len(rows) + 1):
        sizes = [len(set().union(*map(set, chosen))) for chosen in combinations(rows, size)]
        curve.append(sum(sizes) / len(sizes) / len(whole))
    return curve


@settings(max_examples=200, deadline=None)
@given(ROWS.filter(lambda rows: any(rows)))
def test_closed_forms_equal_every_subset(rows) -> None:
    footprints = Footprints.of(rows)
    expected = by_every_subset(rows)
    features = len(set().union(*map(set, rows)))
    assert coverage_curve(footprints) == pytest.approx(expected, abs=1e-12)
    assert coverage_auc(footprints) == pytest.approx(sum(expected) / len(rows))
    assert r_hat(footprints) == pytest.approx(sum(expected) / features)
    lowest, highest = (len(rows) + 1) / (2 * features), (len(rows) + 1) / features
    assert lowest - 1e-12 <= r_hat(footprints) < highest


@given(st.integers(1, 40), st.integers(1, 20))
def test_identical_items_give_items_over_features(items, features) -> None:
    footprints = Footprints.of([list(range(features))] * items)
    assert r_hat(footprints) == pytest.approx(items / features)
    assert coverage_curve(footprints) == pytest.approx(np.ones(items))


def test_random_orders_agree_with_the_exact_curve() -> None:
    random = np.random.default_rng(0)
    footprints = Footprints.of([random.zipf(1.3, 30).clip(max=5000) for _ in range(400)])
    exact = coverage_curve(footprints)
    curves = np.stack(list(drawn_curves(footprints, 300, seed=1)))
    mean, error = curves.mean(0), curves.std(0, ddof=1) / math.sqrt(300)
    away = np.abs(mean - exact)[:-1] / np.maximum(error[:-1], 1e-12)
    assert np.quantile(away, 0.95) < 3.5
    assert mean[-1] == exact[-1] == 1.0
    drawn, spread = drawn_auc(footprints, 300, seed=1)
    assert drawn == pytest.approx(mean.mean())
    assert abs(drawn - coverage_auc(footprints)) < 4 * spread


def test_large_counts_lose_no_digits() -> None:
    """100,000 items: the curve at single sizes, against exact integers."""
    N, counts = 100_000, [1, 3, 500, 99_999, 100_000]
    rows = Footprints(np.arange(N + 1) * 0, np.zeros(0, np.int64))
    object.__setattr__(rows, "features_U", np.arange(len(counts)))
    object.__setattr__(rows, "count_U", np.array(counts))
    for size in (1, 2, 1000, 50_000, 99_999, 100_000):
        exact = (
            1
            - sum(math.comb(N - m, size) / math.comb(N, size) if size <= 1000 else _ratio(N, m, size) for m in counts)
            / 5
        )
        assert coverage_curve(rows, [size])[0] == pytest.approx(exact, abs=1e-9)


def _ratio(N: int, m: int, size: int) -> float:
    """C(N - m, size) / C(N, size) as a product of m factors."""
    return math.prod((N - size - i) / (N - i) for i in range(m)) if size <= N - m else 0.0


def test_nothing_active_has_no_value() -> None:
    empty = Footprints.of([[], []])
    assert math.isnan(r_hat(empty))
    assert math.isnan(coverage_auc(empty))
    assert np.isnan(coverage_curve(empty)).all()


@given(ROWS, st.data())
def test_footprints_are_the_sets_of_their_rows(rows, data) -> None:
    footprints = Footprints.of(rows)
    assert footprints.items == len(rows)
    assert footprints.features_U.tolist() == sorted(set().union(*map(set, rows)))
    for slot, feature in enumerate(footprints.features_U):
        assert footprints.items_of(slot).tolist() == [i for i, row in enumerate(rows) if feature in row]
        assert footprints.count_U[slot] == sum(feature in row for row in rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9))
    taken = footprints.take(chosen)
    assert taken.items == len(chosen)
    for place, item in enumerate(chosen):
        mine = taken.feature_P[taken.offset_N[place] : taken.offset_N[place + 1]]
        assert mine.tolist() == sorted(set(rows[item]))
        assert footprints.features_U[footprints.slots_of(item)].tolist() == sorted(set(rows[item]))
    subsets = [np.unique(np.array(chosen, dtype=np.int64)), np.arange(len(rows)), np.zeros(0, np.int64)]
    for some, count_U in zip(subsets, footprints.counts_among(subsets), strict=True):
        assert count_U.tolist() == [sum(f in rows[item] for item in some) for f in footprints.features_U]


@pytest.mark.parametrize("at_once", [overlap_module._FEATURES_AT_ONCE, 3])
@given(benchmarks=st.lists(ROWS, min_size=1, max_size=4))
def test_overlaps_are_those_of_the_unions(benchmarks, at_once) -> None:
    with mock.patch.object(overlap_module, "_FEATURES_AT_ONCE", at_once):
        _check_overlaps(benchmarks)


def _check_overlaps(benchmarks: list[list[list[int]]]) -> None:
    unions = [set().union(*map(set, rows)) for rows in benchmarks]
    shared = shared_features([Footprints.of(rows) for rows in benchmarks])
    for i, one in enumerate(unions):
        for j, other in enumerate(unions):
            assert shared[i, j] == len(one & other)
            expected = len(one & other) / len(one) if one else math.nan
            assert overlap(shared)[i, j] == pytest.approx(expected, nan_ok=True)
            smaller = min(len(one), len(other))
            expected = len(one & other) / smaller if smaller else math.nan
            assert overlap_min(shared)[i, j] == pytest.approx(expected, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(ROWS.filter(lambda rows: any(rows)), st.integers(0, 3))
def test_greedy_takes_the_largest_gain_each_time_and_keeps_its_bound(rows, seed) -> None:
    footprints = Footprints.of(rows)
    chosen = greedy_subset(footprints, len(rows), seed).tolist()
    assert sorted(chosen) == list(range(len(rows)))
    covered: set[int] = set()
    for place, item in enumerate(chosen):
        gains = [len(set(rows[other]) - covered) for other in chosen[place:]]
        assert gains[0] == max(gains)
        covered |= set(rows[item])
    for size in range(1, len(rows) + 1):
        best = max(len(set().union(*map(set, some))) for some in combinations(rows, size))
        whole = len(footprints.features_U)
        assert covered_share(footprints, np.array(chosen[:size])) >= (1 - 1 / math.e) * best / whole - 1e-12
    assert greedy_subset(footprints, 1, seed)[0] == chosen[0]


def plain_greedy(rows: list[list[int]], size: int, seed: int) -> list[int]:
    """Every gain counted anew each time, over all items."""
    tie = np.random.default_rng(seed).permutation(len(rows)).tolist()
    chosen: list[int] = []
    for _ in range(size):
        covered = set().union(*(rows[item] for item in chosen))
        left = [item for item in range(len(rows)) if item not in chosen]
        chosen.append(max(left, key=lambda item: (len(set(rows[item]) - covered), tie[item])))
    return chosen


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), max_size=6), min_size=1, max_size=25), st.integers(0, 9), st.data())
def test_greedy_chooses_what_counting_everything_anew_chooses(rows, seed, data) -> None:
    size = data.draw(st.integers(0, len(rows)))
    assert greedy_subset(Footprints.of(rows), size, seed).tolist() == plain_greedy(rows, size, seed)


def test_ties_fall_differently_by_seed() -> None:
    same = Footprints.of([[1, 2]] * 50)
    assert len({int(greedy_subset(same, 1, seed)[0]) for seed in range(30)}) > 10
