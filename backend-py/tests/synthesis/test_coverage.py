"""Coverage against counting by hand and against every possible draw."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.synthesis.coverage import TargetSet, coverage_in_order, coverage_of_draws, texts_needed
from qscope.synthesis.fired import STRIDE, key_of_feature

TEXTS = st.lists(st.lists(st.integers(0, 11), max_size=5), min_size=1, max_size=6)


def arrays(texts):
    return [np.unique(np.array(text, dtype=np.int64)) for text in texts]


def test_memory_goes_by_features_and_not_by_how_they_are_numbered() -> None:
    import tracemalloc

    # The last feature of layer 63.
    high = key_of_feature(63, STRIDE - 1)
    targets = TargetSet.of([1, high], [False, False])
    tracemalloc.start()
    drawn = coverage_of_draws(targets, arrays([[1], [high]]), [1, 2], draws=4, seed=0)
    assert texts_needed(targets, arrays([[1], [high]]), 1.0) == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn.mean_S.tolist() == pytest.approx([0.5, 1.0])
    assert peak < 1 << 20


def test_by_hand() -> None:
    # Five targets, of which the seed data covers 7; 99 is none of them.
    targets = TargetSet.of([7, 1, 2, 3, 4], [True, False, False, False, False])
    texts = arrays([[1, 99], [1, 7], [2, 3], []])
    assert targets.seed_coverage == pytest.approx(0.2)
    assert coverage_in_order(targets, texts).tolist() == pytest.approx([0.2, 0.4, 0.4, 0.8, 0.8])
    drawn = coverage_of_draws(targets, texts, [0, 1, 2, 4, 9], draws=10, seed=0)
    assert drawn.size_S.tolist() == [0, 1, 2, 4]
    # One of four texts: 1 in two of them, 2 and 3 in one: (1 + (0.5 + 0.25 + 0.25)) / 5.
    assert drawn.mean_S[1] == pytest.approx(2 / 5)
    # Two of four: 1 is missed by one of six pairs, 2 and 3 by three of six: (1 + 5/6 + 1/2 + 1/2) / 5.
    assert drawn.mean_S[2] == pytest.approx((1 + 5 / 6 + 1) / 5)
    assert (drawn.mean_S[0], drawn.sd_S[0]) == (pytest.approx(0.2), 0)
    assert (drawn.mean_S[-1], drawn.sd_S[-1]) == (pytest.approx(0.8), pytest.approx(0, abs=1e-12))
    assert texts_needed(targets, texts, 0.4) == 1
    assert texts_needed(targets, texts, 0.41) == 2
    assert texts_needed(targets, texts, 0.8) == 4
    assert texts_needed(targets, texts, 0.81) is None
    assert texts_needed(targets, texts, 0.1) == 0


@given(texts=TEXTS, covered=st.sets(st.integers(0, 8)))
@settings(max_examples=150, deadline=None)
def test_expected_coverage_is_the_mean_over_every_draw(texts, covered) -> None:
    targets = TargetSet.of(range(8), [key in covered for key in range(8)])
    pool = arrays(texts)
    sizes = range(len(pool) + 1)
    drawn = coverage_of_draws(targets, pool, sizes, draws=2, seed=1)
    for size in sizes:
        every = [
            len((covered & set(range(8))) | {key for one in chosen for key in one.tolist() if key < 8}) / 8
            for chosen in itertools.combinations(pool, size)
        ]
        assert drawn.mean_S[size] == pytest.approx(np.mean(every))


@given(texts=TEXTS, covered=st.sets(st.integers(0, 8)), more=st.lists(st.integers(0, 11), max_size=5))
@settings(max_examples=150, deadline=None)
def test_coverage_never_falls_and_ends_at_the_union(texts, covered, more) -> None:
    targets = TargetSet.of(range(8), [key in covered for key in range(8)])
    pool = arrays(texts)
    curve = coverage_in_order(targets, pool)
    assert (np.diff(curve) >= 0).all()
    assert curve[0] == targets.seed_coverage
    everything = set(covered) | {key for text in texts for key in text}
    assert curve[-1] == pytest.approx(len(everything & set(range(8))) / 8)
    drawn = coverage_of_draws(targets, pool, range(len(pool) + 1), draws=3, seed=0)
    assert (np.diff(drawn.mean_S) >= -1e-12).all()
    assert drawn.mean_S[-1] == pytest.approx(curve[-1])
    # A text more covers no less.
    assert coverage_in_order(targets, [*pool, *arrays([more])])[-1] >= curve[-1]
    needed = texts_needed(targets, pool, float(curve[-1]))
    assert needed is not None
    assert drawn.mean_S[needed] == pytest.approx(curve[-1])


def test_the_spread_is_that_of_the_draws() -> None:
    # One text of ten covers the only target: a draw of n = 5 covers it half of the time.
    targets = TargetSet.of([1], [False])
    pool = arrays([[1], *[[2]] * 9])
    drawn = coverage_of_draws(targets, pool, [5], draws=4000, seed=3)
    assert drawn.mean_S[0] == pytest.approx(0.5)
    assert drawn.sd_S[0] == pytest.approx(0.5, abs=0.01)
    # Of four targets it is a quarter of that.
    quarter = coverage_of_draws(TargetSet.of([1, 7, 8, 9], [False] * 4), pool, [5], draws=4000, seed=3)
    assert quarter.sd_S[0] == pytest.approx(0.125, abs=0.003)


def test_nothing_to_cover() -> None:
    assert math.isnan(TargetSet.of([], []).seed_coverage)
    targets = TargetSet.of([5], [False])
    drawn = coverage_of_draws(targets, arrays([[1], []]), [0, 1, 2], draws=2, seed=0)
    assert drawn.mean_S.tolist() == [0, 0, 0]
    assert coverage_in_order(targets, []).tolist() == [0]
    assert texts_needed(targets, arrays([[1]]), 0.5) is None
