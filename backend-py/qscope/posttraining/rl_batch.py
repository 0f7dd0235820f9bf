"""Rollouts as tensors: rows padded on the right, and the micro-batches of a step, each of rows of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PaddedRows:
    """Prompts with what was generated after them.

    Attributes:
        ids_BT: tokens; 0 at padding, which is on the right: no token sees it, so no mask is needed to hide it.
        valid_BT: where there is a token.
        generated_BT: where the token was generated.
    """

    ids_BT: Tensor
    valid_BT: Tensor
    generated_BT: Tensor


def padded(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> PaddedRows:
    """Rows of (prompt, generated), as wide as the longest."""
    width = max(len(prompt) + len(generated) for prompt, generated in rows)
    prompt_B = torch.tensor([len(prompt) for prompt, _ in rows])
    length_B = prompt_B + torch.tensor([len(generated) for _, generated in rows])
    place_T = torch.arange(width)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.int64)
    for number, (prompt, generated) in enumerate(rows):
        ids_BT[number, : int(length_B[number])] = torch.tensor([*prompt, *generated])
    valid_BT = place_T < length_B[:, None]
    return PaddedRows(ids_BT, valid_BT, valid_BT & (place_T >= prompt_B[:, None]))


def micro_batches(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Numbers of the rows of each micro-batch: as many rows in each, neighbours in length, the longest first.

    A mean over tokens of the whole step does not mind which rows stand together. The longest come first, so that a
    step that does not fit into memory fails at its beginning.

    Args:
        lengths: tokens of each row.
        count: micro-batches; divides the rows.
    """
    assert len(lengths) % count == 0, "micro-batches have equally many rows"
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    size = len(lengths) // count
    return [order[start : start + size] for start in range(0, len(order), size)]


def micro_batch_count(rows: int, most: int) -> int:
    """The fewest micro-batches of equally many rows, ``most`` at most."""
    return next(count for count in range(-(-rows // most), rows + 1) if rows % count == 0)
