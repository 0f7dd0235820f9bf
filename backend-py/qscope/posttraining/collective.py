"""What the ranks of a run say to each other; with one process everything is its own answer."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor


def shared() -> bool:
    """Whether there are ranks that can be asked."""
    return dist.is_available() and dist.is_initialized()


def rank_and_count() -> tuple[int, int]:
    """This rank and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if shared() else (0, 1)


def added(numbers: Tensor) -> Tensor:
    """The sum over all ranks, in place. Collective."""
    if shared():
        dist.all_reduce(numbers)
    return numbers


def gathered(own: Any) -> list[Any]:
    """What every rank holds, by rank. Collective."""
    if not shared():
        return [own]
    held: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(held, own)
    return held


def wait_for_all() -> None:
    """Returns when every rank has called it."""
    if shared():
        dist.barrier()
