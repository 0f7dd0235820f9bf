"""SAE files: the only room that knows the layouts. One in-memory type, :class:`qscope.sae.topk.TopKSae`.

    folder/native/layer0/sae.safetensors + sae.json
    folder/qwen_scope/layer0.sae.pt + layer0.sae.json
    folder/saelens/layer0/sae_weights.safetensors + cfg.json

docs/formats.md has keys, shapes and conversions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from qscope.errors import UserError
from qscope.sae.formats import hub, native, qwen_scope, saelens
from qscope.sae.formats.describe import Description
from qscope.sae.formats.files import refusal
from qscope.sae.formats.releases import RELEASES, Release, ReleaseName, find_release, parse_name
from qscope.sae.topk import TopKSae
from qscope.v1 import sae_pb2

__all__ = [
    "LAYOUTS",
    "RELEASES",
    "Description",
    "Found",
    "Release",
    "ReleaseName",
    "detect",
    "find_release",
    "load",
    "parse_name",
    "refuse_if_foreign",
    "repository_of",
    "save",
]

LAYOUTS: dict[str, ModuleType] = {module.NAME: module for module in (native, qwen_scope, saelens)}
"""Layouts by name, in the order in which they are looked for. Each is a module with ``find``, ``write``, ``read``;
``files`` and ``peek`` (facts) of one SAE; and ``view``, which is ``read`` without copies where the layout allows it."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|SAE-Res-[\w.-]+")


class ModelSize(Protocol):
    """What :func:`refuse_if_foreign` needs to know of a model."""

    d_model: int
    n_layers: int


class SaeWidth(Protocol):
    """What :func:`refuse_if_foreign` needs to know of an SAE: a :class:`TopKSae` or a :class:`Description`."""

    @property
    def d_in(self) -> int: ...


@dataclass(frozen=True)
class Found:
    """SAEs on disk: their layout and, by layer, the file or folder of each."""

    layout: str
    places: dict[int, Path]


def save(
    saes: Mapping[int, TopKSae], folder: Path | str, formats: Iterable[int | str], recipe: Mapping[str, Any]
) -> list[Path]:
    """Writes every SAE in every layout asked for; a file is either the old or the whole new one.

    Args:
        saes: by layer.
        folder: gets one sub-folder per layout.
        formats: names (``"qwen_scope"``) or values of ``qscope.v1.SaeFormat``.
        recipe: JSON object that is written beside the weights; everything needed to train them again.

    Returns:
        The sub-folders, in the order of `formats`.
    """
    names = [_layout_name(item) for item in formats]
    for layer, sae in saes.items():
        assert sae.layer == layer, f"SAE of layer {sae.layer} filed under {layer}"
    written = []
    for name in dict.fromkeys(names):
        place = Path(folder) / name
        for sae in saes.values():
            LAYOUTS[name].write(sae, place, recipe)
        written.append(place)
    return written


def detect(path: Path | str) -> Found:
    """Layout and places of the SAEs in a file or folder.

    A folder written by :func:`save` in several layouts gives the first of native, qwen_scope, saelens.

    Raises:
        UserError: nothing is there (SAE_NOT_FOUND), or what is there is damaged.
    """
    path = Path(path).expanduser()
    for folder, layouts in [(path, LAYOUTS), *((path / name, {name: LAYOUTS[name]}) for name in LAYOUTS)]:
        for name, layout in layouts.items():
            places = layout.find(folder)
            if places:
                return Found(name, dict(sorted(places.items())))
    if not path.exists():
        remedy = "Name a file or folder with SAEs, or a Qwen-Scope repository."
        raise refusal(path, "does not exist", remedy, "SAE_NOT_FOUND")
    known = f"layerN.sae.pt, {native.WEIGHTS} with {native.DOCUMENT}, {saelens.WEIGHTS} with {saelens.DOCUMENT}"
    raise refusal(path, "holds no SAE", f"Known are {known}.", "SAE_NOT_FOUND")


def load(path_or_id: Path | str, layers: Collection[int] | None = None, *, offline: bool = False) -> dict[int, TopKSae]:
    """SAEs by layer, in float32 on the CPU.

    Args:
        path_or_id: a file or folder of any layout, or a repository of the Qwen-Scope release.
        layers: decoder blocks from 0; None means all that are there (for a repository: the whole download).
        offline: never contact the hub.

    Raises:
        UserError: nothing there, a layer is missing, or a file is damaged, hostile or of another architecture.
    """
    wanted = None if layers is None else sorted(set(layers))
    repository = repository_of(path_or_id)
    if repository is not None:
        found = Found(qwen_scope.NAME, hub.fetch(repository, wanted, offline=offline))
    else:
        found = detect(path_or_id)
    missing = [] if wanted is None else [layer for layer in wanted if layer not in found.places]
    if missing:
        raise UserError(
            f"{path_or_id}: there is no SAE of layer {missing[0]}.",
            remedy=f"It holds layers {', '.join(map(str, found.places))}.",
            reason="SAE_LAYER_MISSING",
        )
    read = LAYOUTS[found.layout].read
    return {layer: read(found.places[layer], layer) for layer in (found.places if wanted is None else wanted)}


def repository_of(path_or_id: Path | str) -> str | None:
    """The hub id that is meant, None when it is a path; something on disk of that name comes first."""
    text = str(path_or_id)
    return text if _HUB_ID.fullmatch(text) and not Path(text).expanduser().exists() else None


def refuse_if_foreign(saes: Mapping[int, SaeWidth], model: ModelSize, *, field: str = "") -> None:
    """Refuses SAEs that cannot belong to a model: another width, or a layer it does not have."""
    for layer, sae in saes.items():
        if sae.d_in != model.d_model:
            raise UserError(
                f"The SAE of layer {layer} reads {sae.d_in} dimensions, and the model has {model.d_model}.",
                remedy="Name the model the SAE was trained on.",
                reason="SAE_OF_ANOTHER_MODEL",
                field=field,
            )
        if layer >= model.n_layers:
            raise UserError(
                f"There is an SAE of layer {layer}, and the model's layers are 0 to {model.n_layers - 1}.",
                remedy="Name the model the SAE was trained on.",
                reason="SAE_OF_ANOTHER_MODEL",
                field=field,
            )


def _layout_name(item: int | str) -> str:
    name = item
    if isinstance(item, int) and item in sae_pb2.SaeFormat.values():
        name = sae_pb2.SaeFormat.Name(item).removeprefix("SAE_FORMAT_").lower()
    if name not in LAYOUTS:
        raise UserError(
            f"There is no SAE layout {item!r}.",
            remedy=f"Layouts are {', '.join(LAYOUTS)}.",
            reason="SAE_LAYOUT_UNKNOWN",
        )
    return name
