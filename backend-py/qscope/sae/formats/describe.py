"""The JSON document that travels with an SAE: what the weights alone do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qscope.sae.formats.files import read_json, read_number, refusal
from qscope.sae.topk import TopKSae

FORMAT = "qscope.sae"
VERSION = 1


@dataclass(frozen=True)
class Description:
    """Facts about one SAE that were read from its JSON document."""

    layer: int
    d_in: int
    d_sae: int
    k: int


def describe(sae: TopKSae, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The document of one SAE: conventions spelled out, then the recipe that trained it."""
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "layer": sae.layer,
        "hook_point": "resid_post",
        "hook_module": f"model.layers.{sae.layer}",
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": sae.k,
        "dtype": "float32",
        "activation": "relu, then the k largest",
        "encoder_subtracts_b_dec": False,
        "normalize_activations": "none",
        "recipe": dict(recipe),
    }


def read_description(path: Path) -> Description:
    """The facts of a document written by :func:`describe`."""
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise refusal(path, "does not describe an SAE of qscope", "Name a folder that qscope exported.")
    version = read_number(path, document, "format_version")
    if version > VERSION:
        raise refusal(
            path, f"has format version {version}, newer than {VERSION}", "Update qscope.", "SAE_FORMAT_TOO_NEW"
        )
    return Description(
        layer=read_number(path, document, "layer", at_least=0),
        d_in=read_number(path, document, "d_in"),
        d_sae=read_number(path, document, "d_sae"),
        k=read_number(path, document, "k"),
    )
