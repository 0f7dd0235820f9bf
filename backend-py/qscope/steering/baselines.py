"""Directions that need no single feature: the difference of two means, plain and denoised by the SAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qscope.data import TokenStream
from qscope.errors import Stopped, UserError
from qscope.models import LoadedModel, capture_residuals
from qscope.steering.groups import groups_of, turned
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.saes import Saes


@dataclass
class ClassMeans:
    """Moments of one class of text at one layer, over its tokens.

    Attributes:
        count: tokens.
        resid_D: mean residual.
        code_F: mean activations; empty where no SAE was asked.
        square_F: mean squared activations; likewise.
    """

    count: int
    resid_D: Tensor
    code_F: Tensor
    square_F: Tensor


@torch.no_grad()
def class_means(
    loaded: LoadedModel,
    stream: TokenStream,
    tokens: int,
    saes: Saes | None,
    layers: list[int],
    *,
    on_progress: Callable[[int, int], None] = lambda read, wanted: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, ClassMeans]:
    """Means by layer over about ``tokens`` tokens, first tokens of sequences and padding left out; float64.

    Args:
        loaded: the model.
        stream: text of one class.
        tokens: how many to read at least.
        saes: read the activations; without them only residuals are, and no SAE need exist.
        layers: decoder blocks.
        on_progress: called with the tokens read so far and those wanted.
        should_stop: asked before every pass.

    Raises:
        Stopped: when asked to stop.
        UserError: the text holds no tokens (NO_TEXT).
    """
    sums: dict[int, list[Tensor]] = {}
    count = 0
    while count < tokens:
        if should_stop():
            raise Stopped
        batch = stream.next_batch(8)
        if batch is None:
            break
        kept_BT = batch.attention_mask_BT & ~batch.first_token_BT
        mask_BT = None if bool(batch.attention_mask_BT.all()) else batch.attention_mask_BT
        captured = capture_residuals(loaded, layers, batch.input_ids_BT, mask_BT)
        for layer, resid_BTD in captured.items():
            d_sae = saes.d_sae(layer) if saes is not None else 0
            known = sums.setdefault(
                layer, [torch.zeros(size, dtype=torch.float64) for size in (loaded.facts.d_model, d_sae, d_sae)]
            )
            resid_ND = resid_BTD[kept_BT.to(resid_BTD.device)]
            known[0] += resid_ND.double().sum(0).cpu()
            if saes is not None:
                sae = saes.whole(layer)
                values_NK, indices_NK = (part.cpu() for part in sae.encode(resid_ND.to(sae.dtype)))
                known[1].index_add_(0, indices_NK.flatten(), values_NK.double().flatten())
                known[2].index_add_(0, indices_NK.flatten(), values_NK.double().square().flatten())
        count += int(kept_BT.sum())
        on_progress(count, max(tokens, count))
    if count < 2:
        raise UserError(
            "The text of a baseline holds no tokens.",
            remedy="Give steer.baselines.positives and negatives text of their own.",
            reason="NO_TEXT",
            field="steer.baselines",
        )
    return {layer: ClassMeans(count, *(part / count for part in parts)) for layer, parts in sums.items()}


def diff_in_means(positive: ClassMeans, negative: ClassMeans) -> Tensor:
    """Direction [D]: mean residual of the positives minus that of the negatives."""
    return (positive.resid_D - negative.resid_D).float()


def sdcv(positive: ClassMeans, negative: ClassMeans, saes: Saes, layer: int, latents: int) -> Tensor:
    """Direction [D]: the difference of the mean reconstructions from the latents that separate the classes best.

    A latent's separation is the difference of its means over its pooled standard deviation (Cohen's d). SDCV (arXiv
    2505.15038) does not state its formula; this is ours.
    """
    difference_F = positive.code_F - negative.code_F
    variance_F = sum(part.square_F - part.code_F.square() for part in (positive, negative)) / 2
    separation_F = difference_F.abs() / variance_F.clamp_min(1e-12).sqrt()
    # A latent that never fires in either class has no variance and no difference: nothing, not infinity.
    separation_F[difference_F == 0] = 0
    kept = separation_F.topk(min(latents, len(separation_F))).indices
    return difference_F[kept].float() @ saes.directions(layer, kept.tolist())


def with_directions(spec: ResolvedSpec, directions: Mapping[int, Tensor], name: str) -> ResolvedSpec:
    """The spec with its changes turned into other directions, each as long as before.

    Edits that add up to one change become one edit, as long as their sum (:func:`qscope.steering.groups.groups_of`).

    Raises:
        UserError: a direction is zero (BASELINE_EMPTY).
    """
    edits = []
    for group in groups_of(spec):
        layer = group[0].layer
        if not directions[layer].norm() > 0:
            raise UserError(
                f"The baselines' positives and negatives do not differ at layer {layer}.",
                remedy="Give steer.baselines texts that differ in what is wanted.",
                reason="BASELINE_EMPTY",
                field="steer.baselines",
            )
        edits.append(turned(group, directions[layer]))
    return ResolvedSpec(tuple(edits), spec.conflict, spec.abort_when, f"{name}:{spec.hash}")
