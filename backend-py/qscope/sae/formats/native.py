"""qscope's own layout: ``layer{n}/sae.safetensors`` and ``layer{n}/sae.json``, the decoder feature-major.

Rows of both matrices belong to a feature, so one feature is two contiguous reads of a mapped file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qscope.sae.formats.describe import Description, describe, read_description
from qscope.sae.formats.files import (
    check_k,
    check_tensors,
    own_float32,
    read_tensors,
    refusal,
    write_json,
    write_tensors,
)
from qscope.sae.formats.layers import by_layer, layer_folders
from qscope.sae.topk import TopKSae

NAME = "native"
WEIGHTS = "sae.safetensors"
DOCUMENT = "sae.json"


def find(path: Path) -> dict[int, Path]:
    """Folders of single SAEs by layer: `path` itself, or its sub-folders."""
    folders = layer_folders(path, (WEIGHTS, DOCUMENT))
    return by_layer(folders, lambda folder: read_description(folder / DOCUMENT).layer)


def write(sae: TopKSae, folder: Path, recipe: Mapping[str, Any]) -> Path:
    """Writes one SAE under `folder` and returns its own folder."""
    place = folder / f"layer{sae.layer}"
    place.mkdir(parents=True, exist_ok=True)
    # Without its document a half-replaced SAE is refused; with the old one it would be read with the wrong k.
    (place / DOCUMENT).unlink(missing_ok=True)
    write_tensors(
        place / WEIGHTS,
        {
            "W_enc": own_float32(sae.W_enc_FD),
            "W_dec": own_float32(sae.W_dec_FD),
            "b_enc": own_float32(sae.b_enc_F),
            "b_dec": own_float32(sae.b_dec_D),
        },
    )
    write_json(place / DOCUMENT, describe(sae, recipe))
    return place


def files(place: Path) -> list[Path]:
    """The files one SAE consists of."""
    return [place / WEIGHTS, place / DOCUMENT]


def peek(place: Path, layer: int) -> Description:
    """Facts of the SAE in one folder, from its document."""
    description = read_description(place / DOCUMENT)
    if description.layer != layer:
        raise refusal(place, f"holds layer {description.layer}, not {layer}", "Name the folder of that layer.")
    return description


def read(place: Path, layer: int) -> TopKSae:
    """The SAE in one folder."""
    description = peek(place, layer)
    tensors = read_tensors(place / WEIGHTS)
    matrix, d_in, d_sae = (description.d_sae, description.d_in), description.d_in, description.d_sae
    check_tensors(place / WEIGHTS, tensors, {"W_enc": matrix, "W_dec": matrix, "b_enc": (d_sae,), "b_dec": (d_in,)})
    check_k(place / DOCUMENT, description.k, d_sae)
    return TopKSae(tensors["W_enc"], tensors["b_enc"], tensors["W_dec"], tensors["b_dec"], k=description.k, layer=layer)


view = read
"""The layout on disk is that of memory: reading already leaves the tensors mapped."""
