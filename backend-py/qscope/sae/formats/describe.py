"""The JSON document that travels with an SAE: what the weights alone do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qscope.sae.formats.files import read_json, read_number, refusal
from qscope.sae.topk import TopKSae

FORMAT = "qscope.sae"
VERSION = 1


@dataclass(frozen=True)
class Description:
    """Facts about one SAE, known without reading its weights.

    Attributes:
        layer: decoder block whose output it reads, from 0.
        d_in: width of the residual stream.
        d_sae: features.
        k: features kept per token.
        model: what is known of the model it was trained on, in the words of ``ModelFacts``; empty when nothing is.
    """

    layer: int
    d_in: int
    d_sae: int
    k: int
    model: Mapping[str, Any] = field(default_factory=dict)


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
        model=model_of(document.get("recipe")),
    )


def model_of(recipe: Any) -> dict[str, Any]:
    """What a recipe says of its model: the facts recorded in training, else the name in the experiment."""
    if not isinstance(recipe, Mapping):
        return {}
    experiment = recipe.get("experiment")
    for value in (recipe.get("model"), experiment.get("model") if isinstance(experiment, Mapping) else None):
        if isinstance(value, Mapping):
            return {str(key): item for key, item in value.items() if isinstance(item, str | int)}
        if isinstance(value, str) and value:
            return {"name": value}
    return {}
