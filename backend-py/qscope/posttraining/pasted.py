"""The control without steering: the beginning of a normal rollout, then a piece of it again and again."""

from __future__ import annotations

import random
from collections.abc import Sequence

from qscope.posttraining.repetition import MIN_LOOPS
from qscope.text.loops import MIN_TOKENS

#: Tokens of the piece that is repeated, at least and at most.
SHORTEST, LONGEST = 4, 32


def pasted_loop(ids: Sequence[int], *, seed: int, max_tokens: int, stop_after_loops: int) -> tuple[int, ...]:
    """A loop as a steered rollout might be one, out of a rollout's own words.

    Args:
        ids: tokens of the rollout's answer.
        seed: chooses where it begins and what is repeated.
        max_tokens: of the whole.
        stop_after_loops: whole repetitions after which it is cut; 0 goes on to ``max_tokens``.

    Returns:
        As many tokens as the limit leaves; fewer than a verified loop where the limit is short. Empty for an empty
        rollout.
    """
    if not ids:
        return ()
    draw = random.Random(seed)
    # A verified loop must fit behind the beginning.
    most = max(1, min(LONGEST, len(ids), max_tokens // (MIN_LOOPS + 1)))
    period = draw.randint(min(SHORTEST, most), most)
    room = max(0, max_tokens - max(MIN_LOOPS * period, MIN_TOKENS))
    end = draw.randint(period, max(period, min(len(ids), period + room)))
    beginning, piece = list(ids[: end - period]), list(ids[end - period : end])
    stretch = max(max(stop_after_loops, MIN_LOOPS) * period, MIN_TOKENS) if stop_after_loops else max_tokens
    length = min(max_tokens, len(beginning) + stretch)
    repeated = (piece * (length // period + 1))[: length - len(beginning)]
    return tuple(beginning + repeated)
