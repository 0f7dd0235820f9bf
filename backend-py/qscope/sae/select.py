"""Exact top-k of many scores per token, without sorting them.

``torch.topk`` reads a row of F scores several times. Here each row is cut into blocks and only the k blocks of largest
maximum are looked at: every kept score lies in one of them, because each of those k blocks holds at least one score
that beats whatever lies in a block left out. The result is the exact top-k, ties by lowest index included.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def select_topk(u_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of ``ReLU(u)`` per row as ``(values_BK, indices_BK)``, descending, ties by lowest index."""
    F = u_BF.shape[1]
    if u_BF.dtype == torch.float64 or k > F // 4:
        return _by_sorting(u_BF, k)
    block = 1 << max(1, round(math.log2(math.sqrt(F / k))))
    if F % block:
        u_BF = torch.nn.functional.pad(u_BF, (0, block - F % block), value=-math.inf)
    blocks_BNb = u_BF.unflatten(1, (-1, block))
    best_BK = _ranked(blocks_BNb.amax(2), k)
    # Blocks in ascending order keep the candidates in ascending order of index, which is how ties are decided.
    best_BK = best_BK.sort(dim=1).values
    candidates_BC = blocks_BNb.gather(1, best_BK[:, :, None].expand(-1, -1, block)).flatten(1)
    kept_BK = _ranked(candidates_BC, k)
    values_BK = candidates_BC.gather(1, kept_BK).clamp_min(0)
    # Padding is never kept: it is worth zero and stands behind at least k candidates of the row.
    indices_BK = best_BK.gather(1, kept_BK // block) * block + kept_BK % block
    return values_BK, indices_BK


def _by_sorting(u_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    ranked_BF = torch.sort(torch.relu(u_BF), dim=1, descending=True, stable=True)
    return ranked_BF.values[:, :k].contiguous(), ranked_BF.indices[:, :k].contiguous()


def _ranked(scores_BN: Tensor, k: int) -> Tensor:
    """Positions of the k largest ``ReLU(scores)``, ties by lowest position.

    The bits of a non-negative float32 sort like integers, so value and position fit one integer that has no ties and
    any ``topk`` orders alike on every device.
    """
    N = scores_BN.shape[1]
    bits_BN = torch.relu(scores_BN.float()).view(torch.int32).long()
    backwards_N = torch.arange(N - 1, -1, -1, device=scores_BN.device)
    keys_BK = torch.topk((bits_BN << 32) | backwards_N, k, dim=1, sorted=True).values
    return N - 1 - (keys_BK & 0xFFFFFFFF)
