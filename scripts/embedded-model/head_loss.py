"""Cross-entropy over a vocabulary without ever holding all the logits.

For a small model the head is half the work, and on a CPU much of that is traffic: logits of 4096 tokens times 8192
pieces are 134 MB, written and read five times over. In slices that stay in cache a training step takes a fifth less.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -100
_SLICE = 256  # tokens: 8 MB of float32 logits at 8192 pieces


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        count = (targets_N != IGNORED).sum().clamp(min=1)
        total = hidden_ND.new_zeros(())
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD)
        for at in range(0, len(hidden_ND), _SLICE):
            part_SD, targets_S = hidden_ND[at : at + _SLICE], targets_N[at : at + _SLICE]
            kept_S = targets_S != IGNORED
            safe_S = targets_S.clamp(min=0)
            logits_SV = part_SD @ weight_VD.T
            norms_S = logits_SV.logsumexp(-1)
            total += ((norms_S - logits_SV.gather(1, safe_S[:, None])[:, 0]) * kept_S).sum()
            # d loss / d logits = (softmax - one hot) / count
            probabilities_SV = logits_SV.sub_(norms_S[:, None]).exp_()
            probabilities_SV.scatter_add_(1, safe_S[:, None], -torch.ones_like(part_SD[:, :1]))
            probabilities_SV *= (kept_S / count)[:, None]
            torch.mm(probabilities_SV, weight_VD, out=grad_hidden_ND[at : at + _SLICE])
            grad_weight_VD.addmm_(probabilities_SV.T, part_SD)
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD)
        return total / count

    @staticmethod
    def backward(ctx, grad: Tensor):
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        return grad_hidden_ND * grad, grad_weight_VD * grad, None


def head_loss(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Mean cross-entropy of `hidden @ weight.T` against targets; IGNORED ones do not count. Gradients are exact."""
    return _HeadLoss.apply(hidden_ND, weight_VD, targets_N)
