"""What opening a group would convert, write and need; known before anything is read or written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from qscope.sae.formats import saelens
from qscope.sae.store.conversion import Group, file_bytes
from qscope.sae.store.folder import free_bytes, size
from qscope.sae.store.layer_file import CHUNK_BYTES
from qscope.sae.store.manifest import Manifest
from qscope.sae.store.sources import Source

_WORKING_BYTES = 8 * CHUNK_BYTES
"""Private memory of a conversion whatever the size of the SAE: chunks in two number formats, and the check that all
values are finite. Measured by benchmarks/sae_store.py."""

_FOLDING_BYTES, _FOLDED_BYTES = 32, 8
"""Per weight of a matrix, when a convention of SAELens has to be folded: while it is, with both matrices in float64 on
their way there and back, and then, with both in float32. Whether there is one is not known before the file is read."""

_SPEED_SAMPLE_BYTES = 16 << 20


@dataclass(frozen=True)
class StorePlan:
    """What :func:`qscope.sae.store.open_store` would do.

    Attributes:
        name: what the user called the SAEs.
        layout: of the source.
        folder: where the converted SAEs are, or will be.
        dtype: number format of the matrices there.
        layers: layers asked for.
        all_layers: how many the source has.
        pending: those that must be converted.
        source_bytes: files of the layers asked for.
        download_bytes: the part of them that only the hub has.
        store_bytes: the same layers once converted.
        write_bytes: what converting writes.
        room_bytes: free on the disk of the store.
        peak_bytes: private memory of the conversion; the file being read is mapped besides, and given back on demand.
        encoder_bytes: all encoders asked for, held in the number format of the store.
        seconds: estimate of the conversion, without downloads.
        time_basis: what the estimate rests on.
    """

    name: str
    layout: str
    folder: Path
    dtype: str
    layers: tuple[int, ...]
    all_layers: int
    pending: tuple[int, ...]
    source_bytes: int
    download_bytes: int
    store_bytes: int
    write_bytes: int
    room_bytes: int
    peak_bytes: int
    encoder_bytes: int
    seconds: float
    time_basis: str

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what converting writes."""
        return self.write_bytes <= self.room_bytes

    def facts(self) -> list[tuple[str, str]]:
        """Name and value of each line a person should see before it starts."""
        done, n = len(self.layers) - len(self.pending), len(self.layers)
        download = f", {size(self.download_bytes)} of it to download" if self.download_bytes else ""
        lines = [
            ("SAEs", f"{self.name} ({self.layout})"),
            ("layers", f"{n} of {self.all_layers}, {done} of them converted"),
            ("files", f"{size(self.source_bytes)}{download}"),
            ("store", f"{size(self.store_bytes)} in {self.dtype}, {self.folder}"),
            ("held", f"{size(self.encoder_bytes)} for all encoders in {self.dtype}, twice that with decoders"),
        ]
        if self.pending:
            lines += [
                ("to write", f"{size(self.write_bytes)}, {size(self.room_bytes)} are free"),
                ("memory", f"up to {size(self.peak_bytes)}, one layer at a time"),
                ("time", f"about {self.seconds:.0f} s ({self.time_basis})"),
            ]
        return lines


def plan_folder(group: Group, manifest: Manifest, layers: Collection[int]) -> StorePlan:
    """The plan of a folder of the store that is opened as such: nothing is left to do."""
    records = {layer: manifest.layers[layer] for layer in layers}
    dtype = group.identity.torch_dtype
    return StorePlan(
        name=str(group.folder),
        layout="store",
        folder=group.folder,
        dtype=group.identity.dtype,
        layers=tuple(layers),
        all_layers=len(manifest.layers),
        pending=(),
        source_bytes=0,
        download_bytes=0,
        store_bytes=sum(record.shape(layer, dtype).bytes for layer, record in records.items()),
        write_bytes=0,
        room_bytes=free_bytes(group.folder),
        peak_bytes=0,
        encoder_bytes=sum(record.d_in * record.d_sae for record in records.values()) * dtype.itemsize,
        seconds=0.0,
        time_basis="nothing is converted",
    )


def plan_group(source: Source, group: Group, layers: Collection[int]) -> StorePlan:
    """Plans without side effects; damaged layers count as pending."""
    pending = group.pending(source, layers)
    facts = {layer: source.peek(layer) for layer in layers}
    sizes = {layer: file_bytes(group.identity, facts[layer]) for layer in layers}
    source_bytes = {layer: source.bytes_on_disk(layer) for layer in layers}
    weights = {layer: facts[layer].d_in * facts[layer].d_sae for layer in layers}
    largest = max(weights.values())
    memory = min(_WORKING_BYTES, 32 * largest)
    if source.layout == saelens.NAME:
        memory = max(_FOLDING_BYTES * largest, _FOLDED_BYTES * largest + memory)
    rate, basis = _rate(source, group, pending) if pending else (1.0, "nothing is converted")
    return StorePlan(
        name=source.name,
        layout=source.layout,
        folder=group.folder,
        dtype=group.identity.dtype,
        layers=tuple(layers),
        all_layers=len(source.layers),
        pending=tuple(pending),
        source_bytes=sum(source_bytes.values()),
        download_bytes=sum(source_bytes[layer] for layer in pending if layer not in source.places),
        store_bytes=sum(sizes.values()),
        write_bytes=sum(sizes[layer] for layer in pending),
        room_bytes=free_bytes(group.folder),
        peak_bytes=memory if pending else 0,
        encoder_bytes=sum(weights.values()) * group.identity.torch_dtype.itemsize,
        seconds=sum(source_bytes[layer] for layer in pending) / rate,
        time_basis=basis,
    )


def _rate(source: Source, group: Group, pending: Collection[int]) -> tuple[float, str]:
    """Bytes of source files converted per second, and how that is known."""
    records = group.read()[0].layers.values()
    seconds = sum(record.seconds for record in records)
    if seconds > 0:
        rate = sum(record.source_bytes for record in records) / seconds
        return rate, f"{size(rate)}/s, as the {len(records)} layers converted before"
    here = [layer for layer in pending if layer in source.places]
    if not here:
        return 2e8, "200 MB/s, a guess as nothing was converted yet"
    rate = _measured_rate(max(source.files(source.places[here[0]]), key=lambda path: path.stat().st_size))
    return rate, f"{size(rate)}/s, measured just now on the first file, without writing"


def _measured_rate(path: Path) -> float:
    """Speed of the steps that take most of a conversion, on the beginning of a file."""
    start = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        data = bytearray(file.read(_SPEED_SAMPLE_BYTES))
    values = torch.frombuffer(data, dtype=torch.float32, count=max(1, len(data) // 4)) if len(data) >= 4 else None
    if values is not None:
        torch.isfinite(values).all()
        stored = values.to(torch.bfloat16).view(torch.uint8).numpy()
        for _ in range(2):
            hashlib.blake2b(memoryview(stored))
    return max(1, len(data)) / max(1e-6, time.perf_counter() - start)
