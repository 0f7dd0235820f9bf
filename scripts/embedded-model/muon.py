"""Muon for a model's hidden matrices: momentum orthogonalised by five Newton-Schulz steps (Jordan et al., 2024).

torch.optim.Muon orthogonalises one matrix at a time and always in bfloat16, which a CPU without bfloat16 units does
a hundred times slower than float32. This one batches the matrices of one shape and keeps their type on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonalise(matrices_NRC: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices, roughly: singular values end in about [0.7, 1.2]. (N, R, C) in and out."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x_NRC = matrices_NRC.bfloat16() if matrices_NRC.is_cuda else matrices_NRC
    tall = x_NRC.shape[-2] > x_NRC.shape[-1]
    x_NRC = x_NRC.mT if tall else x_NRC
    x_NRC = x_NRC / (x_NRC.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram_NRR = x_NRC @ x_NRC.mT
        x_NRC = a * x_NRC + (b * gram_NRR + c * gram_NRR @ gram_NRR) @ x_NRC
    return (x_NRC.mT if tall else x_NRC).to(matrices_NRC.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, decoupled decay; 0.2 sqrt(max(R, C)) gives AdamW's usual update size."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(list(parameters), dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                for parameter in parameters:
                    state = self.state[parameter]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(parameter)
                    state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update_NRC = orthogonalise(
                    torch.stack([p.grad.lerp(self.state[p]["momentum"], group["momentum"]) for p in parameters])
                )
                size = 0.2 * max(shape) ** 0.5
                for parameter, update_RC in zip(parameters, update_NRC, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update_RC, alpha=-group["lr"] * size)
