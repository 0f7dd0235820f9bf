"""Exact top-k of many scores per token, ties by lowest index, without sorting them all."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def select_topk(u_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of ``ReLU(u)`` per row as ``(values_BK, indices_BK)``, descending.

    Among scores that equal the smallest kept one, those of lowest index are kept. On a CPU ties are looked for and
    repaired; an accelerator is never waited for.
    """
    if u_BF.device.type == "cpu":
        return by_repair(u_BF, k)
    if u_BF.dtype == torch.float64 or k > u_BF.shape[1] // 4:
        return by_sorting(u_BF, k)
    return by_blocks(u_BF, k)


def by_sorting(u_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The definition: a stable sort."""
    ranked_BF = torch.sort(torch.relu(u_BF), dim=1, descending=True, stable=True)
    return ranked_BF.values[:, :k].contiguous(), ranked_BF.indices[:, :k].contiguous()


def by_repair(u_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``torch.topk``, whose choice among ties is open, and a sort of the rows with a tie at the border."""
    if k == u_BF.shape[1]:
        return by_sorting(u_BF, k)
    values_BK, indices_BK = torch.topk(u_BF, k + 1, dim=1)
    last_B, next_B = values_BK[:, k - 1], values_BK[:, k]
    values_BK, indices_BK = values_BK[:, :k].clamp_min(0), indices_BK[:, :k].contiguous()
    tied_b = ((last_B == next_B) & (next_B > 0)).nonzero().squeeze(1)
    if tied_b.numel():
        values_BK[tied_b], indices_BK[tied_b] = by_sorting(u_BF[tied_b], k)
    return values_BK, indices_BK


def by_blocks(u_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Looks only into the k blocks of largest maximum, and asks nothing of the device.

    Every kept score lies in one of those blocks, because each of them holds a score that beats (or, being of lower
    index, wins a tie with) whatever lies in a block left out. Takes ``k <= F / 4`` and at most float32.
    """
    F = u_BF.shape[1]
    block = 1 << max(1, round(math.log2(math.sqrt(F / k))))
    if F % block:
        u_BF = torch.nn.functional.pad(u_BF, (0, block - F % block), value=-math.inf)
    blocks_BNb = u_BF.unflatten(1, (-1, block))
    # Blocks in ascending order keep the candidates in ascending order of index, which is how ties are decided.
    best_BK = _ranked(blocks_BNb.amax(2), k).sort(dim=1).values
    candidates_BC = blocks_BNb.gather(1, best_BK[:, :, None].expand(-1, -1, block)).flatten(1)
    kept_BK = _ranked(candidates_BC, k)
    # Padding is never kept: it is worth zero and stands behind at least k candidates of the row.
    indices_BK = best_BK.gather(1, kept_BK // block) * block + kept_BK % block
    return candidates_BC.gather(1, kept_BK).clamp_min(0), indices_BK


def _ranked(scores_BN: Tensor, k: int) -> Tensor:
    """Positions of the k largest ``ReLU(scores)``, descending, ties by lowest position.

    The bits of a non-negative float32 sort like integers, so value and position fit one integer that has no ties and
    any ``topk`` orders alike on every device.
    """
    N = scores_BN.shape[1]
    bits_BN = torch.relu(scores_BN.float()).view(torch.int32).long()
    backwards_N = torch.arange(N - 1, -1, -1, device=scores_BN.device)
    keys_BK = torch.topk((bits_BN << 32) | backwards_N, k, dim=1, sorted=True).values
    return N - 1 - (keys_BK & 0xFFFFFFFF)
