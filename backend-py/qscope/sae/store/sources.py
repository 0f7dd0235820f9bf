"""Where SAEs come from, and what tells one state of their files from another; no weights are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qscope.errors import UserError
from qscope.sae import formats
from qscope.sae.formats import Description, Release, hub, qwen_scope
from qscope.sae.formats.releases import model_behind, parse_name
from qscope.sae.topk import TopKSae

_HUB_FOLDER = re.compile(r"models--(?P<organisation>[^/]+?)--(?P<name>[^/]+)")
_SAMPLES, _SAMPLE_BYTES = 16, 4096


@dataclass(frozen=True)
class Source:
    """A group of SAEs in files of any layout, here or on the hub.

    Attributes:
        name: what the user called it.
        layout: one of ``formats.LAYOUTS``.
        layers: decoder blocks with an SAE.
        places: file or folder of those on this machine.
        origin: ``{"repository": id}`` for the hub and its cache, ``{"path": folder}`` for everything else.
        release: the group of the Qwen-Scope release, when it is named by its hub id.
        offline: never contact the hub.
    """

    name: str
    layout: str
    layers: tuple[int, ...]
    places: Mapping[int, Path]
    origin: Mapping[str, str]
    release: Release | None = None
    offline: bool = False

    @property
    def origin_name(self) -> str:
        """The repository or path alone."""
        return next(iter(self.origin.values()))

    @cached_property
    def slug(self) -> str:
        """A short name for folders, of characters that need no quoting: of a run, its folder's."""
        parts = [part for part in self.origin_name.split("/") if part not in ("", "artifacts", "sae", *formats.LAYOUTS)]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", parts[-1] if parts else "").strip(".-")[:64] or "saes"

    def chosen(self, layers: Collection[int] | None) -> list[int]:
        """Layers asked for, ascending; all for None.

        Raises:
            UserError: there is no SAE of one of them (SAE_LAYER_MISSING).
        """
        wanted = list(self.layers) if layers is None else sorted(set(layers))
        for layer in wanted:
            if layer not in self.layers:
                raise missing_layer(self.name, layer, self.layers)
        return wanted

    def place(self, layer: int) -> Path:
        """File or folder of one SAE; downloaded when only the hub has it."""
        if layer in self.places:
            return self.places[layer]
        assert self.release is not None, "a layer neither here nor on the hub"
        return hub.fetch(self.release.repository, [layer], offline=self.offline)[layer]

    def view(self, layer: int, place: Path) -> TopKSae:
        """The SAE in ``place``, mapped rather than copied where its layout allows it."""
        return formats.LAYOUTS[self.layout].view(place, layer)

    def describe(self, layer: int, place: Path) -> Description:
        """Facts of the SAE in ``place``."""
        return formats.LAYOUTS[self.layout].peek(place, layer)

    def peek(self, layer: int) -> Description:
        """Facts of one SAE; for one that is not on this machine, what the release's name promises."""
        if layer in self.places:
            return self.describe(layer, self.places[layer])
        assert self.release is not None, "a layer neither here nor on the hub"
        named = parse_name(self.release.name)
        assert named is not None, "the release follows its own rule"
        return Description(layer, self.release.d_in, self.release.d_sae, self.release.k, model_behind(named))

    def bytes_on_disk(self, layer: int) -> int:
        """Size of the files of one SAE; for one that is not on this machine, of its download."""
        if layer in self.places:
            return sum(path.stat().st_size for path in self.files(self.places[layer]))
        facts = self.peek(layer)
        return 4 * (2 * facts.d_in * facts.d_sae + facts.d_in + facts.d_sae)

    def files(self, place: Path) -> list[Path]:
        """The files behind one SAE."""
        return formats.LAYOUTS[self.layout].files(place)

    def fingerprint(self, place: Path) -> dict[str, Any]:
        """What is compared to tell whether a converted SAE is still that of its source.

        Names, sizes and a sample of the content; the time of change too, save in the hub's cache, where a second
        download changes the time and a commit stands for the content. To read half a gigabyte per layer at every
        start would cost what the store is there to save. The sample is for copies and images that set all times alike:
        retraining changes every value, so any 4 KiB give it away.
        """
        hub_folder = hub_folder_of(place)
        files = []
        for path in self.files(place):
            try:
                status = path.stat()
                entry = {"name": path.name, "bytes": status.st_size, "sample": _sample(path)}
            except OSError as error:
                raise UserError(
                    f"{path}: cannot be read ({error.strerror}).",
                    remedy="Fetch the file again, or name another folder.",
                    reason="SAE_FILE_DAMAGED",
                ) from None
            if hub_folder is None:
                entry["mtime_ns"] = status.st_mtime_ns
            files.append(entry)
        return {"files": files} if hub_folder is None else {"commit": hub_folder[1], "files": files}


def locate(path_or_id: Path | str, *, offline: bool = False) -> Source:
    """Finds SAEs; downloads nothing.

    Files of the release in the hub's cache are taken as they are, the hub is not asked whether there are newer ones.

    Raises:
        UserError: nothing is there, or the repository is not of the release.
    """
    name, repository = str(path_or_id), formats.repository_of(path_or_id)
    if repository is not None:
        release, places = formats.find_release(repository), hub.cached(repository)
        origin = {"repository": release.repository}
        return Source(name, qwen_scope.NAME, tuple(range(release.layers)), places, origin, release, offline)
    found = formats.detect(path_or_id)
    first = next(iter(found.places.values()))
    hub_folder = hub_folder_of(first)
    # The folder of the layers, not what was named: one layer by its own name belongs to the same group.
    origin = {"path": str(first.absolute().parent.resolve())} if hub_folder is None else {"repository": hub_folder[0]}
    return Source(name, found.layout, tuple(found.places), found.places, origin, offline=offline)


def missing_layer(name: str, layer: int, layers: Collection[int]) -> UserError:
    """The refusal of a layer that has no SAE."""
    return UserError(
        f"{name}: there is no SAE of layer {layer}.",
        remedy=f"It holds layers {', '.join(map(str, layers))}.",
        reason="SAE_LAYER_MISSING",
    )


def hub_folder_of(place: Path) -> tuple[str, str] | None:
    """Repository and commit of a file in the hub's cache: ``models--Qwen--NAME/snapshots/COMMIT/...``."""
    parts = place.absolute().parts
    for index in range(len(parts) - 2, 1, -1):
        match = _HUB_FOLDER.fullmatch(parts[index - 2])
        if match is not None and parts[index - 1] == "snapshots":
            return f"{match['organisation']}/{match['name']}", parts[index]
    return None


def key_of(value: Any) -> str:
    """16 hexadecimal digits that stand for a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _sample(path: Path) -> str:
    """Digest of a file's first, last and evenly spaced blocks of 4 KiB; of all of a small one."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for index in range(_SAMPLES):
                block = os.pread(file.fileno(), _SAMPLE_BYTES, (size - _SAMPLE_BYTES) * index // (_SAMPLES - 1))
                digest.update(block)
    return digest.hexdigest()
