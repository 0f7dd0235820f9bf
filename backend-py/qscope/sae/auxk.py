"""AuxK: dead features learn to explain what the living ones leave over (Gao et al. 2024, appendix A.2).

    e = x - x_hat (detached)      e_hat = W_dec z_aux (no bias)      L = ||e - e_hat||^2 / ||e - mean(e)||^2

``z_aux`` keeps the ``k_aux`` largest ReLU pre-activations among the dead features. As commonly written this gathers
hundreds of decoder rows per token, ten times the cost of the decoder itself. Here the dead features are compacted once
and a share of the tokens runs through small dense products; nothing runs when nothing is dead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qscope.sae.kernels.base import Gradients
from qscope.sae.topk import TopKSae


def aux_loss_reference(sae: TopKSae, x_BD: Tensor, x_hat_BD: Tensor, dead_F: Tensor, k_aux: int) -> Tensor:
    """The loss by its definition over F-wide codes, with an autograd graph; ``dead_F`` is a mask."""
    e_BD = (x_BD - x_hat_BD).detach()
    u_BF = torch.relu(x_BD @ sae.W_enc_FD.t() + sae.b_enc_F)
    u_BF = torch.where(dead_F, u_BF, torch.zeros_like(u_BF))
    top = torch.topk(u_BF, min(k_aux, int(dead_F.sum())), dim=1)
    z_BF = torch.zeros_like(u_BF).scatter(1, top.indices, top.values)
    e_hat_BD = z_BF @ sae.W_dec_FD
    return torch.nan_to_num((e_BD - e_hat_BD).square().sum() / (e_BD - e_BD.mean(0)).square().sum(), nan=0.0)


@torch.no_grad()
def add_aux_gradients(
    sae: TopKSae,
    x_BD: Tensor,
    residual_BD: Tensor,
    dead_N: Tensor,
    still_dead_N: Tensor,
    *,
    k_aux: int,
    coefficient: float,
    out: Gradients,
) -> Tensor:
    """Adds the gradient of ``coefficient * L`` to ``out`` and returns ``L``, a scalar on the device.

    Args:
        x_BD: tokens the loss looks at; ``residual_BD`` is their ``x_hat - x``.
        dead_N: ids of the features listed as dead, without repeats.
        still_dead_N: 1 for each that has not fired since it was listed, else 0; those of 0 take no part.
    """
    W_enc_ND, W_dec_ND = sae.W_enc_FD[dead_N], sae.W_dec_FD[dead_N]
    z_BN = torch.relu(torch.addmm(sae.b_enc_F[dead_N], x_BD, W_enc_ND.t()))
    z_BN *= still_dead_N
    if k_aux < dead_N.shape[0]:
        top = torch.topk(z_BN, k_aux, dim=1, sorted=False)
        z_BN = torch.zeros_like(z_BN).scatter_(1, top.indices, top.values)
    e_BD = -residual_BD
    difference_BD = z_BN @ W_dec_ND - e_BD
    spread = (e_BD - e_BD.mean(0)).square().sum()
    loss = torch.nan_to_num(difference_BD.square().sum() / spread, nan=0.0, posinf=0.0)
    g_BD = difference_BD * torch.nan_to_num(2.0 * coefficient / spread, nan=0.0, posinf=0.0)
    du_BN = (g_BD @ W_dec_ND.t()).masked_fill_(z_BN <= 0, 0)
    out.W_dec_FD.index_add_(0, dead_N, z_BN.t() @ g_BD)
    out.W_enc_FD.index_add_(0, dead_N, du_BN.t() @ x_BD)
    out.b_enc_F.index_add_(0, dead_N, du_BN.sum(0))
    return loss
