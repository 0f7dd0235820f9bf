"""The dense reference kernel: autograd through F-wide codes."""

from __future__ import annotations

import torch
from torch import Tensor

from qscope.sae.kernels import optimiser
from qscope.sae.kernels.base import AdamRates, AdamState, Forward, Gradients
from qscope.sae.topk import TopKSae, reference_loss


class DenseKernel:
    """Plain, slow and obviously right; see ``Kernel``."""

    name = "dense"

    def gradients(self, sae: TopKSae, x_BD: Tensor, loss_scale: float, out: Gradients) -> Forward:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in sae.tensors().items()}
        with torch.enable_grad():
            loss, x_hat_BD = reference_loss(TopKSae(**leaves, k=sae.k), x_BD, loss_scale)
            found = torch.autograd.grad(loss, list(leaves.values()))
        for target, gradient in zip(out.tensors(), found, strict=True):
            target.copy_(gradient)
        with torch.no_grad():
            values_BK, indices_BK = sae.encode(x_BD)
            hits_F = torch.zeros(sae.d_sae, dtype=torch.int64, device=x_BD.device)
            hits_F.scatter_add_(0, indices_BK.flatten(), (values_BK > 0).flatten().long())
            return Forward(values_BK, indices_BK, x_hat_BD.detach() - x_BD, hits_F)

    def update(self, sae: TopKSae, grads: Gradients, adam: AdamState, rates: AdamRates) -> Tensor:
        return optimiser.update(sae, grads, adam, rates)
