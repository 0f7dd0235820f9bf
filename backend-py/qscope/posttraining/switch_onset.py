"""What the features of languages do before a response switches: pre-activations aligned at the first switched token.

For each response and token it is f - alpha, averaged over the features of one language at one layer: f is the
pre-activation, alpha its mean on text in the language that the response should be in. That is what the SAE loss cuts at
zero (:mod:`.sae_loss`), so its rise above zero before the switch is what the loss acts on. Beside the language that is
switched to stand two controls: the language of the response itself, and all others. Qwen-Scope (arXiv 2605.11887), Fig.
17a, shows the first for five models: it rises over the tokens before the switch and is highest at it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qscope.features.documents import Document, batches, digest_of
from qscope.features.onset import OnsetCurve, curve_of
from qscope.features.reading import Reader
from qscope.models import LoadedModel
from qscope.posttraining.sae_loss import HeldFeatures


class Side(StrEnum):
    """Whose features: the language that is switched to, that of the response, or any other."""

    TARGET = "target"
    OWN = "own"
    OTHERS = "others"


@dataclass(frozen=True)
class Aligned:
    """A prompt with its response, and a token that it is aligned with others at.

    Attributes:
        document: both; the tokens of the response are in group 0, those of the prompt in none.
        place: the token: the first switched one, or of a response that stays, one as deep into it.
        language: that the response should be in, an index into the G languages.
        target: that is switched to, another one.
        switched: whether it does.
    """

    document: Document
    place: int
    language: int
    target: int
    switched: bool


def aligned(
    prompt: Sequence[int], response: Sequence[int], place: int, *, language: int, target: int, switched: bool
) -> Aligned:
    """A response aligned at its own token ``place``, from 0."""
    ids_T = np.array([*prompt, *response], dtype=np.int32)
    group_T = np.full(len(ids_T), -1, dtype=np.int16)
    group_T[len(prompt) :] = 0
    document = Document(0, ids_T, group_T, "", digest_of(ids_T))
    return Aligned(document, len(prompt) + place, language, target, switched)


def first_token(tokenizer: Any, ids: Sequence[int], start: int) -> int:
    """The token that writes a character, the first one where several write parts of it.

    Args:
        tokenizer: of the model.
        ids: tokens of a text.
        start: place of the character in the text.
    """

    def written(count: int) -> int:
        return len(tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    # A text grows with its tokens; a part of a character is shown as one.
    return bisect_left(range(len(ids) + 1), start + 1, key=written) - 1


@torch.no_grad()
def onset_of_switches(
    loaded: LoadedModel,
    held: Sequence[HeldFeatures],
    responses: Sequence[Aligned],
    *,
    before: int,
    after: int,
    batch_tokens: int,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[tuple[int, Side, bool], OnsetCurve] | None:
    """Curves around the switch, and of responses that stay around a token as deep.

    Args:
        loaded: the model that wrote the responses.
        held: features of all languages, one for each layer.
        responses: with the token at which they are aligned.
        before, after: tokens before it, and from it on.
        batch_tokens: tokens of a forward pass, padding included.
        on_progress: called with the responses done.
        should_stop: asked between batches.

    Returns:
        Curves by (layer, side, whether the responses switch); None when ``should_stop`` said so. A side without a
        feature has no documents.
    """
    parts = {part.rows.layer: part.to(loaded.device) for part in held}
    layers, sides, width = sorted(parts), list(Side), before + after
    reader = Reader(loaded, layers)
    shape = (len(responses), width, len(sides))
    excess = {layer: torch.full(shape, math.nan, dtype=torch.float64) for layer in layers}
    place_D = torch.tensor([one.place for one in responses])
    language_D = torch.tensor([one.language for one in responses])
    target_D = torch.tensor([one.target for one in responses])
    done = 0
    for batch in batches([one.document for one in responses], batch_tokens):
        if should_stop():
            return None
        reading = reader.read(batch, count_norms=False)
        response_N = batch.rows_B[reading.row_N.cpu()]
        slot_N = reading.position_N.cpu() - place_D[response_N] + before
        inside_N = (slot_N >= 0) & (slot_N < width)
        response_P, slot_P = response_N[inside_N], slot_N[inside_N]
        for layer in layers:
            resid_PD = reading.resid[layer][inside_N.to(loaded.device)]
            excess[layer][response_P, slot_P] = _by_side(
                parts[layer], resid_PD, language_D[response_P], target_D[response_P]
            )
        done += len(batch.rows_B)
        on_progress(done)
    switched_D = torch.tensor([one.switched for one in responses], dtype=torch.bool)
    return {
        (layer, side, switched): _curve(excess[layer][switched_D == switched, :, slot], before)
        for layer in layers
        for slot, side in enumerate(sides)
        for switched in (True, False)
    }


def _by_side(part: HeldFeatures, resid_PD: Tensor, language_P: Tensor, target_P: Tensor) -> Tensor:
    """Mean of f - alpha over the features of each side [P, sides], float64; NaN for a side without any."""
    u_PM = part.rows.pre_activations(resid_PD).double().cpu()
    away_PM = u_PM - part.alpha_GM.double().cpu()[language_P]
    of_M = part.target_M.cpu()
    target_PM, own_PM = of_M == target_P[:, None], of_M == language_P[:, None]
    means = []
    for among_PM in (target_PM, own_PM, ~(target_PM | own_PM)):
        # 0 / 0 is NaN: a side without features says nothing.
        means.append(torch.where(among_PM, away_PM, 0.0).sum(1) / among_PM.sum(1))
    return torch.stack(means, 1)


def _curve(excess_DW: Tensor, before: int) -> OnsetCurve:
    known_DW = excess_DW.isfinite()
    return curve_of(torch.where(known_DW, excess_DW, 0.0), known_DW, before)


def as_dict(curves: Mapping[tuple[int, Side, bool], OnsetCurve]) -> list[dict[str, Any]]:
    """For JSON: means and standard errors by token, without the values of single responses."""
    return [
        {
            "layer": layer,
            "features_of": str(side),
            "switched": switched,
            "offset": curve.offset_W,
            "mean": curve.mean_W,
            "standard_error": curve.error_W,
            "responses": curve.count_W,
        }
        for (layer, side, switched), curve in curves.items()
    ]
