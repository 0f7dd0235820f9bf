"""Rates, rules and thresholds against what they stand for, text by text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from qscope.classification.rule import (
    best_features,
    firing_rates,
    jaccard,
    rule_scores,
    tails,
    threshold_at,
)

#: Largest activation of each of five features in six texts; the first four have the attribute.
CODES = np.array(
    [
        [2.0, 0.0, 1.0, 0.0, 0.0],
        [4.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 3.0, 0.0, 0.0, 0.0],
        [6.0, 0.0, 0.0, 0.5, 0.0],
        [1.0, 0.0, 0.0, 0.5, 0.0],
        [0.0, 0.0, 0.0, 0.5, 0.0],
    ]
)
POSITIVE = np.array([True, True, True, True, False, False])
ALL = np.arange(6)


def cases(max_texts: int = 12):
    """Codes (many of them zero, many equal), and labels of both classes."""
    values = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 3.5])

    def of(size):
        texts, features = size
        rows = st.lists(st.lists(values, min_size=features, max_size=features), min_size=texts, max_size=texts)
        labels = st.lists(st.booleans(), min_size=texts, max_size=texts).filter(lambda one: 0 < sum(one) < len(one))
        return st.tuples(rows.map(np.array), labels.map(np.array))

    return st.tuples(st.integers(2, max_texts), st.integers(1, 8)).flatmap(of)


def test_rates_by_hand() -> None:
    rates = firing_rates(sparse.csr_matrix(CODES), ALL, POSITIVE)
    assert rates.positive_F.tolist() == [0.75, 0.25, 0.25, 0.25, 0.0]
    assert rates.negative_F.tolist() == [0.5, 0.0, 0.0, 1.0, 0.0]
    assert rates.delta_F.tolist() == [0.25, 0.25, 0.25, -0.75, 0.0]
    assert (rates.n_positive, rates.n_negative) == (4, 2)
    # Of three equal ones the lowest ids come first.
    assert best_features(rates.delta_F, 2).tolist() == [0, 1]
    assert best_features(rates.delta_F, 99).tolist() == [0, 1, 2, 4, 3]


def test_rates_count_only_the_rows_asked_for() -> None:
    rates = firing_rates(sparse.csr_matrix(CODES), np.array([2, 3, 5]), POSITIVE)
    assert rates.positive_F.tolist() == [0.5, 0.5, 0.0, 0.5, 0.0]
    assert rates.negative_F.tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]


def test_levels_and_thresholds_by_hand() -> None:
    first, second, fourth = tails(sparse.csr_matrix(CODES), ALL, POSITIVE, np.array([0, 1, 3]))
    assert (first.fired_M.tolist(), first.n, first.scale) == ([1.0], 2, 4.0)
    assert (second.fired_M.tolist(), second.scale, fourth.fired_M.tolist()) == ([], 3.0, [0.5, 0.5])
    # One of two texts reaches 0.5 and 1; beyond it, in units of the scale.
    assert first.levels(np.array([0.0, 0.5, 1.0, 5.0])) == pytest.approx([0, 2 / 3, 2 / 3, 2.0])
    assert second.levels(np.array([0.0, 3.0])) == pytest.approx([0, 2.0])
    assert fourth.levels(np.array([0.2, 0.5])) == pytest.approx([1 / 3, 1 / 3])
    assert [fourth.threshold(level) for level in (0, 1 / 3, 0.5)] == [0.0, 0.5, 0.5]
    assert first.threshold(2.0) == pytest.approx(5.0)
    assert rule_scores(CODES[:, [0, 1]], [first, second]) == pytest.approx([1.25, 1.75, 2.0, 2.25, 2 / 3, 0.0])


@settings(max_examples=300, deadline=None)
@given(cases(), st.data())
def test_exceeding_a_threshold_is_having_a_higher_level(case, data) -> None:
    codes_NF, positive_N = case
    codes_NF = codes_NF.astype(np.float32)
    (tail,) = tails(sparse.csr_matrix(codes_NF), np.arange(len(codes_NF)), positive_N, np.array([0]))
    largest_N = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 3.5, 7.0], dtype=np.float32)
    levels_N = tail.levels(largest_N)
    assert (np.diff(levels_N) >= 0).all()
    assert ((levels_N > 0) == (largest_N > 0)).all()
    level = data.draw(st.sampled_from([0.0, *levels_N.tolist(), 0.3, 0.9, 1.7]))
    assert (largest_N > tail.threshold(level)).tolist() == (levels_N > level).tolist()


@settings(max_examples=200, deadline=None)
@given(cases())
def test_rates_and_rule_equal_plain_loops(case) -> None:
    codes_NF, positive_N = case
    rates = firing_rates(sparse.csr_matrix(codes_NF), np.arange(len(codes_NF)), positive_N)
    texts = range(len(codes_NF))
    for feature in range(codes_NF.shape[1]):
        for wanted, found in ((True, rates.positive_F), (False, rates.negative_F)):
            fired = [codes_NF[text, feature] > 0 for text in texts if positive_N[text] == wanted]
            assert found[feature] == pytest.approx(sum(fired) / len(fired), abs=1e-15)
    ranked = sorted(range(codes_NF.shape[1]), key=lambda feature: (-rates.delta_F[feature], feature))
    for count in range(1, codes_NF.shape[1] + 1):
        features_K = best_features(rates.delta_F, count)
        assert features_K.tolist() == ranked[:count]
        found = tails(sparse.csr_matrix(codes_NF), np.arange(len(codes_NF)), positive_N, features_K)
        said_N = rule_scores(codes_NF[:, features_K], found) > 0
        assert said_N.tolist() == [any(codes_NF[text, feature] > 0 for feature in features_K) for text in texts]


@settings(max_examples=200, deadline=None)
@given(cases(), st.floats(0, 3))
def test_more_features_never_take_a_positive_back(case, threshold) -> None:
    codes_NF, positive_N = case
    codes = sparse.csr_matrix(codes_NF)
    features = best_features(firing_rates(codes, np.arange(len(codes_NF)), positive_N).delta_F, codes_NF.shape[1])
    found = tails(codes, np.arange(len(codes_NF)), positive_N, features)
    before = np.zeros(len(codes_NF), bool)
    for count in range(1, len(features) + 1):
        now = rule_scores(codes_NF[:, features[:count]], found[:count]) > threshold
        assert (now | ~before).all()
        before = now


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 2.0]), min_size=1, max_size=60),
    st.floats(0.001, 0.999),
    st.sampled_from([0.0, -np.inf]),
)
def test_a_threshold_holds_its_rate_and_is_the_lowest_that_does(scores, rate, lowest) -> None:
    scores_N = np.array(scores)
    threshold = threshold_at(scores_N, rate, lowest)
    assert threshold >= lowest
    assert (scores_N > threshold).mean() <= rate + 1e-12
    lower = [lowest, *(value for value in scores if value >= lowest)]
    for other in (value for value in lower if value < threshold):
        assert (scores_N > other).mean() > rate


def test_threshold_by_hand() -> None:
    scores = np.array([5.0, 4.0, 4.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert threshold_at(scores, 0.1) == 4.0  # one of ten is above
    assert threshold_at(scores, 0.2) == 4.0  # two would need 4 itself, and that makes three
    assert threshold_at(scores, 0.3) == 1.0
    assert threshold_at(scores, 0.05) == 5.0
    assert threshold_at(scores, 0.9, lowest=0.0) == 0.0


def test_jaccard() -> None:
    assert jaccard([1, 2, 3], [2, 3, 4]) == 0.5
    assert jaccard([], []) == 1.0
    assert jaccard([1], []) == 0.0
