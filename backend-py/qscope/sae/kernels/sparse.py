"""Exact sparse step in torch operations alone: runs on every device, and wherever numba is missing.

The gradient of TopK is exactly zero off the kept features, so only the encoder product touches all F of them; decode,
slopes and weight gradients read B x K rows. All sums run in a fixed order (no atomics), so a step repeats bit for bit.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from qscope.sae.kernels import optimiser
from qscope.sae.kernels.base import AdamRates, AdamState, Forward, Gradients
from qscope.sae.select import select_topk
from qscope.sae.topk import TopKSae

_GATHERED_AT_ONCE = 1 << 25
"""Elements of decoder rows gathered together where no sampled product exists (128 MiB in float32)."""

_SCORES_AT_ONCE = 1 << 26
"""Scores held together on an accelerator; on a CPU a chunk that stays in the cache is used instead."""

_CPU_SCORES_AT_ONCE = 1 << 20


class SparseKernel:
    """See ``Kernel``.

    Args:
        compute_dtype: precision of the encoder product; everything else stays in the precision of the parameters.
    """

    name = "sparse"

    def __init__(self, compute_dtype: torch.dtype | None = None) -> None:
        self._compute_dtype = compute_dtype

    @torch.no_grad()
    def gradients(self, sae: TopKSae, x_BD: Tensor, loss_scale: float, out: Gradients) -> Forward:
        values_BK, indices_BK = self.encode(sae, x_BD)
        K = sae.k
        residual_BD = embedding_bag(indices_BK, sae.W_dec_FD, mode="sum", per_sample_weights=values_BK)
        residual_BD += sae.b_dec_D
        residual_BD -= x_BD
        scale = 2.0 * loss_scale
        slopes_BK = _row_products(residual_BD, sae.W_dec_FD, indices_BK) * scale
        slopes_BK.masked_fill_(values_BK <= 0, 0)

        # Feature-major order of the B x K pairs; stable, so the tokens of a feature are added in ascending order.
        features_P, order_P = torch.sort(indices_BK.flatten().int(), stable=True)
        tokens_P = order_P // K
        offsets_F = torch.searchsorted(features_P, torch.arange(sae.d_sae, dtype=torch.int32, device=x_BD.device))
        weights_P = values_BK.flatten()[order_P] * scale
        slopes_P = slopes_BK.flatten()[order_P]
        out.W_dec_FD.copy_(
            embedding_bag(tokens_P, residual_BD, offsets=offsets_F, mode="sum", per_sample_weights=weights_P)
        )
        out.W_enc_FD.copy_(embedding_bag(tokens_P, x_BD, offsets=offsets_F, mode="sum", per_sample_weights=slopes_P))
        out.b_enc_F.copy_(embedding_bag(order_P, slopes_BK.view(-1, 1), offsets=offsets_F, mode="sum").squeeze(1))
        torch.sum(residual_BD, 0, out=out.b_dec_D)
        out.b_dec_D.mul_(scale)
        hits_F = torch.zeros(sae.d_sae, dtype=torch.int64, device=x_BD.device)
        hits_F.scatter_add_(0, indices_BK.flatten(), (values_BK > 0).flatten().long())
        return Forward(values_BK, indices_BK, residual_BD, hits_F)

    def update(self, sae: TopKSae, grads: Gradients, adam: AdamState, rates: AdamRates) -> Tensor:
        return optimiser.update(sae, grads, adam, rates)

    def encode(self, sae: TopKSae, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """``TopKSae.encode`` in the kernel's precision, with one reused block of scores."""
        dtype = self._compute_dtype or sae.dtype
        W_enc_DF, b_enc_F, x_BD = sae.W_enc_FD.to(dtype).t(), sae.b_enc_F.to(dtype), x_BD.to(dtype)
        at_once = _CPU_SCORES_AT_ONCE if x_BD.device.type == "cpu" else _SCORES_AT_ONCE
        rows = max(1, min(x_BD.shape[0], at_once // sae.d_sae))
        scores_bF = torch.empty(rows, sae.d_sae, dtype=dtype, device=x_BD.device)
        values, indices = [], []
        for part_bD in x_BD.split(rows):
            part_bF = torch.addmm(b_enc_F, part_bD, W_enc_DF, out=scores_bF[: part_bD.shape[0]])
            values_bK, indices_bK = select_topk(part_bF, sae.k)
            values.append(values_bK.to(sae.dtype))
            indices.append(indices_bK)
        return torch.cat(values), torch.cat(indices)


def _row_products(left_BD: Tensor, rows_FD: Tensor, indices_BK: Tensor) -> Tensor:
    """``left[b] . rows[indices[b, j]]`` for every pair."""
    B, K = indices_BK.shape
    if left_BD.device.type == "cpu" and torch.backends.mkl.is_available() and left_BD.dtype != torch.bfloat16:
        starts_B = torch.arange(0, B * K + 1, K)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR")
            pattern_BF = torch.sparse_csr_tensor(
                starts_B,
                indices_BK.flatten(),
                torch.zeros(B * K, dtype=left_BD.dtype),
                (B, rows_FD.shape[0]),
                check_invariants=False,
            )
            products_BF = torch.sparse.sampled_addmm(pattern_BF, left_BD, rows_FD.t(), beta=0.0)
        return products_BF.values().view(B, K)
    chunk = max(1, _GATHERED_AT_ONCE // (K * rows_FD.shape[1]))
    parts = [
        torch.bmm(rows_FD[indices_bK], left_bD[:, :, None]).squeeze(2)
        for indices_bK, left_bD in zip(indices_BK.split(chunk), left_BD.split(chunk), strict=True)
    ]
    return torch.cat(parts)
