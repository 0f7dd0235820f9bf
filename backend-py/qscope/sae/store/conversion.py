"""Converting a group layer by layer: each one is either whole or absent, whatever happens in between."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qscope.errors import UserError
from qscope.runs.files import replacing
from qscope.sae.formats import Description
from qscope.sae.store.folder import free_bytes, size
from qscope.sae.store.layer_file import DamagedStore, LayerFile, Shape, digest_of, write_layer
from qscope.sae.store.manifest import NAME, Identity, LayerRecord, Manifest, read_manifest
from qscope.sae.store.sources import Source, key_of


@dataclass(frozen=True)
class Group:
    """Converted SAEs of one source in one number format: a folder with a manifest and a file per layer."""

    folder: Path
    identity: Identity

    def read(self) -> tuple[Manifest, str]:
        """The manifest and what is wrong with it; an empty one when it is damaged or absent."""
        try:
            manifest = read_manifest(self.folder)
        except DamagedStore as damage:
            return Manifest(self.identity), str(damage)
        if manifest is not None and manifest.identity != self.identity:
            return Manifest(self.identity), f"{self.folder / NAME}: belongs to another group"
        return manifest or Manifest(self.identity), ""

    def fault(self, layer: int, record: LayerRecord, *, verify: bool) -> str:
        """What is wrong with a converted layer, as a sentence without its full stop; empty when nothing is.

        Size and header tell a truncated, replaced or foreign file in microseconds; the digest of every byte takes a
        second per gigabyte or so, at every start. It is computed when a layer is converted and on request, and rows
        carry sums of their own that are compared whenever they are read: no damaged row is handed out in between.
        """
        path = self.folder / record.file
        try:
            LayerFile(path, record.shape(layer, self.identity.torch_dtype), record.vectors_blake2b).close()
            if verify and digest_of(path) != record.blake2b:
                return f"{path}: its digest is not that of the manifest"
        except DamagedStore as damage:
            return str(damage)
        except OSError as error:
            return f"{path}: cannot be read ({error.strerror})"
        return ""

    def is_current(self, layer: int, record: LayerRecord, source: Source) -> bool:
        """Whether a record is of the source's present files; those that are not on this machine cannot have changed."""
        return layer not in source.places or record.source == source.fingerprint(source.places[layer])

    def pending(
        self,
        source: Source,
        layers: Collection[int],
        *,
        verify: bool = False,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> list[int]:
        """Layers that have to be converted: never done, done from other files, or damaged (said to ``tell``)."""
        manifest, damage = self.read()
        if damage:
            tell(f"{damage}; it is built again.")
        pending = []
        for layer in layers:
            record = manifest.layers.get(layer)
            if record is None:
                pending.append(layer)
            elif not self.is_current(layer, record, source):
                tell(f"{source.name}: layer {layer} has changed since it was converted; it is converted again.")
                pending.append(layer)
            elif fault := self.fault(layer, record, verify=verify):
                tell(f"{fault}; it is converted again.")
                pending.append(layer)
        return pending


def file_bytes(identity: Identity, facts: Description) -> int:
    """Size of a layer's file in the store."""
    return Shape(facts.layer, facts.d_in, facts.d_sae, facts.k, identity.torch_dtype).bytes


def refuse_without_room(needed: int, folder: Path, limit: int | None) -> None:
    """Refuses to begin what the disk has no room for.

    Args:
        needed: bytes to be written.
        folder: where.
        limit: bytes that may be written at most; None for what is free.
    """
    free = free_bytes(folder)
    room = free if limit is None else min(free, limit)
    if needed > room:
        raise UserError(
            f"Converting these SAEs writes {size(needed)}, and {size(room)} may be used in {folder.parent}.",
            remedy="Make room there, name fewer layers, or set QSCOPE_CACHE to a folder on a larger disk.",
            reason="SAE_STORE_NO_ROOM",
        )


def convert(
    group: Group, source: Source, layers: Collection[int], *, on_layer: Callable[[int, int], None], verify: bool = False
) -> None:
    """Converts the layers that need it, one after the other.

    Args:
        group: where to.
        source: where from; what the hub alone has is downloaded.
        layers: to convert; those that another process converts meanwhile are left to it.
        on_layer: called with the number of layers done and of all, also before the first; what it raises ends the
            work between two layers.
        verify: whether to read whole files to see that they need no converting.

    Raises:
        UserError: the source is damaged or changes meanwhile, the disk is full or cannot be written.
    """
    for done, layer in enumerate(layers):
        on_layer(done, len(layers))
        _convert_alone(group, source, layer, source.place(layer), verify=verify)
    on_layer(len(layers), len(layers))


def _convert_alone(group: Group, source: Source, layer: int, place: Path, *, verify: bool) -> None:
    try:
        group.folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(group.folder) as alone:
            if alone:
                _remove_remains(group.folder)
            _convert_layer(group, source, layer, place, verify=verify)
    except OSError as error:
        raise UserError(
            f"{group.folder}: cannot be written ({error.strerror or error}).",
            remedy="Make room there, or set QSCOPE_CACHE to a folder that can be written.",
            reason="SAE_STORE_NOT_WRITABLE",
        ) from None
    except DamagedStore as damage:
        raise UserError(
            f"{damage}.", remedy="Set QSCOPE_CACHE to another disk; this one fails.", reason="SAE_STORE_NOT_WRITABLE"
        ) from None


def _convert_layer(group: Group, source: Source, layer: int, place: Path, *, verify: bool) -> None:
    manifest, _ = group.read()
    before, started = source.fingerprint(place), time.perf_counter()
    old = manifest.layers.get(layer)
    if old is not None and old.source == before and not group.fault(layer, old, verify=verify):
        return
    sae = source.view(layer, place)
    path = group.folder / f"layer{layer}-{key_of(before)}.safetensors"
    with replacing(path) as temporary:
        digests = write_layer(temporary, sae, group.identity.torch_dtype)
        if source.fingerprint(place) != before:
            raise UserError(
                f"{place}: changed while it was converted.",
                remedy="Wait until it is written, and run the command again.",
                reason="SAE_FILE_CHANGED",
            )
    manifest.layers[layer] = LayerRecord(
        file=path.name,
        blake2b=digests.file,
        vectors_blake2b=digests.vectors,
        d_in=sae.d_in,
        d_sae=sae.d_sae,
        k=sae.k,
        model=dict(source.describe(layer, place).model),
        source=before,
        source_bytes=sum(entry["bytes"] for entry in before["files"]),
        seconds=round(time.perf_counter() - started, 3),
    )
    # The file was complete before this line names it, and a layer no line names does not exist.
    manifest.write(group.folder)
    for other in group.folder.glob(f"layer{layer}-*.safetensors"):
        if other != path:
            other.unlink(missing_ok=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Keeps other processes out of a group; yields False on a file system without locks.

    There two processes do the same work twice: their files are equal byte for byte, and of two manifests written at
    the same moment one stays, whose missing layer is converted at the next start.
    """
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def _remove_remains(folder: Path) -> None:
    """Removes what killed conversions left; nobody else is writing."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
