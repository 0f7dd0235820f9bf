"""Intervals and numbers of observations against published values and the equations they solve."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from qscope.features.intervals import needed_per_arm, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # z^2 / (n + z^2) by hand.
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson_as_published(hits, n, low, high) -> None:
    found = wilson(hits, n)
    assert (found.value, found.n) == (hits / n, n)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_wilson_of_nothing() -> None:
    assert math.isnan(wilson(0, 0).value)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_equation(case) -> None:
    hits, n = case
    found = wilson(hits, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in {found.low, found.high} - {0.0, 1.0}:
        # The ends are the shares from which what was seen is 1.96 standard errors away.
        assert abs(found.value - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / n), rel=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "power", "n"),
    [
        # R, ?power.prop.test: n = 76.7.
        (0.50, 0.75, 0.90, 77),
        # A code-switching ratio of 0.8 % that falls by 70 %.
        (0.008, 0.0024, 0.80, 2589),
        (0.05, 0.10, 0.80, 435),
        (0.0, 1.0, 0.80, 2),
    ],
)
def test_observations_needed_as_published(one, other, power, n) -> None:
    assert needed_per_arm(one, other, power=power) == n
    assert needed_per_arm(other, one, power=power) == n
    assert needed_per_arm(1 - one, 1 - other, power=power) == n


@given(st.integers(0, 1000), st.integers(0, 1000), st.sampled_from([0.5, 0.8, 0.9, 0.99]))
def test_observations_needed_are_the_fewest_that_have_the_power(one, other, power) -> None:
    if one == other:
        with pytest.raises(ValueError):
            needed_per_arm(one / 1000, other / 1000)
        return
    one, other = one / 1000, other / 1000
    n = needed_per_arm(one, other, power=power)

    def power_at(count: float) -> float:
        """By what the test does: how often a difference lands beyond 1.96 standard errors under no difference."""
        mean = (one + other) / 2
        null = math.sqrt(2 * mean * (1 - mean) / count)
        spread = math.sqrt((one * (1 - one) + other * (1 - other)) / count)
        beyond = abs(one - other) - norm.ppf(0.975) * null
        return norm.cdf(beyond / spread) if spread else float(beyond >= 0)

    assert power_at(n) >= power - 1e-9
    assert power_at(n - 1) < power or n == 1
