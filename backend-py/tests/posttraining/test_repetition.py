"""Endless repetition by its definition: thresholds, the limit, and texts without tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.posttraining.repetition import repetition_of, repetition_of_text
from qscope.text.loops import Loop

NOISE = np.random.default_rng(0).permutation(5000).tolist()


def spans(length: int, times: int, *, before: int = 7) -> list[int]:
    """Distinct tokens, then a span of distinct others so many times."""
    return NOISE[:before] + NOISE[1000 : 1000 + length] * times


@pytest.mark.parametrize(
    ("ids", "loop"),
    [
        (spans(16, 4), Loop(7, 16, 4)),
        (spans(1, 64), Loop(7, 1, 64)),
        # A whole repetition more or less, a token more or less.
        (spans(16, 3) + NOISE[1000:1015], None),
        (spans(1, 63), None),
        (spans(30, 3) + NOISE[1000:1029], None),
        (spans(512, 4), Loop(7, 512, 4)),
        (spans(513, 4), None),
        # It goes on in the middle of the fifth.
        (spans(16, 4) + NOISE[1000:1009], Loop(7, 16, 4)),
        # It came out of its loop.
        ([*spans(16, 9), NOISE[3]], None),
        ([], None),
    ],
)
def test_the_definition(ids, loop) -> None:
    found = repetition_of(ids, truncated=True)
    assert (found.loop, found.endless) == (loop, loop is not None)
    ended = repetition_of(ids, truncated=False)
    assert (ended.loop, ended.endless) == (loop, False), "it ended by itself"


@settings(max_examples=300, deadline=None)
@given(
    prefix=st.lists(st.integers(0, 3), max_size=80),
    span=st.lists(st.integers(0, 3), min_size=1, max_size=24),
    times=st.integers(1, 70),
    rest=st.integers(0, 30),
)
def test_endless_is_a_periodic_tail_of_four_periods_and_64_tokens(prefix, span, times, rest) -> None:
    ids = [*prefix, *span * times, *(span * 30)[:rest]]

    def periodic(period: int) -> bool:
        tail = ids[-max(4 * period, 64) :]
        return len(tail) >= max(4 * period, 64) and tail[period:] == tail[:-period]

    assert repetition_of(ids, truncated=True).endless == any(map(periodic, range(1, 513)))


def test_3grams_of_tokens_by_hand() -> None:
    # 123 231 312 123 231: two of five came before.
    assert repetition_of([1, 2, 3, 1, 2, 3, 1], truncated=False).repeated_3grams == pytest.approx(2 / 5)
    assert repetition_of([], truncated=True).repeated_3grams == 0


SPAN = "".join(chr(0x4E00 + number) for number in range(401))


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("Итак: " + "да, " * 20, Loop(5, 4, 20)),
        ("Итак: " + "да, " * 19, None),
        ("我" * 20, Loop(0, 1, 20)),
        ("我" * 19, None),
        ("그는 갔다. " * 25 + "끝", Loop(0, 7, 25)),
        ("a" + SPAN[:400] * 20, Loop(1, 400, 20)),
        ("a" + SPAN * 20, None),
        ("", None),
    ],
)
def test_texts_without_tokens(text, loop) -> None:
    found = repetition_of_text(text, truncated=True)
    assert (found.loop, found.endless, found.repeated_3grams) == (loop, loop is not None, None)
    assert not repetition_of_text(text, truncated=False).endless
