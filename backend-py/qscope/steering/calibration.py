"""What strengths are measured against: median residual norms, and how active a feature gets on ordinary text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from qscope.data import TokenStream, open_text
from qscope.errors import Stopped
from qscope.models import LoadedModel, capture_residuals
from qscope.sae.topk import TopKSae
from qscope.steering.controls import Activity
from qscope.steering.edit import activations
from qscope.steering.saes import Saes
from qscope.steering.scales import Scales
from qscope.v1.text_pb2 import TextSource

#: Enough for a median; a maximum keeps growing with the text, so its size is part of the result.
_TOKENS = 8192
_CONTEXT = 256


def measure_scales(
    loaded: LoadedModel,
    layers: Sequence[int],
    features: Sequence[tuple[int, int]],
    saes: Saes,
    *,
    tokens: int = _TOKENS,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scales:
    """Reads the first ``tokens`` tokens of the embedded held-out text, first tokens of sequences left out.

    Args:
        loaded: the model.
        layers: where the median norm is wanted.
        features: (layer, feature) whose maximum is wanted.
        saes: the SAEs.
        tokens: how much text.
        should_stop: asked before every batch.

    Raises:
        Stopped: when asked to stop.
    """
    stream = _text(loaded)
    wanted = sorted({*layers, *(layer for layer, _ in features)})
    norms: dict[int, list[torch.Tensor]] = {layer: [] for layer in wanted}
    largest: dict[tuple[int, int], float] = {pair: 0.0 for pair in features}
    while stream.tokens < tokens:
        if should_stop():
            raise Stopped
        batch = stream.next_batch(8)
        assert batch is not None, "the embedded text repeats"
        captured = capture_residuals(loaded, wanted, batch.input_ids_BT)
        for layer, resid_BTD in captured.items():
            resid_ND = resid_BTD[:, 1:].flatten(0, 1)
            norms[layer].append(resid_ND.float().norm(dim=1).cpu())
            mine = [feature for at, feature in features if at == layer]
            if mine:
                z_NM = activations(saes.whole(layer), resid_ND, torch.tensor(mine, device=resid_ND.device))
                for feature, value in zip(mine, z_NM.amax(0).tolist(), strict=True):
                    largest[layer, feature] = max(largest[layer, feature], value)
    medians = {layer: torch.cat(parts).median().item() for layer, parts in norms.items()}
    return Scales(medians, largest, f"{stream.tokens:,} tokens of the embedded held-out text")


def measure_activity(
    loaded: LoadedModel,
    sae: TopKSae,
    *,
    tokens: int = _TOKENS,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Activity | None:
    """How active every feature of an SAE is on the same text; tokens that are not finite count nowhere.

    Args:
        loaded: the model.
        sae: on the model's device.
        tokens: how much text.
        on_progress: called with the tokens done, ``tokens`` at most.
        should_stop: asked between batches.

    Returns:
        The activity; None when ``should_stop`` said so.
    """
    stream = _text(loaded)
    fired_F = torch.zeros(sae.d_sae, dtype=torch.float64)
    sum_F = torch.zeros(sae.d_sae, dtype=torch.float64)
    count = 0
    while stream.tokens < tokens:
        if should_stop():
            return None
        batch = stream.next_batch(8)
        assert batch is not None, "the embedded text repeats"
        resid_ND = capture_residuals(loaded, [sae.layer], batch.input_ids_BT)[sae.layer][:, 1:].flatten(0, 1)
        resid_ND = resid_ND[resid_ND.isfinite().all(1)]
        values_NK, indices_NK = (part.cpu() for part in sae.encode(resid_ND.to(sae.dtype)))
        fired_F.index_add_(0, indices_NK.flatten(), (values_NK > 0).double().flatten())
        sum_F.index_add_(0, indices_NK.flatten(), values_NK.double().flatten())
        count += len(resid_ND)
        on_progress(min(stream.tokens, tokens))
    return Activity((fired_F / max(1, count)).float(), (sum_F / max(1, count)).float())


def _text(loaded: LoadedModel) -> TokenStream:
    source = TextSource(source="embedded-heldout", field="text", split="train", context=_CONTEXT, pack=True)
    reader = open_text(source, at="calibration", seed=0)
    return TokenStream(reader, loaded.tokenizer, context=_CONTEXT, pack=True, repeat=True)
