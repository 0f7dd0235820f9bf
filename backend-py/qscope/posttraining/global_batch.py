"""What one optimiser step takes its mean over: the tokens of all its micro-batches on all ranks.

A mean over each micro-batch is another quantity: the weight of a token then depends on how many others were beside it,
and an auxiliary loss that is added once per micro-batch grows with their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from qscope.posttraining.collective import shared


@dataclass(frozen=True)
class GlobalBatch:
    """The tokens of a step, and what the trainer will divide its gradients by.

    Attributes:
        tokens: that count, of all micro-batches and ranks.
        ranks: over which gradients are averaged (DDP and FSDP2 do); 1 where they are summed.
        micro_batches: by which the trainer divides every micro-batch's loss; 1 where it does not.
    """

    tokens: int
    ranks: int = 1
    micro_batches: int = 1

    @property
    def scale(self) -> float:
        """What a micro-batch's sum is multiplied by, so that the step's gradient is that of the mean over ``tokens``.

        0 for a step without tokens: its sums are zero as well.
        """
        return self.ranks * self.micro_batches / self.tokens if self.tokens else 0.0

    @classmethod
    def of(
        cls,
        masks_BT: Iterable[Tensor],
        *,
        micro_batches: int = 1,
        gradients_averaged: bool = True,
        group: dist.ProcessGroup | None = None,
    ) -> GlobalBatch:
        """Counts the tokens of a step. Every rank of the group must call it, with or without tokens of its own.

        Args:
            masks_BT: of this rank's micro-batches, true at what counts; they may differ in shape. At least one.
            micro_batches: by which the trainer divides; see above.
            gradients_averaged: whether gradients are averaged over ranks rather than summed.
            group: the ranks; the default group where one is initialised.
        """
        count = torch.stack([mask_BT.sum(dtype=torch.int64) for mask_BT in masks_BT]).sum()
        ranks = 1
        if shared():
            dist.all_reduce(count, group=group)
            ranks = dist.get_world_size(group)
        return cls(int(count), ranks if gradients_averaged else 1, micro_batches)
