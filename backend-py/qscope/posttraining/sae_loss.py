"""SASFT's loss: pre-activations of a language's features are held down on text of other languages.

    L = L_CE + weight * (1 / N) sum_tokens sum_s ReLU( f_s(x) - alpha[language, s] )

f_s is the pre-activation w_s . x + b_s of feature s at the output of a decoder block, alpha its mean on the row's
language before training, and N the answer tokens of the whole step, rows of the held language among them (Qwen-Scope,
arXiv 2605.11887, eq. 26-27; SASFT, arXiv 2507.14894). Rows of the language the features stand for add nothing; terms of
several layers and of several languages are added.

``Normalisation.OFFICIAL_CODE`` is what the authors' code computes instead. It differs in four ways:

* each micro-batch has its own mean, added once per micro-batch: with 32 of them the same weight is 32 times as strong;
* so a token weighs more in a micro-batch with few of them;
* the mean is over features as well, where the paper sums;
* the divisor is label tokens x features + 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.global_batch import GlobalBatch

#: Language of a row that no feature is held down on: nobody could tell which it is.
UNTAGGED = -1
#: Label of a token that carries no cross-entropy.
IGNORED_LABEL = -100


class FeatureReduction(StrEnum):
    """What becomes of the features of one language at one layer."""

    MEAN = "mean"
    SUM = "sum"


class Normalisation(StrEnum):
    """What the sum over tokens is divided by."""

    GLOBAL_TOKENS = "global_tokens"
    OFFICIAL_CODE = "official_code"


@dataclass(frozen=True)
class HeldFeatures:
    """What is held down at one layer, by M features and G languages.

    Attributes:
        rows: the features' encoder rows; a feature of two languages stands there twice.
        target_M: the language each stands for, an index into G.
        alpha_GM: thresholds.
        holds_GM: on rows of which languages each is held down.
    """

    rows: FeatureRows
    target_M: Tensor
    alpha_GM: Tensor
    holds_GM: Tensor

    def to(self, device: torch.device | str) -> HeldFeatures:
        """The same elsewhere."""
        moved = {name: getattr(self, name).to(device) for name in ("target_M", "alpha_GM", "holds_GM")}
        return replace(self, rows=self.rows.to(device), **moved)

    def weights(self, reduction: FeatureReduction) -> Tensor:
        """weight_M: 1, or 1 over the number of features of the same language."""
        beside_M = (self.target_M[:, None] == self.target_M).sum(1).to(self.alpha_GM.dtype)
        return 1 / beside_M if reduction is FeatureReduction.MEAN else torch.ones_like(beside_M)


@dataclass(frozen=True)
class SaeLossTerm:
    """The loss of a micro-batch, and what a log tells of it. Nothing here makes a device wait.

    Attributes:
        loss: scalar with its graph, to be added to the cross-entropy.
        excess: by layer, the sum over tokens and features, divided by nothing; no graph.
        active: by layer, pairs of token and feature above their threshold: with none there is no gradient at all.
        held: by layer, pairs that are held down.
    """

    loss: Tensor
    excess: dict[int, Tensor]
    active: dict[int, Tensor]
    held: dict[int, Tensor]


def answer_mask(labels_BT: Tensor) -> Tensor:
    """Answer tokens, at their own index: the position that predicts the first one is not among them."""
    return labels_BT != IGNORED_LABEL


class SaeLoss:
    """The auxiliary loss of micro-batches.

    Args:
        held: one for each layer.
        weight: lambda.
        feature_reduction: over the features of a language at a layer.
        normalisation: see above.

    Raises:
        UserError: a weight that is no positive number (SAE_LOSS_WEIGHT), or several languages or a sum over features
            with the official normalisation, which knows neither (SAE_LOSS_PRESET).
    """

    def __init__(
        self,
        held: Sequence[HeldFeatures],
        *,
        weight: float,
        feature_reduction: FeatureReduction = FeatureReduction.MEAN,
        normalisation: Normalisation = Normalisation.GLOBAL_TOKENS,
    ) -> None:
        assert held, "there is no layer"
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(
                f"The weight of the SAE loss is {weight:g}: it would do nothing, or the reverse of what it is for.",
                remedy="Give a weight above zero, or leave the SAE loss out.",
                reason="SAE_LOSS_WEIGHT",
                field="sft.sae_loss.weight",
            )
        self._official = normalisation is Normalisation.OFFICIAL_CODE
        targets = {int(target) for layer in held for target in layer.target_M}
        if self._official and (len(targets) > 1 or feature_reduction is not FeatureReduction.MEAN):
            what = "one target language" if len(targets) > 1 else "a mean over features"
            raise UserError(
                f"The preset official-code knows {what} only.",
                remedy="Name one language with feature_reduction mean, or leave the preset out.",
                reason="SAE_LOSS_PRESET",
                field="sft.sae_loss.preset",
            )
        self._held = {layer.rows.layer: layer for layer in held}
        assert len(self._held) == len(held), "a layer stands there twice"
        # The official mean over features is in its divisor.
        reduction = FeatureReduction.SUM if self._official else feature_reduction
        self._weights = {layer: part.weights(reduction) for layer, part in self._held.items()}
        self._weight = weight

    @property
    def layers(self) -> list[int]:
        """Decoder blocks whose outputs are read, ascending."""
        return sorted(self._held)

    def __call__(
        self, resids: Mapping[int, Tensor], language: Tensor, answer_BT: Tensor, batch: GlobalBatch
    ) -> SaeLossTerm:
        """The loss of one micro-batch.

        Args:
            resids: resid_BTD by layer, with the graph of the forward pass.
            language: index into the G languages of each row [B], or of each token [B, T] where rows are packed;
                ``UNTAGGED`` for what is left out.
            answer_BT: tokens that count, see :func:`answer_mask`.
            batch: of the step this micro-batch belongs to, counted over the same masks.
        """
        excess, active, held = {}, {}, {}
        terms = []
        for layer in self.layers:
            part, resid_BTD = self._held[layer], resids[layer]
            if part.alpha_GM.device != resid_BTD.device:
                part = self._held[layer] = part.to(resid_BTD.device)
                self._weights[layer] = self._weights[layer].to(resid_BTD.device)
            excess_BTM, held_BTM = excess_over_alpha(part, resid_BTD, language, answer_BT)
            total = (excess_BTM * self._weights[layer].to(excess_BTM.dtype)).sum()
            if self._official:
                tokens = answer_BT.sum().to(total.dtype)
                terms.append(batch.micro_batches * total / (tokens * len(part.rows.features) + 1))
            else:
                terms.append(batch.scale * total)
            excess[layer] = excess_BTM.detach().sum()
            active[layer], held[layer] = (excess_BTM > 0).sum(), held_BTM.sum()
        return SaeLossTerm(self._weight * torch.stack(terms).sum(), excess, active, held)


def excess_over_alpha(
    part: HeldFeatures, resid_BTD: Tensor, language: Tensor, answer_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """ReLU(f - alpha) where a feature is held down, exactly zero elsewhere, and where it is held: both [B, T, M]."""
    assert answer_BT.shape == resid_BTD.shape[:2], "the mask is not that of the residual stream: it may be sharded"
    language_BT = language if language.dim() == 2 else language[:, None].expand(answer_BT.shape)
    known_BT = language_BT.clamp_min(0)
    held_BTM = part.holds_GM[known_BT] & (answer_BT & (language_BT != UNTAGGED))[..., None]
    u_BTM = part.rows.pre_activations(resid_BTD)
    # Chosen and not multiplied: what is not finite at padding stays out, and so does its gradient.
    return torch.where(held_BTM, torch.relu(u_BTM - part.alpha_GM[known_BT].to(u_BTM.dtype)), 0.0), held_BTM
