"""What belongs to one layer alone while its SAE is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from qscope.sae.kernels import AdamState
from qscope.sae.topk import TopKSae


@dataclass
class Window:
    """Sums since the last reading, in float64 on the device."""

    steps: Tensor
    tokens: Tensor
    squared_error: Tensor
    squared_x: Tensor
    sum_x_D: Tensor
    kept: Tensor
    loss: Tensor
    aux_loss: Tensor
    grad_norm: Tensor

    @staticmethod
    def empty(d_in: int, device: torch.device) -> Window:
        sizes = {"sum_x_D": (d_in,)}
        return Window(
            **{f.name: torch.zeros(sizes.get(f.name, ()), dtype=torch.float64, device=device) for f in fields(Window)}
        )


@dataclass
class LayerState:
    """One SAE in training units, and everything that belongs to it alone."""

    sae: TopKSae
    adam: AdamState
    shift_D: Tensor
    scale: float
    silent_F: Tensor
    """Tokens since each feature last fired, counted over the whole run."""
    listed_F: Tensor
    """Mask of the features dead when they were last listed."""
    window: Window
    bad_step: Tensor
    """First step with a loss that is not finite; -1 while there is none."""
    dead_N: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.dead_N = self.listed_F.nonzero().squeeze(1)

    def tensors(self) -> dict[str, Tensor]:
        found = dict(self.sae.tensors())
        for moment in ("first", "second"):
            held = getattr(self.adam, moment)
            found |= {f"{moment}.{f.name}": getattr(held, f.name) for f in fields(held)}
        found |= {f"window.{f.name}": getattr(self.window, f.name) for f in fields(self.window)}
        found |= {"shift_D": self.shift_D, "silent_F": self.silent_F, "listed_F": self.listed_F}
        return found | {"bad_step": self.bad_step}

    @staticmethod
    def empty(d_in: int, d_sae: int, k: int, layer: int, scale: float, place: dict) -> LayerState:
        """All zeros, on the device and in the precision of ``place``."""
        W_FD = torch.zeros(d_sae, d_in, **place)
        sae = TopKSae(W_FD, torch.zeros(d_sae, **place), W_FD.clone(), torch.zeros(d_in, **place), k=k, layer=layer)
        device = W_FD.device
        return LayerState(
            sae=sae,
            adam=AdamState.like(sae),
            shift_D=torch.zeros(d_in, **place),
            scale=scale,
            silent_F=torch.zeros(d_sae, dtype=torch.int64, device=device),
            listed_F=torch.zeros(d_sae, dtype=torch.bool, device=device),
            window=Window.empty(d_in, device),
            bad_step=torch.full((), -1, dtype=torch.int64, device=device),
        )

    def list_dead(self, dead_after_tokens: int) -> None:
        """Lists the features that are dead now; waits for the device."""
        torch.ge(self.silent_F, dead_after_tokens, out=self.listed_F)
        self.dead_N = self.listed_F.nonzero().squeeze(1)

    def load(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """Copies in what ``tensors()`` of another instance held, under prefixed names."""
        for name, target in self.tensors().items():
            target.copy_(tensors[prefix + name])
        self.dead_N = self.listed_F.nonzero().squeeze(1)
