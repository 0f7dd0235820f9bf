"""Stability of R-hat: the same story, a reversed one, and one of size alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qscope.evaluation.panel import spearman
from qscope.evaluation.redundancy import r_hat
from qscope.evaluation.stability import matched_items, matched_size, r_hat_matched, stability
from qscope.features.footprints import Footprints
from tests.evaluation.conftest import random_benchmark


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


def test_matched_sizes_and_halves_are_those_of_the_items_taken_one_by_one():
    """Counted within the whole benchmark; here each subset is taken out of it and measured by itself."""
    suite = {f"b{n}": random_benchmark(n, 30 + 15 * n, range(50 + 40 * n), 5) for n in range(5)}
    draws, seed = 6, 3
    chosen = matched_items(suite, draws=draws, seed=seed)
    plain = [np.mean([r_hat(part.take(some)) for some in chosen[name]]) for name, part in suite.items()]
    np.testing.assert_allclose(r_hat_matched(suite, draws=draws, seed=seed), plain)
    found = stability({(1, "x"): suite}, (1, "x"), draws=draws, seed=seed)
    for mean, size in ((found.halves, 0), (found.halves_matched, found.matched_items // 2)):
        random, by_draw = np.random.default_rng(seed), []
        for _ in range(draws):
            orders = {name: random.permutation(part.items) for name, part in suite.items()}
            one, other = (
                [
                    r_hat(part.take(orders[name][side * half : (side + 1) * half]))
                    for name, part in suite.items()
                    for half in [size or part.items // 2]
                ]
                for side in (0, 1)
            )
            by_draw.append(spearman(np.array(one), np.array(other)))
        assert mean == pytest.approx(np.mean(by_draw))


def test_small_benchmarks_have_no_equal_size():
    suite = {f"b{n}": random_benchmark(n, 8 + 2 * n, range(100), 5) for n in range(4)}
    found = stability({(1, "x"): suite}, (1, "x"), draws=5, seed=1)
    assert found.matched_items == 0
    assert math.isfinite(found.halves)
    assert math.isnan(found.halves_matched)
    assert math.isnan(found.halves_matched_sd)


def test_two_benchmarks_cannot_agree_by_rank():
    suite = {name: Footprints.of([[1], [2]]) for name in "ab"}
    found = stability({(1, "x"): suite, (2, "x"): suite}, (1, "x"), draws=3, seed=0)
    assert math.isnan(found.others[0].r_hat)
    assert all(map(math.isnan, (found.items, found.halves, found.halves_matched)))
    assert found.matched_items == 0
