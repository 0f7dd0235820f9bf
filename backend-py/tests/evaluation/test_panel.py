"""Agreement of a panel with itself and with others, against the definitions."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qscope.evaluation.panel import (
    bootstrap_interval,
    pairs_among,
    partial,
    pearson,
    ranking_kept,
    ranks,
    redundancy,
    spearman,
    subset_sizes,
    tau_b,
)

SCORES = st.lists(st.integers(0, 4), min_size=2, max_size=8)


def tau_by_pairs(first, second) -> float:
    pairs = [
        (np.sign(first[i] - first[j]), np.sign(second[i] - second[j])) for i, j in combinations(range(len(first)), 2)
    ]
    size = math.sqrt(sum(a != 0 for a, _ in pairs) * sum(b != 0 for _, b in pairs))
    return sum(a * b for a, b in pairs) / size if size else 0.0


@given(SCORES, st.data())
def test_tau_b_counts_pairs(first, data) -> None:
    others = data.draw(st.lists(st.lists(st.integers(0, 4), min_size=len(first), max_size=len(first)), min_size=1))
    found = tau_b(np.array(first, float), np.array(others, float))
    assert found == pytest.approx([tau_by_pairs(first, other) for other in others])


@given(st.lists(st.integers(-3, 3), min_size=1))
def test_ranks_share_their_mean(values) -> None:
    found = ranks(np.array(values))
    for value, rank in zip(values, found, strict=True):
        below, equal = sum(v < value for v in values), values.count(value)
        assert rank == below + (equal + 1) / 2


def test_nan_has_no_rank() -> None:
    with pytest.raises(AssertionError, match="NaN has no rank"):
        ranks(np.array([1.0, math.nan, 2.0]))


def test_correlations_by_hand() -> None:
    # Anscombe's first quartet: 0.81642.
    x = np.array([10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5], float)
    y = np.array([8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68])
    assert pearson(x, y) == pytest.approx(0.81642, abs=1e-5)
    assert spearman(x, y) == pytest.approx(0.81818, abs=1e-5)
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert math.isnan(pearson(x, np.ones(11)))


def test_partial_correlation_is_that_of_the_residuals() -> None:
    random = np.random.default_rng(0)
    tide = random.standard_normal(200)
    one, other = tide + random.standard_normal(200), 2 * tide + random.standard_normal(200)

    def without_tide(values):
        design = np.stack([tide, np.ones(200)], 1)
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    expected = pearson(without_tide(one), without_tide(other))
    assert partial(pearson(one, other), pearson(one, tide), pearson(other, tide)) == pytest.approx(expected)
    assert math.isnan(partial(0.5, 1.0, 0.5))


def test_random_subsets_estimate_the_mean_over_all() -> None:
    random = np.random.default_rng(1)
    scores_MN = (random.random((6, 7)) < np.linspace(0.2, 0.8, 6)[:, None]).astype(float)
    found = ranking_kept(scores_MN, range(1, 8), draws=4000, seed=0)
    whole = scores_MN.mean(1).round(9)
    for size in range(1, 8):
        every = [
            tau_by_pairs(whole, scores_MN[:, list(some)].mean(1).round(9)) for some in combinations(range(7), size)
        ]
        assert found[:, size - 1].mean() == pytest.approx(np.mean(every), abs=0.02)
    mean, error = redundancy(scores_MN, draws=400)
    assert mean == pytest.approx(found.mean(), abs=4 * error + 0.01)
    assert 0 < error < 0.05


def test_copies_of_one_item_are_wholly_redundant() -> None:
    item_M = np.array([[0.0], [1.0], [1.0], [0.0]])
    assert redundancy(np.repeat(item_M, 50, axis=1), draws=5)[0] == pytest.approx(1.0)


def test_without_a_ranking_there_is_nothing_to_keep() -> None:
    assert all(map(math.isnan, redundancy(np.ones((4, 9)), draws=5)))
    # The same accuracy by different items is no ranking either.
    assert all(map(math.isnan, redundancy(np.eye(4), draws=5)))
    # A subset that ranks nobody counts as 0: one item of two tells nothing here.
    mean, _ = redundancy(np.array([[0.0, 1.0], [0.0, 0.0]]), draws=200)
    assert mean == pytest.approx(0.75, abs=0.05)


def test_sizes_are_dense_where_small() -> None:
    assert subset_sizes(5).tolist() == [1, 2, 3, 4, 5]
    sizes = subset_sizes(10_000)
    assert (sizes[0], sizes[-1]) == (1, 10_000)
    assert (np.diff(sizes) > 0).all()
    assert len(sizes) <= 40


def test_an_interval_covers_its_statistic_and_knows_when_there_is_none() -> None:
    random = np.random.default_rng(2)
    x = random.standard_normal(60)
    y = x + random.standard_normal(60)
    low, high = bootstrap_interval(lambda drawn: spearman(x[drawn], y[drawn]), 60)
    assert low < spearman(x, y) < high
    none = [
        bootstrap_interval(lambda drawn: math.nan, 60, draws=20),
        # Five units, and draws of which more than one in twenty has no value.
        bootstrap_interval(lambda drawn: float(drawn.sum()), 5, draws=20),
        bootstrap_interval(lambda drawn: math.nan if 0 in drawn else 1.0, 6, draws=200),
    ]
    assert all(math.isnan(end) for interval in none for end in interval)


def test_intervals_over_pairs_draw_benchmarks() -> None:
    """Twelve benchmarks with a value each; a pair shares its two. Pairs are no 66 independent things."""
    random = np.random.default_rng(3)
    misses = {"pairs": 0, "benchmarks": 0}
    for trial in range(60):
        one_B, other_B = random.standard_normal((2, 12))
        first = one_B[:, None] + one_B
        second = other_B[:, None] + other_B

        def over(a, b, first=first, second=second):
            return pearson(first[a, b], second[a, b])

        a, b = np.triu_indices(12, 1)
        intervals = {
            "pairs": bootstrap_interval(lambda drawn, a=a, b=b: over(a[drawn], b[drawn]), 66, draws=200, seed=trial),
            "benchmarks": bootstrap_interval(lambda drawn: over(*pairs_among(drawn)), 12, draws=200, seed=trial),
        }
        for name, (low, high) in intervals.items():
            misses[name] += not low <= 0 <= high
    # True is 0: an interval of 95 % should miss it 3 times of 60.
    assert misses["pairs"] > 20
    assert misses["benchmarks"] < 13


def test_pairs_among_drawn_benchmarks_are_of_distinct_ones() -> None:
    one, other = pairs_among(np.array([2, 0, 2]))
    assert list(zip(one.tolist(), other.tolist(), strict=True)) == [(2, 0), (0, 2)]


def test_every_order_of_three_models() -> None:
    for order in permutations([1.0, 2.0, 3.0]):
        (found,) = tau_b(np.array([1.0, 2.0, 3.0]), np.array([order]))
        assert found == pytest.approx(tau_by_pairs([1.0, 2.0, 3.0], order))
