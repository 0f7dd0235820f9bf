"""Endless repetition: a response that ran into its limit while it said the same thing again and again.

The paper gives no definition (Qwen-Scope, section 8), so numbers of different papers do not compare. Tables, lists and
rows of ``====`` are periodic too; that the response was cut off is what tells a loop from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qscope.text.loops import MAX_PERIOD, MIN_TOKENS, Loop, find_loop, repeated_ngrams

#: Whole repetitions at the end of a response, at least.
MIN_LOOPS = 4
#: Of a text whose tokens are not known: a span of so many characters at most, so many times in a row at least.
MAX_SPAN, SPAN_TIMES = 400, 20


@dataclass(frozen=True)
class Repetition:
    """What a response repeats.

    Attributes:
        endless: it was cut off in a loop.
        loop: the loop it ends in, whether it was cut off or not; of a text without tokens, its longest run of a span.
        repeated_3grams: share of 3-grams of tokens that occurred before; not known without tokens.
    """

    endless: bool
    loop: Loop | None
    repeated_3grams: float | None


def repetition_of(ids: Sequence[int], *, truncated: bool) -> Repetition:
    """Repetition of a response, over its token ids.

    Args:
        ids: generated tokens, without the prompt and without the token that ended it.
        truncated: it ended at its limit of tokens and not by itself.

    Returns:
        Endless where it was truncated and ends in a period of at most 512 tokens, with at least 4 whole repetitions
        and at least 64 tokens.
    """
    loop = find_loop(np.asarray(ids), MIN_LOOPS, min_tokens=MIN_TOKENS, max_period=MAX_PERIOD)
    return Repetition(truncated and loop is not None, loop, repeated_ngrams(ids, 3))


def repetition_of_text(text: str, *, truncated: bool, anywhere: bool = True) -> Repetition:
    """Repetition of a response whose tokens are not known: a span of 1 to 400 characters, 20 times in a row.

    Anywhere in the text, as its end may be cut off. Stricter than over tokens for long spans, looser for short ones:
    the two shares do not compare.

    Args:
        text: the response.
        truncated: it ended at its limit and not by itself.
        anywhere: the loop need not reach the end; false where it is not known whether the response was cut off.
    """
    characters = np.array([ord(character) for character in text], dtype=np.int32)
    loop = find_loop(characters, SPAN_TIMES, min_tokens=SPAN_TIMES, max_period=MAX_SPAN, anywhere=anywhere)
    return Repetition(truncated and loop is not None, loop, None)
