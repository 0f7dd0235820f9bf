"""Whether a text that is being written has come to loop, asked after every token.

:func:`qscope.text.loops.find_loop` looks at all of a text; at every token that would cost more than the model does.
Here one number a period is kept: how many of the newest tokens equal those a period before.
"""

from __future__ import annotations

import numpy as np

from qscope.posttraining.repetition import MIN_LOOPS
from qscope.text.loops import MAX_PERIOD, MIN_TOKENS


class LoopWatch:
    """Sees when the end of a row is a loop of enough whole repetitions.

    Args:
        loops: whole repetitions; fewer than a verified loop has are raised to that number.
        min_tokens: tokens of the looping stretch at least.
        max_period: longest period looked for.
    """

    def __init__(self, loops: int, *, min_tokens: int = MIN_TOKENS, max_period: int = MAX_PERIOD) -> None:
        self._period_P = np.arange(1, max_period + 1)
        # The first period of a stretch has nothing before it to equal.
        self._needed_P = np.maximum(max(loops, MIN_LOOPS) * self._period_P, min_tokens) - self._period_P
        self._run_P = np.zeros(max_period, dtype=np.int64)
        # Newest first; no token has this id.
        self._past_P = np.full(max_period, -1, dtype=np.int64)

    def push(self, token: int) -> bool:
        """Adds a token; true when the row now ends in a loop."""
        self._run_P = (self._run_P + 1) * (self._past_P == token)
        self._past_P = np.concatenate([[token], self._past_P[:-1]])
        return bool((self._run_P >= self._needed_P).any())
