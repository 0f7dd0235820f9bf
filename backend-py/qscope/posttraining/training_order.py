"""Which rows each step reads: a function of the seed and the step alone, for any division into micro-batches and ranks.

Rows stand in one endless stream, pass after pass, each pass in an order of its own; a step takes the next ones. So a
resumed run finds its place by counting, and a batch of 8 and eight batches of 1 hold the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class TrainingOrder(Sampler[list[int]]):
    """Batches of row numbers, those of a step one after the other.

    Args:
        rows: of the data.
        batch: rows of a micro-batch.
        steps: optimiser steps.
        batches: micro-batches of a step, over all ranks.
        seed: of the order.
    """

    def __init__(self, rows: int, *, batch: int, steps: int, batches: int, seed: int) -> None:
        assert rows > 0, "there are no rows"
        self._rows, self._batch, self._seed = rows, batch, seed
        self._count = steps * batches

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        held: list[int] = []
        turn = 0
        for _ in range(self._count):
            while len(held) < self._batch:
                held += np.random.default_rng((self._seed, turn)).permutation(self._rows).tolist()
                turn += 1
            yield held[: self._batch]
            held = held[self._batch :]


def step_count(rows: int, *, steps: int, epochs: float, rows_per_step: int) -> int:
    """Optimiser steps: as many as asked for, else what the passes need.

    The last step is filled up with the first rows of one more pass: every step weighs the same.
    """
    return steps or max(1, math.ceil(epochs * rows / rows_per_step))
