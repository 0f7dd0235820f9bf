"""What stands beside the cross-entropy in supervised fine-tuning: the SAE loss, or one of what it is compared with.

Every term is a sum over the answer tokens of a micro-batch times :attr:`GlobalBatch.scale`, so that its gradient is
that of the mean over all answer tokens of the step, whatever the micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as nnf
from torch import Tensor

from qscope.posttraining.dead_signal import refuse_dead_capture
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.sae_loss import UNTAGGED, SaeLoss, answer_mask


@dataclass(frozen=True)
class Forward:
    """A micro-batch after its forward pass.

    Attributes:
        inputs: what the model took.
        labels_BT, language_BT: of each token at its own index.
        batch: of the step.
        resids: resid_BTD by layer, where a term asked for them.
        logits_NV: of the positions that predict an answer token, in the order of ``labels_BT[:, 1:][mask]``; None where
            no term asked for them.
        entropy: summed over those positions, with its graph; None where no term asked.
    """

    inputs: Mapping[str, Tensor]
    labels_BT: Tensor
    language_BT: Tensor | None
    batch: GlobalBatch
    resids: Mapping[int, Tensor] = field(default_factory=dict)
    logits_NV: Tensor | None = None
    entropy: Tensor | None = None

    @property
    def answer_BT(self) -> Tensor:
        """Tokens that are trained on, at their own index."""
        return answer_mask(self.labels_BT)

    def of_answers(self, values_BT: Tensor) -> Tensor:
        """Values of answer tokens [N], in the order of ``logits_NV``."""
        return values_BT[:, 1:][self.answer_BT[:, 1:]]


#: Of the pairs of token and feature that are held down, the share above its threshold: at 0 there is no gradient.
ACTIVE = "sae_active_share"
#: Name to sum and count, for the log: their means are over a window of steps.
Numbers = dict[str, tuple[Tensor, Tensor | float]]


class Term(Protocol):
    """Something that is added to the cross-entropy.

    Attributes:
        name: of its value in the log, its weight included.
        layers: decoder blocks whose outputs it reads.
        logits: whether it needs the whole distribution of the next token.
    """

    name: str
    layers: tuple[int, ...]
    logits: bool

    def __call__(self, made: Forward) -> tuple[Tensor, Numbers]:
        """The term of a micro-batch, with its graph and weight, and what is told of it."""
        ...


class SaeTerm:
    """The SAE loss, on the features of languages or on others that are as often active."""

    name = "sae_loss"
    logits = False

    def __init__(self, loss: SaeLoss) -> None:
        self._loss, self._looked = loss, False
        self.layers = tuple(loss.layers)

    def __call__(self, made: Forward) -> tuple[Tensor, Numbers]:
        if not self._looked:
            # Once, on real tensors: what the settings say may still be undone by a wrapper.
            refuse_dead_capture(made.resids, self.layers)
            self._looked = True
        assert made.language_BT is not None, "batches have no languages"
        term = self._loss(made.resids, made.language_BT, made.answer_BT, made.batch)
        active = torch.stack(list(term.active.values())).sum()
        held = torch.stack(list(term.held.values())).sum()
        return term.loss, {ACTIVE: (active, held)}


class EntropyTerm:
    """Minus a weight times the entropy of the next token, in nats: a bonus on being unsure."""

    name = "entropy_loss"
    layers = ()
    logits = False

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def __call__(self, made: Forward) -> tuple[Tensor, Numbers]:
        assert made.entropy is not None
        return -self._weight * made.batch.scale * made.entropy, {}


class KlTerm:
    """A weight times KL(model || model before training) of the next token, in nats, over the whole vocabulary.

    Args:
        weight: of the term.
        start: the model before training, which :func:`~qscope.posttraining.answer_head.add_answer_head` was told of.
        without_adapters: switches them off while it is entered.
    """

    name = "kl_loss"
    layers = ()
    logits = True

    def __init__(
        self,
        weight: float,
        start: Callable[..., object],
        without_adapters: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self._weight, self._start, self._without = weight, start, without_adapters

    def __call__(self, made: Forward) -> tuple[Tensor, Numbers]:
        assert made.logits_NV is not None
        with torch.no_grad(), self._without():
            before_NV = self._start(**made.inputs, labels=made.labels_BT, answer_logits=True)["logits"]
            logp0_NV = torch.log_softmax(before_NV.float(), dim=-1)
        logp_NV = torch.log_softmax(made.logits_NV.float(), dim=-1)
        total = (logp_NV.exp() * (logp_NV - logp0_NV)).sum()
        return self._weight * made.batch.scale * total, {"kl": (total, float(len(logp_NV)))}


class TokenProbabilityTerm:
    """A weight times the probability that the next token is one of the target languages', summed over those tokens.

    Args:
        weight: of the term.
        held_GV: by language of the row, tokens of the target languages that are foreign to it, bool.
    """

    name = "token_probability_loss"
    layers = ()
    logits = True

    def __init__(self, weight: float, held_GV: Tensor) -> None:
        self._weight, self._held_GV = weight, held_GV

    def __call__(self, made: Forward) -> tuple[Tensor, Numbers]:
        assert made.logits_NV is not None
        assert made.language_BT is not None
        self._held_GV = self._held_GV.to(made.logits_NV.device)
        language_N = made.of_answers(made.language_BT)
        known_N = language_N != UNTAGGED
        held_NV = self._held_GV[language_N.clamp_min(0)] & known_N[:, None]
        # A model may have more logits than its tokenizer has tokens.
        held_NV = nnf.pad(held_NV, (0, made.logits_NV.shape[-1] - held_NV.shape[-1]))
        probability_NV = torch.softmax(made.logits_NV.float(), dim=-1)
        total = torch.where(held_NV, probability_NV, 0.0).sum()
        return self._weight * made.batch.scale * total, {"token_probability": (total, float(len(language_N)))}
