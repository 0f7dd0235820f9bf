"""The encoder halves of SAEs: all that reading features needs, half the memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from qscope.models import ModelFacts
from qscope.sae import formats
from qscope.sae.formats.releases import find_release
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import ModelRecord, SaeRecord

_SAMPLES = 4096


def sae_layers(place: Path | str) -> list[int]:
    """Layers that have an SAE at a place; a repository of the release is not contacted."""
    if isinstance(place, str):
        return list(range(find_release(place).layers))
    return list(formats.detect(place).places)


def load_encoders(
    place: Path | str,
    layers: Sequence[int],
    facts: ModelFacts,
    *,
    device: torch.device,
    offline: bool = False,
    field: str = "sae",
) -> dict[int, TopKSae]:
    """SAEs by layer in float32, without their decoders, one read after the other.

    Args:
        place: a file or folder with SAEs, or a repository of the Qwen-Scope release.
        layers: decoder blocks, from 0; empty means every layer that has an SAE.
        facts: the model; foreign SAEs are refused.
        device: where the encoders go.
        offline: never contact the hub.
        field: experiment field of the SAEs, for errors.

    Raises:
        UserError: nothing there, a layer missing, a damaged file, or SAEs of another model.
    """
    encoders: dict[int, TopKSae] = {}
    for layer in sorted(layers) or sae_layers(place):
        (sae,) = formats.load(place, [layer], offline=offline).values()
        formats.refuse_if_foreign({layer: sae}, facts, field=field)
        whole = replace(sae, W_dec_FD=torch.empty(0, sae.d_in))
        encoders[layer] = whole.to(device=device, dtype=torch.float32)
    return encoders


def feature_slots(features: Sequence[int], d_sae: int) -> Tensor:
    """For every feature of an SAE its place among a few, int64; -1 for the others."""
    slot_F = torch.full((d_sae,), -1, dtype=torch.int64)
    slot_F[torch.tensor(list(features), dtype=torch.int64)] = torch.arange(len(features))
    return slot_F


def sae_record(sae: TopKSae) -> SaeRecord:
    """Identity of an SAE, by its encoder."""
    state = hashlib.blake2b(digest_size=16)
    for tensor in (sae.W_enc_FD, sae.b_enc_F):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLES)].float().contiguous().cpu()
        state.update(sample.numpy().tobytes())
    return SaeRecord(layer=sae.layer, d_in=sae.d_in, d_sae=sae.d_sae, k=sae.k, fingerprint=state.hexdigest())


def model_record(facts: ModelFacts) -> ModelRecord:
    """Identity of a model, as results carry it."""
    names = [field.name for field in ModelRecord.DESCRIPTOR.fields]
    return ModelRecord(**{name: value for name, value in facts.as_dict().items() if name in names})
