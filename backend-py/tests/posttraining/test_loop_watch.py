"""The watch of a growing text against the detector of finished ones."""

from __future__ import annotations

import numpy as np
import pytest

from qscope.posttraining.loop_watch import LoopWatch
from qscope.posttraining.repetition import repetition_of
from qscope.text.loops import find_loop


def first_loop(ids: list[int], loops: int, min_tokens: int) -> int | None:
    """Tokens after which the whole of what is written ends in a loop, by looking at all of it every time."""
    for count in range(1, len(ids) + 1):
        if find_loop(np.array(ids[:count]), loops, min_tokens=min_tokens):
            return count
    return None


@pytest.mark.parametrize("period", [1, 2, 7, 16, 40])
@pytest.mark.parametrize("loops", [4, 8])
def test_it_sees_a_loop_at_the_same_token_as_the_detector(period, loops):
    noise = np.random.default_rng(period)
    ids = [*noise.integers(100, 999, 30), *(list(noise.integers(0, 50, period)) * 90)][:400]
    watch = LoopWatch(loops)
    seen = next((count for count, token in enumerate(ids, 1) if watch.push(int(token))), None)
    assert seen == first_loop([int(token) for token in ids], loops, 64)
    assert seen == 30 + max(loops * period, 64)


def test_what_it_stops_is_a_verified_loop_and_what_it_passes_is_none():
    noise = np.random.default_rng(0)
    for _ in range(50):
        # Two symbols only: short accidental periods abound.
        ids = [int(token) for token in noise.integers(0, 2, 200)]
        watch = LoopWatch(4)
        stops = [watch.push(token) for token in ids]
        for count, stop in enumerate(stops, 1):
            assert stop == (find_loop(np.array(ids[:count]), 4) is not None)


def test_fewer_loops_than_a_verified_one_has_are_raised():
    watch = LoopWatch(1)
    ids = list(range(30)) * 6
    count = next(count for count, token in enumerate(ids, 1) if watch.push(token))
    assert count == 120
    assert repetition_of(ids[:count], truncated=True).endless
    assert not repetition_of(ids[: count - 1], truncated=True).endless


def test_a_text_longer_than_the_longest_period_forgets_nothing_it_needs():
    watch = LoopWatch(4, max_period=16)
    ids = [*range(100, 140), *([7, 8, 9] * 30)]
    assert next(count for count, token in enumerate(ids, 1) if watch.push(token)) == 40 + 64
