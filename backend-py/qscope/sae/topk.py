"""The TopK sparse autoencoder in its plainest form; everything faster is held to this file by tests.

    u = W_enc x + b_enc        z = topk(ReLU(u))        x_hat = z W_dec + b_dec

(Gao et al. 2024, section 2.3; read-out of the Qwen-Scope release, arXiv 2605.11887 section 2.) The encoder does not
subtract ``b_dec``: the release stores none, and any pre-bias folds into ``b_enc``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qscope.sae.select import select_topk

_SCORES_AT_ONCE = 1 << 24
"""Scores computed together by ``encode``: 64 MiB in float32, so a wide SAE does not need F-wide memory per token."""


@dataclass
class TopKSae:
    """One SAE. Decoder rows are feature-major: ``W_dec_FD[f]`` is the direction of feature f."""

    W_enc_FD: Tensor
    b_enc_F: Tensor
    W_dec_FD: Tensor
    b_dec_D: Tensor
    k: int
    layer: int = 0

    @property
    def d_in(self) -> int:
        return self.W_enc_FD.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_enc_FD.shape[0]

    @property
    def device(self) -> torch.device:
        return self.W_enc_FD.device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_enc_FD.dtype

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TopKSae:
        """The same SAE elsewhere or in another precision."""
        moved = {name: tensor.to(device=device, dtype=dtype) for name, tensor in self.tensors().items()}
        return TopKSae(**moved, k=self.k, layer=self.layer)

    def tensors(self) -> dict[str, Tensor]:
        """The four parameters by field name."""
        return {
            "W_enc_FD": self.W_enc_FD,
            "b_enc_F": self.b_enc_F,
            "W_dec_FD": self.W_dec_FD,
            "b_dec_D": self.b_dec_D,
        }

    def pre_activations(self, x_BD: Tensor) -> Tensor:
        """``u_BF``: before ReLU and top-k."""
        return torch.addmm(self.b_enc_F, x_BD, self.W_enc_FD.t())

    def encode(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of each token as ``(values_BK, indices_BK)``, largest value first.

        ReLU comes before the selection, so with fewer than k positive pre-activations the last values are zero; their
        indices are valid and distinct, and mean nothing. Equal values are taken by lowest index.
        """
        rows = max(1, _SCORES_AT_ONCE // self.d_sae)
        if x_BD.shape[0] <= rows:
            return select_topk(self.pre_activations(x_BD), self.k)
        parts = [select_topk(self.pre_activations(part_bD), self.k) for part_bD in x_BD.split(rows)]
        return torch.cat([values for values, _ in parts]), torch.cat([indices for _, indices in parts])

    def decode(self, values_BK: Tensor, indices_BK: Tensor) -> Tensor:
        """``x_hat_BD`` of sparse codes."""
        x_hat_BD = torch.nn.functional.embedding_bag(
            indices_BK, self.W_dec_FD, mode="sum", per_sample_weights=values_BK.to(self.dtype)
        )
        return x_hat_BD + self.b_dec_D

    def reconstruct(self, x_BD: Tensor) -> Tensor:
        """``decode(encode(x))``."""
        return self.decode(*self.encode(x_BD))


def dense_codes(values_BK: Tensor, indices_BK: Tensor, d_sae: int) -> Tensor:
    """Sparse codes as ``z_BF``; differentiable in the values."""
    z_BF = torch.zeros(values_BK.shape[0], d_sae, dtype=values_BK.dtype, device=values_BK.device)
    return z_BF.scatter(1, indices_BK, values_BK)


def reference_loss(sae: TopKSae, x_BD: Tensor, loss_scale: float) -> tuple[Tensor, Tensor]:
    """Dense loss ``loss_scale * sum((x_hat - x)^2)`` with an autograd graph, and ``x_hat_BD``.

    The reference of every kernel: F-wide codes, no trick, any dtype. Nothing but the definition is used, not even the
    fast selection.
    """
    scores_BF = torch.relu(x_BD @ sae.W_enc_FD.t() + sae.b_enc_F)
    ranked_BF = torch.sort(scores_BF, dim=1, descending=True, stable=True)
    kept_BK = ranked_BF.indices[:, : sae.k]
    z_BF = dense_codes(scores_BF.gather(1, kept_BK), kept_BK, sae.d_sae)
    x_hat_BD = z_BF @ sae.W_dec_FD + sae.b_dec_D
    return loss_scale * (x_hat_BD - x_BD).square().sum(), x_hat_BD


def geometric_median(x_BD: Tensor, iterations: int = 50) -> Tensor:
    """Point of least summed distance to the rows (Weiszfeld's iteration): a mean that outliers cannot pull."""
    points_BD = x_BD.double()
    centre_D = points_BD.mean(0)
    for _ in range(iterations):
        inverse_B = 1.0 / (points_BD - centre_D).norm(dim=1).clamp_min(1e-12)
        centre_D = (inverse_B[:, None] * points_BD).sum(0) / inverse_B.sum()
    return centre_D


def initialise(
    d_in: int,
    d_sae: int,
    k: int,
    sample_BD: Tensor,
    generator: torch.Generator,
    *,
    layer: int = 0,
    dtype: torch.dtype = torch.float32,
) -> TopKSae:
    """A fresh SAE on the device of the sample.

    Decoder rows are random unit directions, the encoder starts as their copy (tied), ``b_dec`` is the geometric median
    of the sample, and ``b_enc = -W_enc b_dec`` stands for the pre-bias that the file contract does not have. The
    generator lives on the CPU, so the weights are the same on every device.
    """
    directions_FD = torch.randn(d_sae, d_in, generator=generator, dtype=torch.float64)
    directions_FD /= directions_FD.norm(dim=1, keepdim=True)
    b_dec_D = geometric_median(sample_BD).cpu()
    b_enc_F = -(directions_FD @ b_dec_D)
    place = {"device": sample_BD.device, "dtype": dtype}
    W_dec_FD = directions_FD.to(**place)
    return TopKSae(W_dec_FD.clone(), b_enc_F.to(**place), W_dec_FD, b_dec_D.to(**place), k=k, layer=layer)


@torch.no_grad()
def fit_encoder(sae: TopKSae, sample_BD: Tensor) -> float:
    """Scales the encoder by the one factor that gives the first reconstruction the least squared error.

    The k largest of d_sae random directions are far from orthogonal, so a tied encoder reconstructs several times too
    much, and the first steps of the training would go into shrinking it. The factor is positive: which features are
    kept does not change.

    Args:
        sae: changed in place; its encoder is tied to its decoder (else a factor may not help, and one is then used).
        sample_BD: activations in the units of the SAE.

    Returns:
        The factor; 1 when the sample has no code above zero.
    """
    x_hat_BD = (sae.decode(*sae.encode(sample_BD)) - sae.b_dec_D).double()
    overlap = torch.linalg.vecdot(x_hat_BD, (sample_BD - sae.b_dec_D).double()).sum().item()
    size = x_hat_BD.square().sum().item()
    factor = overlap / size if overlap > 0 and size > 0 else 1.0
    sae.W_enc_FD.mul_(factor)
    sae.b_enc_F.mul_(factor)
    return factor
