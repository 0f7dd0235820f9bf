"""Intervals against values worked out by hand, and against slower ways to the same number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.classification.scores import f1_difference, f1_of, f1_score, measure

POSITIVE = np.array([True] * 6 + [False] * 4)
SAID = np.array([True] * 4 + [False] * 2 + [True] * 1 + [False] * 3)


def test_f1_by_hand() -> None:
    assert f1_score(SAID, POSITIVE) == pytest.approx(2 * 4 / (2 * 4 + 1 + 2))
    assert f1_of(0, 0, 0) == 0.0
    assert f1_score(np.zeros(10, bool), POSITIVE) == 0.0


def test_measures_by_hand() -> None:
    scores = np.array([9, 8, 7, 6, 0, 0, 6.5, 0, 0, 0.0])
    found = measure(scores, SAID, POSITIVE, np.array([0.0, 0, 0, 6.9]), [0.25, 0.5], draws=500, seed=1)
    assert (found.precision.value, found.precision.n) == (4 / 5, 5)
    assert (found.recall.value, found.recall.n) == (4 / 6, 6)
    assert (found.false_positives.value, found.false_positives.n) == (1 / 4, 4)
    assert (found.accuracy.value, found.accuracy.n) == (7 / 10, 10)
    # Of 24 pairs: 9, 8, 7 win all four; 6 loses to 6.5; both zeros lose to it and tie with three.
    assert found.auc.value == pytest.approx((12 + 3 + 2 * 1.5) / 24)
    one, other = found.held
    assert (one.threshold, one.calibrated) == (0.0, 0.25)
    assert (one.recall.value, one.false_positives.value) == (4 / 6, 1 / 4)
    assert other.threshold == 0.0
    (tight,) = measure(scores, SAID, POSITIVE, np.array([0.0, 0, 0, 6.9]), [0.1], draws=100, seed=1).held
    assert (tight.threshold, tight.calibrated) == (6.9, 0.0)
    assert (tight.recall.value, tight.false_positives.value) == (3 / 6, 0.0)


def test_bootstrap_of_f1_equals_drawing_texts() -> None:
    random = np.random.default_rng(0)
    truth = random.random(300) < 0.4
    said = np.where(random.random(300) < 0.8, truth, ~truth)
    found = measure(said.astype(float), said, truth, np.zeros(3), [], draws=20000, seed=3).f1
    drawn = [f1_score(said[rows], truth[rows]) for rows in (random.integers(0, 300, 300) for _ in range(4000))]
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.006)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.006)
    assert found.value == f1_score(said, truth)


@pytest.mark.slow
def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    # Precision and recall 0.8 at even classes: F1 of the population is 0.8.
    random = np.random.default_rng(5)
    inside = 0
    for draw in range(300):
        truth = random.random(400) < 0.5
        said = np.where(random.random(400) < 0.8, truth, ~truth)
        found = measure(said.astype(float), said, truth, np.zeros(3), [], draws=400, seed=draw).f1
        inside += found.low <= 0.8 <= found.high
    assert 0.91 <= inside / 300 <= 0.985


def test_difference_is_paired() -> None:
    random = np.random.default_rng(1)
    truth = random.random(400) < 0.5
    one = np.where(random.random(400) < 0.75, truth, ~truth)
    other = one.copy()
    other[:8] = truth[:8]
    assert f1_difference(one, one, truth, draws=500, seed=0).high == 0.0
    found = f1_difference(other, one, truth, draws=5000, seed=0)
    assert found.value == pytest.approx(f1_score(other, truth) - f1_score(one, truth))
    drawn = []
    for _ in range(2000):
        rows = random.integers(0, 400, 400)
        drawn.append(f1_score(other[rows], truth[rows]) - f1_score(one[rows], truth[rows]))
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.003)
    # Two samples of this size by themselves would not tell them apart.
    assert found.high - found.low < 0.03


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_intervals_hold_the_number(pairs) -> None:
    said, truth = (np.array(column) for column in zip(*pairs, strict=True))
    if truth.all() or not truth.any():
        return
    found = measure(said.astype(float), said, truth, np.zeros(2), [0.05], draws=200, seed=0)
    for one in (found.recall, found.false_positives, found.accuracy):
        assert one.low <= one.value <= one.high
    assert 0 <= found.f1.low <= found.f1.high <= 1
