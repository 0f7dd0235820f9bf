"""The processes of one run: which of them this is, and what they agree on.

A run of several processes has ranks 0, 1, ...: each trains on its share of the data, and rank 0 alone speaks for the
run. What they agree on goes over gloo on the CPU, also where gradients go over NCCL: a flag that waited for the GPU's
queue would cost a step its overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: A rank that has ended is noticed at once by the process that started it; this ends ranks that wait for each other.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run. By default it is alone.

    What ranks agree on is collective: every rank has to ask, and in the same order.

    Attributes:
        rank: 0 to ``count - 1``; rank 0 speaks for the run.
        count: processes of the run.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """True in the one process that reports and writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """True on every rank when it is on one. Collective."""
        if self.count == 1:
            return flag
        import torch
        import torch.distributed as dist

        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def first(self, compute: Callable[[], T]) -> T:
        """What ``compute`` returns on rank 0, which alone calls it, on every rank. Collective.

        For what all have to see alike though the world may change between two looks (files, the hub, free memory), and
        for what is to be done once. The value travels as a pickle between processes of one run; it is never stored.
        """
        if self.count == 1:
            return compute()
        import torch
        import torch.distributed as dist

        box = [compute() if self.is_first else None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]  # type: ignore[return-value]


@dataclass(frozen=True)
class Seat:
    """The place of this process among the ranks, as the process that started it says.

    Attributes:
        rank, count: see :class:`Ranks`.
        parent: process that started all ranks.
        folder: where they find each other, and leave word of how they ended.
    """

    rank: int
    count: int
    parent: int
    folder: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Seat | None:
        """The seat that an environment names; None when it names none, in the process that is the whole run.

        The variables of torchrun alone (RANK, WORLD_SIZE) do not make a rank: a container's may be left from its own
        launcher.
        """
        if (text := environment.get("QSCOPE_SEAT")) is None:
            return None
        rank, count, parent, folder = text.split(" ", 3)
        return cls(int(rank), int(count), int(parent), Path(folder))

    @property
    def variables(self) -> dict[str, str]:
        """What the rank finds in its environment; those of torchrun are for accelerate, which reads them."""
        return {
            "QSCOPE_SEAT": f"{self.rank} {self.count} {self.parent} {self.folder}",
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank),
            "WORLD_SIZE": str(self.count),
            "LOCAL_WORLD_SIZE": str(self.count),
            "MASTER_ADDR": "127.0.0.1",
        }

    @property
    def outcome(self) -> Path:
        """File that tells how this rank ended."""
        return self.folder / f"rank-{self.rank}.json"

    def join(self, device_type: str) -> Ranks:
        """Meets the other ranks; returns when all are there.

        Args:
            device_type: "cuda" for gradients over NCCL, whose device the caller has chosen; anything else for gloo.
        """
        import torch.distributed as dist

        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
            init_method=f"file://{self.folder}/meeting",
            rank=self.rank,
            world_size=self.count,
            timeout=_PATIENCE,
        )
        return Ranks(self.rank, self.count)
