"""Where an SAE reads, put to the test: it must reconstruct its own hook point better than its neighbours.

Counting layers from 1, hooking the input of a block instead of its output, or subtracting b_dec where the SAE does not
all run without an error and give plausible features. A reconstruction on a short text tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.models import LoadedModel, capture_residuals
from qscope.sae.formats import refuse_if_foreign
from qscope.sae.metrics import ReconstructionStats
from qscope.sae.topk import TopKSae

MARGIN = 0.02
"""Another candidate is better when its FVU is lower by this share: with a b_dec near zero both conventions are the same
but for rounding, and a warning must mean something."""

FEW_TOKENS = 16
"""Below this many tokens FVU is mostly noise."""

_MAX_NORM_RATIO = 10.0
"""Attention sinks reach a hundred times the median norm and would be all that FVU measures; trainers drop them too."""

EXPECTED = "expected"
CANDIDATES = {
    EXPECTED: "the output of block {layer}",
    "below": "the output of block {below}",
    "above": "the output of block {above}",
    "b_dec_subtracted": "the output of block {layer} with b_dec subtracted before the encoder",
}
"""What is compared, in words. The neighbour below is also the input of the block."""


@dataclass(frozen=True)
class HookReport:
    """Fraction of variance unexplained, by layer and candidate.

    Attributes:
        fvu: ``{layer: {candidate: FVU}}``; candidates are the keys of :data:`CANDIDATES` that exist for the layer.
        tokens: tokens measured.
        warnings: a sentence for each layer whose expected hook point is not the best, or measures nothing.
    """

    fvu: Mapping[int, Mapping[str, float]]
    tokens: int
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict:
        """The report for a file; an FVU that does not exist is null."""
        layers = {
            str(layer): {name: value if math.isfinite(value) else None for name, value in row.items()}
            for layer, row in self.fvu.items()
        }
        return {"tokens": self.tokens, "fvu": layers, "warnings": list(self.warnings)}


@torch.no_grad()
def hook_self_test(
    loaded: LoadedModel,
    saes: Mapping[int, TopKSae],
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor | None = None,
) -> HookReport:
    """Compares the hook point of each SAE with its neighbours and with the other encode convention.

    One forward pass serves all layers. First tokens, padding and norm outliers are left out, at a layer and its
    neighbours alike, so that every candidate is measured on the same tokens.

    Args:
        loaded: the model.
        saes: by layer; taken one at a time, so a lazy mapping keeps only one in memory.
        input_ids_BT: a short ordinary text, a hundred tokens or so.
        attention_mask_BT: nonzero where there is a token; None when nothing is padded.

    Raises:
        UserError: an SAE of another width or of a layer the model lacks, or no token is left to measure.
    """
    layers, n_layers = sorted(saes), loaded.facts.n_layers
    for layer in layers:
        if layer >= n_layers:
            refuse_if_foreign({layer: saes[layer]}, loaded.facts)
    near = {layer: [other for other in (layer - 1, layer, layer + 1) if 0 <= other < n_layers] for layer in layers}
    hooked = sorted({other for others in near.values() for other in others})
    resids = capture_residuals(loaded, hooked, input_ids_BT, attention_mask_BT)
    mask_BT = torch.ones_like(input_ids_BT) if attention_mask_BT is None else attention_mask_BT
    eligible_BT = _without_first(mask_BT.to(loaded.device) != 0)

    fvu: dict[int, dict[str, float]] = {}
    warnings: list[str] = []
    fewest = int(eligible_BT.sum())
    for layer in layers:
        sae = saes[layer]
        refuse_if_foreign({layer: sae}, loaded.facts)
        sae = sae.to(device=loaded.device, dtype=torch.float32)
        keep_BT = eligible_BT.clone()
        for other in near[layer]:
            keep_BT &= _ordinary(resids[other], eligible_BT)
        tokens = int(keep_BT.sum())
        if tokens == 0:
            raise UserError(
                "The text has no token on which a hook point can be tested.",
                remedy="Give a few sentences of ordinary text.",
                reason="TEXT_TOO_SHORT",
            )
        fewest = min(fewest, tokens)
        x_by_layer = {other: resids[other][keep_BT].float() for other in near[layer]}
        fvu[layer] = _candidates(sae, layer, x_by_layer)
        warnings += _judge(layer, fvu[layer])
    if fewest < FEW_TOKENS:
        warnings.append(f"The hook points were tested on {fewest} tokens only; give a longer text.")
    return HookReport(fvu, fewest, warnings)


def _candidates(sae: TopKSae, layer: int, x_by_layer: Mapping[int, Tensor]) -> dict[str, float]:
    x_ND = x_by_layer[layer]
    measured = {EXPECTED: _fvu(x_ND, sae.reconstruct(x_ND))}
    for name, other in (("below", layer - 1), ("above", layer + 1)):
        if other in x_by_layer:
            measured[name] = _fvu(x_by_layer[other], sae.reconstruct(x_by_layer[other]))
    measured["b_dec_subtracted"] = _fvu(x_ND, sae.decode(*sae.encode(x_ND - sae.b_dec_D)))
    return measured


def _fvu(x_ND: Tensor, x_hat_ND: Tensor) -> float:
    stats = ReconstructionStats(x_ND.shape[1])
    stats.add(x_ND, x_hat_ND)
    return stats.results()["fvu"]


def _judge(layer: int, measured: Mapping[str, float]) -> list[str]:
    expected = measured[EXPECTED]
    best = min(measured, key=lambda name: measured[name] if math.isfinite(measured[name]) else math.inf)
    if best != EXPECTED and not measured[best] >= (1 - MARGIN) * expected:
        words = CANDIDATES[best].format(layer=layer, below=layer - 1, above=layer + 1)
        return [
            f"Layer {layer}: the SAE explains {words} better than its hook point (FVU {measured[best]:.3f} against "
            f"{expected:.3f}): its layers may be counted otherwise, or it is not of this model."
        ]
    if not expected < 1:
        return [
            f"Layer {layer}: the SAE explains none of its hook point (FVU {expected:.3f}): it is not of this model, or "
            "the text is far from what it was trained on."
        ]
    return []


def _without_first(mask_BT: Tensor) -> Tensor:
    """The mask without the first token of each row, wherever padding puts it."""
    return mask_BT & (mask_BT.cumsum(1) > 1)


def _ordinary(resid_BTD: Tensor, eligible_BT: Tensor) -> Tensor:
    """Where the norm is finite and at most ten times the median of the eligible ones."""
    norms_BT = torch.linalg.vector_norm(resid_BTD, dim=-1, dtype=torch.float32)
    finite_BT = torch.isfinite(norms_BT)
    counted = norms_BT[eligible_BT & finite_BT]
    if counted.numel() == 0:
        return torch.zeros_like(eligible_BT)
    return finite_BT & (norms_BT <= _MAX_NORM_RATIO * counted.median())
