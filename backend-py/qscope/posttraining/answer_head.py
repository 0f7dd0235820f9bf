"""The output layer at the positions that predict an answer, and nowhere else.

TRL's fused layer (``add_fused_lm_head``) holds no logits of a whole batch. Where Triton cannot run it scores every
position, though, prompts and padding too, so that shapes stay the same, and computes each tile a second time backwards.
On a small model that is most of a step: three quarters of the embedded model's. :func:`add_answer_head` puts itself
before it on a CPU. What it gives is the same: log-probability and entropy by token, zero where there is no label.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qscope.posttraining.sae_loss import answer_mask

#: Logits held at once, without those of their gradient; more are computed piece by piece, and again backwards.
HELD = 1 << 25
#: Settings with which a model changes its logits after the projection; the models that have one keep their own way.
_CHANGED_BY = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)


def add_answer_head(model: nn.Module, *, temperature: float = 1.0, held: int = HELD) -> None:
    """Lets a model be called with ``labels`` and one of two more arguments; after TRL's trainer was made of it.

    * ``fused_lm_head=True``, as TRL's: an output with ``log_probs`` and ``entropy`` [B, T - 1] of the tokens labelled,
      in nats and with their graphs. On a CPU it is computed here, elsewhere by TRL's kernel.
    * ``answer_logits=True``: a dict with ``logits`` [N, V], in the order of ``labels[:, 1:][mask]``, at temperature 1.

    Any other call is the model's own.

    Args:
        model: wrapped by PEFT or not; a model that TRL has not patched knows the second only.
        temperature: that logits are divided by before log-probabilities are taken of them; the one TRL was given.
        held: numbers of logits at once.
    """
    # Slow to import, and plans read this module.
    from torch.distributed.tensor import DTensor
    from trl.trainer.utils import FusedCausalLMOutput

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    theirs = inner.forward
    text_config = inner.config.get_text_config()
    plain = not any(getattr(text_config, name, None) is not None for name in _CHANGED_BY)

    # Their signature stays: ``generate`` reads it.
    @functools.wraps(type(inner).forward)
    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, answer_logits: bool = False, labels: Any = None, **rest: Any
    ) -> Any:
        if answer_logits:
            if not plain:
                return {"logits": theirs(*args, **rest, use_cache=False).logits[:, :-1][answer_mask(labels)[:, 1:]]}
            return {"logits": self.get_output_embeddings()(_hidden(self, labels, args, rest))}
        head = self.get_output_embeddings()
        device = head.weight.device.type
        if not fused_lm_head or not plain or device != "cpu" or isinstance(head.weight, DTensor):
            more = {"labels": labels} if labels is not None else {}
            return theirs(*args, **rest, **more, **({"fused_lm_head": True} if fused_lm_head else {}))
        mask_BT = answer_mask(labels)[:, 1:]
        scores_N2 = answer_scores(
            _hidden(self, labels, args, rest), head, labels[:, 1:][mask_BT], temperature=temperature, held=held
        )
        # Connected to the model even where no token is labelled.
        log_probs, entropy = (
            part_N.new_zeros(mask_BT.shape).masked_scatter(mask_BT, part_N) for part_N in scores_N2.unbind(1)
        )
        return FusedCausalLMOutput(log_probs=log_probs, entropy=entropy, label_mask=mask_BT)

    inner.forward = types.MethodType(forward, inner)


def _hidden(model: Any, labels_BT: Tensor, args: Any, rest: dict[str, Any]) -> Tensor:
    """hidden_ND where an answer token is predicted."""
    hidden_BTD = model.base_model(*args, **{**rest, "use_cache": False}).last_hidden_state
    return hidden_BTD[:, :-1][answer_mask(labels_BT)[:, 1:]]


def answer_scores(
    hidden_ND: Tensor, head: nn.Module, target_N: Tensor, *, temperature: float = 1.0, held: int = HELD
) -> Tensor:
    """Log-probability of each target and entropy of its distribution, in nats, as [N, 2] float32 with its graph.

    Args:
        hidden_ND: before the output layer.
        head: the output layer, V numbers of each row.
        target_N: tokens.
        temperature: that logits are divided by.
        held: numbers of logits at once. With more than that, pieces are computed again backwards.
    """

    def piece(hidden_ND: Tensor, target_N: Tensor) -> Tensor:
        logits_NV = head(hidden_ND).float()
        return _Scores.apply(logits_NV if temperature == 1 else logits_NV / temperature, target_N)

    rows = max(1, held // head.weight.shape[0])
    if len(target_N) <= rows:
        return piece(hidden_ND, target_N)
    return torch.cat(
        [
            checkpoint(piece, *pair, use_reentrant=False, preserve_rng_state=False)
            for pair in zip(hidden_ND.split(rows), target_N.split(rows), strict=True)
        ]
    )


class _Scores(torch.autograd.Function):
    """Both scores from one pass over the logits; one tensor of their size is kept."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, target_N: Tensor) -> Tensor:
        logp_NV = torch.log_softmax(logits_NV, -1)
        entropy_N = -logp_NV.exp().mul_(logp_NV).sum(-1)
        ctx.save_for_backward(logp_NV, target_N, entropy_N)
        return torch.stack([logp_NV.gather(1, target_N[:, None])[:, 0], entropy_N], 1)

    @staticmethod
    def backward(ctx: Any, grad_N2: Tensor) -> tuple[Tensor, None]:
        # d logp_target / d z = onehot - p, d entropy / d z = -p (log p + entropy).
        logp_NV, target_N, entropy_N = ctx.saved_tensors
        by_logp_N, by_entropy_N = grad_N2.unbind(1)
        grad_NV = logp_NV.exp()
        if by_entropy_N.any():
            grad_NV *= -(by_logp_N + by_entropy_N * entropy_N)[:, None] - by_entropy_N[:, None] * logp_NV
        else:
            grad_NV *= -by_logp_N[:, None]
        return grad_NV.scatter_add_(1, target_N[:, None], by_logp_N[:, None]), None
