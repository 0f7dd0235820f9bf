"""The SAE store: SAEs of any layout, converted once, of which then only the rows needed are read.

    ~/.cache/qscope/store/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50-0123456789abcdef/
        manifest.json                          where from, digests, sizes, the model trained on
        layer0-89abcdef01234567.safetensors    one SAE; the digits stand for the state of its source

docs/formats.md says what is in it and how to remove it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import torch

from qscope.errors import UserError
from qscope.sae.identity import SaeFacts
from qscope.sae.store.conversion import Group, convert, file_bytes, refuse_without_room
from qscope.sae.store.folder import group_folder, store_root
from qscope.sae.store.layer_file import DTYPES, DamagedStore
from qscope.sae.store.manifest import Identity, Manifest, is_store, read_manifest
from qscope.sae.store.planning import StorePlan, plan_folder, plan_group
from qscope.sae.store.reading import SaeStore
from qscope.sae.store.sources import Source, locate, missing_layer

__all__ = ["SaeStore", "StorePlan", "open_store", "plan", "read_facts", "store_root"]


def open_store(
    path_or_id: Path | str,
    layers: Collection[int] | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    verify: bool = False,
    offline: bool = False,
    host_bytes: int | None = None,
    device_bytes: int | None = None,
    disk_bytes: int | None = None,
    shares: SaeStore | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
    on_layer: Callable[[int, int], None] = lambda done, count: None,
) -> SaeStore:
    """Opens SAEs for reading by rows, after converting those that were not or whose files have changed.

    Args:
        path_or_id: a file or folder of any layout, a repository of the Qwen-Scope release, or a folder of the store.
        layers: decoder blocks from 0; None for all there are (for a repository: the whole download).
        dtype: number format of the matrices in the store, bfloat16 or float32. Each has a store of its own.
        verify: compare every byte with its digest, instead of sizes and headers.
        offline: never contact the hub.
        host_bytes: budget for whole layers held in host memory; None for half of what is free.
        device_bytes: the same on an accelerator.
        shares: an open store whose budgets are used, instead of new ones.
        disk_bytes: what may be written at most; None for what is free on the disk.
        tell: takes sentences about damaged and changed layers.
        on_layer: called with the number of layers converted and to convert; may raise to stop between two.

    Raises:
        UserError: nothing there, a layer is missing, a file is damaged, hostile or of another architecture, no room.
    """
    folder = Path(path_or_id).expanduser()
    if is_store(folder):
        return _open_folder(
            folder, layers, verify=verify, host_bytes=host_bytes, device_bytes=device_bytes, shares=shares
        )
    source = locate(path_or_id, offline=offline)
    wanted, group = source.chosen(layers), _group(source, dtype)
    pending = group.pending(source, wanted, verify=verify, tell=tell)
    if pending:
        needed = sum(file_bytes(group.identity, source.peek(layer)) for layer in pending)
        refuse_without_room(needed, group.folder, disk_bytes)
        convert(group, source, pending, on_layer=on_layer, verify=verify)
    limits = {"host_bytes": host_bytes, "device_bytes": device_bytes, "shares": shares}
    return _opened(source.name, group, group.read()[0], wanted, **limits)


def plan(
    path_or_id: Path | str,
    layers: Collection[int] | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    offline: bool = False,
) -> StorePlan:
    """What :func:`open_store` with the same arguments would convert and need; changes nothing, downloads nothing."""
    folder = Path(path_or_id).expanduser()
    if is_store(folder):
        manifest = _manifest(folder)
        return plan_folder(Group(folder, manifest.identity), manifest, _chosen(folder, manifest, layers))
    source = locate(path_or_id, offline=offline)
    return plan_group(source, _group(source, dtype), source.chosen(layers))


def read_facts(path_or_id: Path | str, layers: Collection[int] | None = None, *, offline: bool = False) -> SaeFacts:
    """What is known of SAEs without reading weights, converting or downloading; for ``identity.check_pair``."""
    folder = Path(path_or_id).expanduser()
    if is_store(folder):
        manifest = _manifest(folder)
        saes = {layer: manifest.layers[layer].description(layer) for layer in _chosen(folder, manifest, layers)}
        return SaeFacts(manifest.identity.origin_name, saes)
    source = locate(path_or_id, offline=offline)
    return SaeFacts(source.origin_name, {layer: source.peek(layer) for layer in source.chosen(layers)})


def _group(source: Source, dtype: torch.dtype) -> Group:
    name = next((name for name, known in DTYPES.items() if known == dtype), None)
    if name is None:
        raise UserError(
            f"The SAE store cannot hold {str(dtype).removeprefix('torch.')}.",
            remedy=f"Use one of {', '.join(DTYPES)}.",
            reason="SAE_STORE_DTYPE",
        )
    identity = Identity(dict(source.origin), source.layout, name)
    return Group(group_folder(store_root(), source.slug, identity), identity)


def _open_folder(
    folder: Path,
    layers: Collection[int] | None,
    *,
    verify: bool,
    host_bytes: int | None,
    device_bytes: int | None,
    shares: SaeStore | None,
) -> SaeStore:
    """Opens a folder of the store itself: whatever it was converted from may be gone."""
    manifest = _manifest(folder)
    group, wanted = Group(folder, manifest.identity), _chosen(folder, manifest, layers)
    for layer in wanted:
        if fault := group.fault(layer, manifest.layers[layer], verify=verify):
            raise _beyond_repair(fault)
    limits = {"host_bytes": host_bytes, "device_bytes": device_bytes, "shares": shares}
    return _opened(str(folder), group, manifest, wanted, has_source=False, **limits)


def _manifest(folder: Path) -> Manifest:
    try:
        manifest = read_manifest(folder)
    except DamagedStore as damage:
        raise _beyond_repair(str(damage)) from None
    assert manifest is not None, "is_store saw a manifest"
    return manifest


def _chosen(folder: Path, manifest: Manifest, layers: Collection[int] | None) -> list[int]:
    wanted = sorted(manifest.layers if layers is None else set(layers))
    for layer in wanted:
        if layer not in manifest.layers:
            raise missing_layer(str(folder), layer, sorted(manifest.layers))
    return wanted


def _opened(
    name: str, group: Group, manifest: Manifest, layers: Collection[int], **options: int | bool | SaeStore | None
) -> SaeStore:
    try:
        records = {layer: manifest.layers[layer] for layer in layers}
        return SaeStore(name, group, records, **options)
    except (KeyError, DamagedStore):
        # It was whole a moment ago: another process is at it, or someone removes the store.
        raise UserError(
            f"{group.folder}: was changed by another process meanwhile.",
            remedy="Run the command again.",
            reason="SAE_STORE_DAMAGED",
        ) from None


def _beyond_repair(fault: str) -> UserError:
    return UserError(
        f"{fault}.",
        remedy="Name the folder or repository it was converted from, to convert it again.",
        reason="SAE_STORE_DAMAGED",
    )
