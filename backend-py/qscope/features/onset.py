"""What features do where a loop begins to repeat: their mean activation token by token, aligned at the onset.

The *onset* of a loop is the first token of its second repetition: the first one that says again what was said. The
figure that shows it for released SAEs is Qwen-Scope's Fig. 19.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qscope.features.documents import Document, batches
from qscope.features.encoders import feature_slots
from qscope.features.reading import Reader
from qscope.features.stats import GroupStats
from qscope.models import LoadedModel
from qscope.sae.kernels import encode
from qscope.sae.topk import TopKSae


@dataclass(frozen=True)
class Aligned:
    """A document and the token at which it is aligned with others; its tokens that count are in group 0."""

    document: Document
    onset: int


@dataclass(frozen=True)
class OnsetCurve:
    """One feature's mean activation by distance from the onset, over documents.

    Attributes:
        offset_W: tokens from the onset, ascending; 0 is the onset.
        mean_W: mean activation; NaN where no document has a token that counts.
        error_W: its standard error over documents; NaN below two.
        count_W: documents.
        before_D, after_D: mean activation of each document before and from the onset on, inside the window; NaN where
            nothing counts.
    """

    offset_W: list[int]
    mean_W: list[float]
    error_W: list[float]
    count_W: list[int]
    before_D: list[float]
    after_D: list[float]


@torch.no_grad()
def onset_curves(
    loaded: LoadedModel,
    saes: Mapping[int, TopKSae],
    documents: Sequence[Aligned],
    features: Mapping[int, Sequence[int]],
    *,
    before: int,
    after: int,
    batch_tokens: int,
    groups: Sequence[int] | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[tuple[int, int, int], OnsetCurve] | None:
    """Curves of a few features of every layer, from one pass of the model over the documents.

    Args:
        loaded: the model.
        saes: encoders by layer, on the model's device.
        documents: what is read, each with its onset.
        features: features by layer.
        before, after: tokens before the onset, and from it on.
        batch_tokens: tokens of a forward pass, padding included.
        groups: group of each document, whose means are kept apart; None puts all into group 0.
        on_progress: called with the documents done.
        should_stop: asked between batches.

    Returns:
        Curves by (group, layer, feature); None when ``should_stop`` said so. Memory is documents x window x features.
    """
    layers = sorted(features)
    reader = Reader(loaded, layers)
    width = before + after
    acts = {layer: torch.zeros(len(documents), width, len(features[layer]), dtype=torch.float64) for layer in layers}
    counts_DW = torch.zeros(len(documents), width, dtype=torch.bool)
    slots = {layer: feature_slots(features[layer], saes[layer].d_sae).to(loaded.device) for layer in layers}
    onset_D = torch.tensor([aligned.onset for aligned in documents])
    done = 0
    for batch in batches([aligned.document for aligned in documents], batch_tokens):
        if should_stop():
            return None
        reading = reader.read(batch, count_norms=False)
        document_N = batch.rows_B[reading.row_N.cpu()]
        place_N = reading.position_N.cpu() - onset_D[document_N] + before
        inside_N = (place_N >= 0) & (place_N < width)
        counts_DW[document_N[inside_N], place_N[inside_N]] = True
        for layer in layers:
            values_NK, indices_NK = encode(saes[layer], reading.resid[layer])
            slot_NK = slots[layer][indices_NK]
            n_P, k_P = ((slot_NK >= 0) & (values_NK > 0)).nonzero(as_tuple=True)
            values_P, slot_P, n_P = values_NK[n_P, k_P].double().cpu(), slot_NK[n_P, k_P].cpu(), n_P.cpu()
            kept_P = inside_N[n_P]
            acts[layer][document_N[n_P][kept_P], place_N[n_P][kept_P], slot_P[kept_P]] = values_P[kept_P]
        done += len(batch.rows_B)
        on_progress(done)
    group_D = torch.tensor(groups if groups is not None else [0] * len(documents), dtype=torch.int64)
    return {
        (group, layer, feature): curve_of(acts[layer][group_D == group, :, slot], counts_DW[group_D == group], before)
        for group in sorted({0, *group_D.tolist()})
        for layer in layers
        for slot, feature in enumerate(features[layer])
    }


def curve_of(acts_DW: Tensor, counts_DW: Tensor, before: int) -> OnsetCurve:
    """Means over documents of what counts; ``acts_DW`` is zero where nothing does."""
    count_W = counts_DW.sum(0)
    mean_W = acts_DW.sum(0) / count_W
    away_DW = torch.where(counts_DW, acts_DW - mean_W, 0.0)
    error_W = (away_DW.square().sum(0) / (count_W - 1).clamp_min(0) / count_W).sqrt()
    after_D = acts_DW[:, before:].sum(1) / counts_DW[:, before:].sum(1)
    return OnsetCurve(
        list(range(-before, acts_DW.shape[1] - before)),
        mean_W.tolist(),
        error_W.nan_to_num(math.nan, math.nan, math.nan).tolist(),
        count_W.tolist(),
        (acts_DW[:, :before].sum(1) / counts_DW[:, :before].sum(1)).tolist(),
        after_D.tolist(),
    )


@torch.no_grad()
def matched_features(
    loaded: LoadedModel,
    saes: Mapping[int, TopKSae],
    documents: Sequence[Document],
    chosen: Mapping[int, int],
    taken: Mapping[int, Sequence[int]],
    *,
    batch_tokens: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, int] | None:
    """For one feature of each layer another that is about as active on ordinary text.

    It is the control of a curve: chosen without a look at the loops, so what the curve of the first does beyond it is
    not what any feature of that activity does.

    Args:
        loaded: the model.
        saes: encoders by layer.
        documents: ordinary text; what counts is in group 0.
        chosen: the feature of each layer.
        taken: features of each layer that must not be chosen.
        batch_tokens: tokens of a forward pass, padding included.
        should_stop: asked between batches.

    Returns:
        Features by layer, of nearest mean activation, the lower id first; None when ``should_stop`` said so.
    """
    layers = sorted(chosen)
    reader = Reader(loaded, layers)
    sums = {layer: GroupStats(1, saes[layer].d_sae, loaded.device) for layer in layers}
    for batch in batches(documents, batch_tokens):
        if should_stop():
            return None
        reading = reader.read(batch, count_norms=False)
        for layer in layers:
            sums[layer].add(*encode(saes[layer], reading.resid[layer]), reading.group_N, reading.row_N)
    matched = {}
    for layer in layers:
        mean_F = sums[layer].sum_GF[0]
        distance_F = (mean_F - mean_F[chosen[layer]]).abs()
        # A feature that never fires is nobody's equal, and neither are those looked at.
        distance_F[mean_F == 0] = math.inf
        distance_F[torch.tensor([*taken[layer], chosen[layer]], device=mean_F.device)] = math.inf
        if bool(distance_F.isfinite().any()):
            matched[layer] = int(distance_F.argmin())
    return matched
