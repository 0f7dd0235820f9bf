"""Repetition: loops against the definition, and shares of known texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.text.loops import Loop, compression, find_loop, repeated_ngrams


def by_definition(ids: list[int], repetitions: int, min_tokens: int) -> Loop | None:
    """The smallest period p for which a tail repeats, checked token by token."""
    for period in range(1, len(ids) // repetitions + 1):
        start = len(ids) - period
        while start > 0 and ids[start - 1] == ids[start - 1 + period]:
            start -= 1
        tail = len(ids) - start
        if tail >= max(min_tokens, repetitions * period):
            return Loop(start, period, tail // period)
    return None


@settings(max_examples=400, deadline=None)
@given(
    prefix=st.lists(st.integers(0, 2), max_size=12),
    span=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    repetitions=st.integers(1, 9),
    rest=st.integers(0, 6),
)
def test_finds_the_smallest_period_as_the_definition_does(prefix, span, repetitions, rest) -> None:
    ids = [*prefix, *span * repetitions, *(span * 7)[:rest]]
    found = find_loop(np.array(ids), 3, min_tokens=8)
    assert found == by_definition(ids, 3, 8)
    if repetitions >= 8:
        assert found is not None


def test_a_loop_anywhere_is_found_at_its_longest() -> None:
    ids = np.array([5, *[1, 2, 3] * 4, 9, 9, 9, *[4, 6] * 7, 8])
    assert find_loop(ids, 4, min_tokens=8) is None, "it does not reach the end"
    assert find_loop(ids, 4, min_tokens=8, anywhere=True) == Loop(16, 2, 7)
    assert find_loop(ids[:-1], 4, min_tokens=8) == Loop(16, 2, 7)
    assert find_loop(ids[:15], 4, min_tokens=8, anywhere=True) == Loop(1, 3, 4)


def test_no_loop_and_short_loops_are_none() -> None:
    noise = np.random.default_rng(0)
    assert find_loop(noise.integers(0, 1000, 300), 4) is None
    assert find_loop(np.array([1, 2, 3] * 10), 4) is None, "30 tokens may be a table"
    assert find_loop(np.array([9, *[1, 2, 3] * 30]), 4) == Loop(1, 3, 30)
    assert find_loop(np.array([1]), 4) is None


def test_repetition_and_compression_of_known_texts():
    assert repeated_ngrams([1, 2, 3, 4, 5], 3) == 0
    # 123 231 312 123 231: two of five came before.
    assert repeated_ngrams([1, 2, 3, 1, 2, 3, 1], 3) == pytest.approx(2 / 5)
    assert repeated_ngrams([1, 2], 3) == 0
    assert compression("") == 1
    assert compression("la " * 400) < 0.05 < compression("Eight quick wizards jump over 1,273 boxes.")
