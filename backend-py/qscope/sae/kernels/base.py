"""What a kernel is: one training step of one SAE, cut where AuxK has to get in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from qscope.sae.topk import TopKSae


@dataclass
class Gradients:
    """Gradient of the loss, laid out like the parameters; the buffers are reused from step to step."""

    W_enc_FD: Tensor
    b_enc_F: Tensor
    W_dec_FD: Tensor
    b_dec_D: Tensor

    @staticmethod
    def like(sae: TopKSae) -> Gradients:
        return Gradients(**{name: torch.zeros_like(tensor) for name, tensor in sae.tensors().items()})

    def tensors(self) -> list[Tensor]:
        return [self.W_enc_FD, self.b_enc_F, self.W_dec_FD, self.b_dec_D]


@dataclass
class AdamState:
    """First and second moments, laid out like the parameters, and the number of updates made."""

    first: Gradients
    second: Gradients
    steps: int = 0

    @staticmethod
    def like(sae: TopKSae) -> AdamState:
        return AdamState(Gradients.like(sae), Gradients.like(sae))


@dataclass(frozen=True)
class AdamRates:
    """Everything an update needs besides tensors. ``clip_norm`` 0 switches clipping off."""

    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    clip_norm: float


@dataclass
class Forward:
    """What a step leaves behind for AuxK, counters and metrics.

    ``values_BK`` and ``indices_BK`` are the codes (a value of zero marks an empty slot), ``residual_BD`` is
    ``x_hat - x``, ``hits_F`` counts the tokens on which each feature fired.
    """

    values_BK: Tensor
    indices_BK: Tensor
    residual_BD: Tensor
    hits_F: Tensor


class Kernel(Protocol):
    """One implementation of the SAE step. All implementations agree; they differ in speed and in where they run."""

    name: str

    def gradients(self, sae: TopKSae, x_BD: Tensor, loss_scale: float, out: Gradients) -> Forward:
        """Overwrites ``out`` with the gradient of ``loss_scale * sum((x_hat - x)^2)``."""
        ...

    def update(self, sae: TopKSae, grads: Gradients, adam: AdamState, rates: AdamRates) -> Tensor:
        """Makes one Adam step in place and returns the gradient norm before clipping, a scalar on the device.

        The part of each decoder row's gradient along the row is removed first, the norm is taken over all four
        tensors and clips exactly, and decoder rows leave with unit norm. ``grads`` is used up.
        """
        ...
