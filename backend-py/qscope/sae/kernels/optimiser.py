"""The update shared by the kernels written in torch: exact clipping, Adam, unit decoder rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adam import adam as adam_step

from qscope.sae.kernels.base import AdamRates, AdamState, Gradients
from qscope.sae.topk import TopKSae


@torch.no_grad()
def update(sae: TopKSae, grads: Gradients, adam: AdamState, rates: AdamRates) -> Tensor:
    """See ``Kernel.update``."""
    radial_F = (grads.W_dec_FD * sae.W_dec_FD).sum(1)
    grads.W_dec_FD.addcmul_(radial_F[:, None], sae.W_dec_FD, value=-1)
    norm = torch.stack([torch.linalg.vector_norm(tensor) for tensor in grads.tensors()]).norm()
    # Adam divides gradients by this on the fly, which saves a pass over them; a tensor, so the device never waits.
    divisor = (norm / rates.clip_norm).clamp_min(1.0) if rates.clip_norm > 0 else None
    if divisor is not None:
        divisor = divisor.to(torch.float32)
    parameters = list(sae.tensors().values())
    steps = [torch.tensor(float(adam.steps), device=sae.device) for _ in parameters]
    adam_step(
        parameters,
        grads.tensors(),
        adam.first.tensors(),
        adam.second.tensors(),
        [],
        steps,
        fused=True,
        amsgrad=False,
        beta1=rates.beta1,
        beta2=rates.beta2,
        lr=rates.learning_rate,
        weight_decay=0.0,
        eps=rates.epsilon,
        maximize=False,
        grad_scale=divisor,
    )
    adam.steps += 1
    sae.W_dec_FD.div_(sae.W_dec_FD.norm(dim=1, keepdim=True))
    return norm
