"""How much a text repeats itself, and where its loop is; over token ids, or over anything else that can be compared."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_PERIOD = 512
#: A periodic tail shorter than this is a table, a list or a row of dots more often than a loop.
MIN_TOKENS = 64


@dataclass(frozen=True)
class Loop:
    """A stretch of the smallest period that fits: ``repetitions`` whole ones from token ``start`` on."""

    start: int
    period: int
    repetitions: int


def find_loop(
    ids_T: np.ndarray,
    repetitions: int,
    *,
    min_tokens: int = MIN_TOKENS,
    max_period: int = MAX_PERIOD,
    anywhere: bool = False,
) -> Loop | None:
    """The loop a sequence ends in: the smallest period whose stretch has enough whole repetitions and tokens.

    Args:
        ids_T: token ids.
        repetitions: whole repetitions at least.
        min_tokens: tokens of the stretch at least.
        max_period: longest period looked for.
        anywhere: the loop need not reach the end of the sequence; the longest stretch of a period counts.
    """
    for period in _periods(ids_T, min(max_period, len(ids_T) // repetitions), anywhere or repetitions < 2):
        equal = ids_T[period:] == ids_T[:-period]
        # Between two breaks lies a run of tokens that equal those a period before.
        breaks = np.concatenate([[-1], np.flatnonzero(~equal), [len(equal)]])
        runs = np.diff(breaks) - 1
        longest = int(runs.argmax()) if anywhere else len(runs) - 1
        stretch = int(runs[longest]) + period
        if stretch >= max(repetitions * period, min_tokens):
            # Counted from its beginning: what is looked for is the true first time against the last.
            return Loop(int(breaks[longest]) + 1, period, stretch // period)
    return None


def _periods(ids_T: np.ndarray, most: int, every: bool) -> Sequence[int]:
    """Periods up to ``most`` that are worth a look: at the end, the last token is also the one a period before it."""
    if every or most < 1:
        return range(1, most + 1)
    return (np.flatnonzero(ids_T[-2 : -most - 2 : -1] == ids_T[-1]) + 1).tolist()


def repeated_ngrams(tokens: Sequence[int], n: int) -> float:
    """Share of n-grams that occurred before in the same text: 1 - distinct / all; 0 for texts shorter than n + 1."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def compression(text: str) -> float:
    """Bytes after zlib over bytes before (UTF-8); ordinary short text is near 0.5 to 0.9, loops go to zero."""
    data = text.encode()
    return len(zlib.compress(data, 9)) / len(data) if data else 1.0
