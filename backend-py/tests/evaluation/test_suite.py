"""A suite of benchmarks: golden values by hand, agreement, and the advice that follows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.evaluation.overlap import ChanceOverlap
from qscope.evaluation.subsets import covered_share, greedy_subset
from qscope.evaluation.suite import (
    Ending,
    advise,
    matched_items,
    matched_size,
    measure,
    overlaps,
    r_hat_matched,
    stability,
    twins_of,
)
from qscope.features.footprints import Footprints


def random_benchmark(seed: int, items: int, pool: range, per_item: int) -> Footprints:
    noise = np.random.default_rng(seed)
    return Footprints.of([noise.choice(np.array(pool), per_item, replace=False) for _ in range(items)])


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


def test_the_same_story_agrees_and_a_reversed_one_does_not():
    # More items from one pool repeat themselves more.
    suite = {f"b{n}": random_benchmark(n, 40 + 20 * n, range(100), 5) for n in range(5)}
    backwards = {f"b{n}": random_benchmark(n, 120 - 20 * n, range(100), 5) for n in range(5)}
    found = stability({(1, "x"): suite, (2, "x"): suite, (3, "y"): backwards}, (1, "x"), draws=10, seed=1)
    one, other = found.others
    assert [(one.layer, one.rule), (other.layer, other.rule)] == [(2, "x"), (3, "y")]
    assert (one.r_hat, one.r_hat_matched, one.overlap) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert other.r_hat == pytest.approx(-1)
    assert (found.matched_items, found.draws) == (40, 10)
    assert found.halves > 0.9
    assert found.halves_sd < 0.2


def test_size_alone_is_no_stability():
    """Benchmarks alike in all but their number of items."""
    suite = {f"b{n}": random_benchmark(n, 20 * 2**n, range(3000), 5) for n in range(7)}
    found = stability({(1, "x"): suite}, (1, "x"), draws=20, seed=1)
    assert found.items > 0.9
    assert found.halves > 0.9
    assert abs(found.halves_matched) < 0.4
    varied = {f"b{n}": random_benchmark(n, 200, range(20 * 2**n), 5) for n in range(7)}
    assert stability({(1, "x"): varied}, (1, "x"), draws=20, seed=1).halves_matched > 0.9


def test_matched_items_are_the_same_at_every_layer_and_leave_small_benchmarks_out():
    sizes = {"a": 50, "b": 19, "c": 30}
    suite, other = ({name: random_benchmark(seed, n, range(99), 5) for name, n in sizes.items()} for seed in (0, 1))
    assert matched_size(suite) == 30
    found, again = (matched_items(one, draws=3, seed=2) for one in (suite, other))
    assert [len(found[name]) for name in sizes] == [3, 0, 3]
    assert all(len(set(some.tolist())) == 30 for name in sizes for some in found[name])
    for name in sizes:
        np.testing.assert_array_equal(found[name], again[name])
    assert math.isnan(r_hat_matched(suite, draws=3, seed=2)[1])


def test_two_benchmarks_cannot_agree_by_rank():
    suite = {name: Footprints.of([[1], [2]]) for name in "ab"}
    found = stability({(1, "x"): suite, (2, "x"): suite}, (1, "x"), draws=3, seed=0)
    assert math.isnan(found.others[0].r_hat)
    assert all(map(math.isnan, (found.items, found.halves, found.halves_matched)))
    assert found.matched_items == 0


def advised(suite, others=(), endings=None):
    measures = [measure(name, part, subsets=[], draws=0, seed=0) for name, part in suite.items()]
    return {one.name: one for one in advise(measures, overlaps(suite), others, endings)}


@pytest.fixture
def mixed() -> dict[str, Footprints]:
    """Three benchmarks from overlapping pools, and a fourth whose features are all in one of them."""
    suite = {f"b{n}": random_benchmark(n, 150, range(300 * n, 300 * n + 600), 8) for n in range(3)}
    return {**suite, "part": random_benchmark(9, 60, range(120), 8)}


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


def test_unrelated_benchmarks_share_what_chance_gives():
    """Draws from one pool that nearly fill it: they overlap by more than 80 %, and mean nothing by it."""
    suite = {f"b{n}": random_benchmark(n, 60 + 20 * n, range(200), 8) for n in range(6)}
    shared = overlaps(suite)
    off = ~np.eye(6, dtype=bool)
    assert shared.smaller[off].min() > 0.8
    assert np.abs(shared.directed - shared.chance)[off].max() < 0.06
    assert {one.verdict for one in advised(suite).values()}.isdisjoint({"merge"})


def test_a_part_of_another_is_to_be_merged_and_its_container_is_not_extended(mixed):
    found = advised(mixed)
    assert found["part"].verdict == "merge"
    assert found["part"].reason.endswith(" of its features are active in b0 (0% by chance)")
    # Most features of the containers are their own, and yet the suite has something of their kind.
    alone = {"large": mixed["b0"], "small": random_benchmark(5, 60, range(60), 8)}
    alone |= {f"far{n}": random_benchmark(n, 100, range(2000, 2400), 8) for n in range(3)}
    shared = overlaps(alone)
    assert shared.elsewhere[0] < 0.25
    found = advised(alone)
    assert (found["small"].verdict, found["large"].verdict) == ("merge", "keep")


def test_a_benchmark_unlike_all_others_asks_for_more_of_its_kind(mixed):
    found = advised({**mixed, "own": random_benchmark(7, 60, range(5000, 5400), 8)})
    assert found["own"].verdict == "extend"
    assert found["own"].reason.startswith("the suite has nothing else of its kind")
    assert [name for name, one in found.items() if one.verdict == "extend"] == ["own"]


def test_other_layers_and_rules_have_to_say_so_too(mixed):
    far = {**mixed, "part": random_benchmark(9, 60, range(7000, 7120), 8)}
    assert advised(mixed, [mixed, far])["part"].verdict == "merge"
    assert "so at 1 of 2 other layers and rules" in advised(mixed, [mixed, far])["part"].reason
    doubted = advised(mixed, [mixed, far, far])["part"]
    assert doubted.verdict != "merge"


def test_an_ending_in_common_is_told_from_what_is_asked():
    far = {f"far{n}": random_benchmark(20 + n, 60, range(9000 * n + 9000, 9000 * n + 9600), 8) for n in range(8)}
    host, part = random_benchmark(0, 400, range(600), 8), random_benchmark(9, 60, range(120), 8)

    def verdict(third: Footprints, share: float = 0.95, **texts: str):
        suite = {"host": host, "part": part, "alike": third, **far}
        return advised(suite, endings={name: Ending(texts.get(name, name), share) for name in suite})["part"]

    # A third that ends so has the features of the part as well: it is the ending that they share.
    same = random_benchmark(8, 60, range(120), 8)
    assert verdict(same).verdict == "merge"
    assert "end in" not in verdict(same).reason
    assert verdict(same, part="?", host="?", alike="?").verdict != "merge"
    assert verdict(same, share=0.89, part="?", host="?", alike="?").verdict == "merge"
    # One that ends so and has other features: it is more than the ending.
    other = verdict(random_benchmark(8, 60, range(8000, 8400), 8), part="?", host="?", alike="?")
    assert other.verdict == "merge"
    assert other.reason.endswith("; 0% by chance among those that end in '?' too")
    # None that ends so: nothing tells.
    alone = verdict(same, part="?", host="?")
    assert alone.verdict == "unknown"
    assert "both end in '?' and no other benchmark does" in alone.reason


def test_a_tenth_that_keeps_all_is_enough():
    worn = Footprints.of([[*range(100, 110), 900 + n % 2] for n in range(50)])
    found = advised({"worn": worn, **{f"b{n}": random_benchmark(n, 90, range(100, 500), 8) for n in range(3)}})
    assert found["worn"].verdict == "shrink"
    assert found["worn"].reason.startswith("5 of 50 items keep 100% of its features")


def test_what_was_not_measured_is_unknown(mixed):
    varied = Footprints.of([[n] for n in range(20)])
    found = advised({**mixed, "few": random_benchmark(1, 19, range(900), 8), "none": Footprints.of([[]] * 30)})
    assert (found["few"].verdict, found["few"].reason) == ("unknown", "19 items say too little, it takes 20")
    assert (found["none"].verdict, found["none"].reason) == ("unknown", "no item activates a feature")
    assert found["part"].verdict == "merge", "neither is compared with"
    alone = advised({"b": varied})["b"]
    assert alone.verdict == "unknown"
    assert alone.reason.startswith("there is no other benchmark to compare it with; a tenth of its items keeps 10%")
    assert advised({"b": Footprints.of([[1]] * 20)})["b"].verdict == "shrink"
    # Contained in the only other one: without a third nothing says what chance gives.
    two = advised({"b": varied, "c": Footprints.of([[n, n + 20] for n in range(20)])})
    assert two["b"].verdict == "unknown"
    assert "no third benchmark" in two["b"].reason


def test_the_subsets_of_all_sizes_are_those_built_one_by_one(mixed):
    part = mixed["part"]
    one = measure("b", part, subsets=[0.5, 0.05, 0.2], draws=0, seed=4)
    assert [subset.share for subset in one.subsets] == [0.5, 0.05, 0.2]
    for subset in (*one.subsets, one.tenth):
        alone = greedy_subset(part, subset.items, 4)
        assert subset.chosen == tuple(alone.tolist())
        assert subset.covered == covered_share(part, alone)
    assert (one.tenth.share, one.tenth.items) == (0.1, 6)
