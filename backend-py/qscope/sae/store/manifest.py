"""The manifest of a group: what was converted, from what, and the digests of the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from qscope.errors import UserError
from qscope.runs.files import write_json
from qscope.sae.formats import Description
from qscope.sae.store.layer_file import DTYPES, DamagedStore, Shape
from qscope.sae.store.sources import key_of

FORMAT = "qscope.sae-store"
VERSION = 1
NAME = "manifest.json"


@dataclass(frozen=True)
class LayerRecord:
    """One converted SAE.

    Attributes:
        file: name inside the group's folder.
        blake2b: digest of the whole file.
        vectors_blake2b: digest of what follows the matrices.
        d_in: width of the residual stream.
        d_sae: features.
        k: features kept per token.
        model: what the source says of the model it was trained on.
        source: state of the source's files, see ``Source.fingerprint``.
        source_bytes: size of those files.
        seconds: time the conversion took.
    """

    file: str
    blake2b: str
    vectors_blake2b: str
    d_in: int
    d_sae: int
    k: int
    model: Mapping[str, Any]
    source: Mapping[str, Any]
    source_bytes: int
    seconds: float

    def shape(self, layer: int, dtype: torch.dtype) -> Shape:
        return Shape(layer, self.d_in, self.d_sae, self.k, dtype)

    def description(self, layer: int) -> Description:
        return Description(layer, self.d_in, self.d_sae, self.k, self.model)


@dataclass(frozen=True)
class Identity:
    """What a group is, whatever has been converted of it; its key names the folder.

    Attributes:
        origin: repository or path, see ``Source.origin``.
        layout: layout of the source.
        dtype: number format of the matrices in the store.
    """

    origin: Mapping[str, str]
    layout: str
    dtype: str

    @property
    def key(self) -> str:
        return key_of({"format": FORMAT, "format_version": VERSION, **asdict(self)})

    @property
    def origin_name(self) -> str:
        """The repository or path alone."""
        return next(iter(self.origin.values()))

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]


@dataclass
class Manifest:
    """The document of a group; ``layers`` by number."""

    identity: Identity
    layers: dict[int, LayerRecord] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Replaces the manifest in one step."""
        document = {
            "format": FORMAT,
            "format_version": VERSION,
            "key": self.identity.key,
            "identity": asdict(self.identity),
            "layers": {str(layer): asdict(record) for layer, record in sorted(self.layers.items())},
        }
        write_json(folder / NAME, document | {"digest": key_of(document)})


def is_store(folder: Path) -> bool:
    """Whether a folder is a group of the store, whole or damaged."""
    return (folder / NAME).is_file() and '"qscope.sae-store"' in _text(folder / NAME)[:4096]


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder; None when there is none yet.

    Raises:
        DamagedStore: it is not what was written.
        UserError: it was written by a newer qscope (SAE_FORMAT_TOO_NEW).
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        document = json.loads(_text(path))
        digest = document.pop("digest")
        version = document["format_version"]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise DamagedStore(f"{path}: is not a manifest") from None
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"{path}: has format version {version}, newer than {VERSION}.",
            remedy="Update qscope, or remove the folder to convert again.",
            reason="SAE_FORMAT_TOO_NEW",
        )
    if digest != key_of(document) or document.get("format") != FORMAT:
        raise DamagedStore(f"{path}: was changed after it was written")
    # The digest says that we wrote it; only another version of us could have used other keys.
    try:
        identity = Identity(**document["identity"])
        DTYPES[identity.dtype]
        layers = {int(layer): LayerRecord(**record) for layer, record in document["layers"].items()}
    except (TypeError, ValueError, KeyError, AttributeError):
        raise DamagedStore(f"{path}: is not a manifest of this version") from None
    return Manifest(identity, layers)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
