"""The codes of every token and layer to disk, shard by shard; a run that was killed goes on with the next shard.

A shard is a function of its documents alone: they are batched within it, by length. So the bytes do not depend on where
a run was interrupted (on a CPU: at the same number of threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qscope.errors import UserError
from qscope.features.documents import Document, DocumentReader, batches
from qscope.features.reading import Reader
from qscope.features.shards import IDENTITY, MANIFEST, VERSION, Shard, whole_shards, write_shard
from qscope.models import LoadedModel
from qscope.runs.files import read_json, write_json
from qscope.runs.ledger import key_of
from qscope.sae.kernels import encode
from qscope.sae.topk import TopKSae

COLUMNS = {
    "row": "document, numbered over all shards",
    "position": "token of the document, from 0",
    "layer": "decoder block, from 0 (resid_post)",
    "feature": "feature of that layer's SAE",
    "value": "code, after ReLU and top-k; zeros are not stored",
}


@torch.no_grad()
def extract(
    loaded: LoadedModel,
    saes: dict[int, TopKSae],
    reader: DocumentReader,
    folder: Path,
    *,
    identity: dict[str, Any],
    facts: dict[str, Any],
    documents: int,
    shard_documents: int,
    layout: str,
    batch_tokens: int,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Extracts, from the first shard that is not whole on.

    Args:
        loaded: the model.
        saes: encoders by layer.
        reader: a fresh reader of the documents.
        folder: where the shards go.
        identity: everything the shards depend on, as JSON.
        facts: what the manifest records besides.
        documents: how many to read; 0 reads all.
        shard_documents: documents of one shard.
        layout: ``safetensors`` or ``parquet``.
        batch_tokens: tokens of a forward pass, padding included.
        on_progress: called with the documents done.
        should_stop: asked between batches.

    Returns:
        The manifest; None when ``should_stop`` said so (the shards so far are whole).

    Raises:
        UserError: the shards in ``folder`` are of something else (EXTRACT_CHANGED), or there is no text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.tmp"):
        # Half a file of a run that was killed.
        left.unlink()
    identity = {**identity, "layout": layout, "shard_documents": shard_documents, "batch_tokens": batch_tokens}
    key = key_of(identity)
    before = read_json(folder / IDENTITY)
    if before is None and any(folder.glob("shard-*")):
        raise UserError(
            f"{folder} holds shards, and {IDENTITY}, which says what they were extracted from, is missing or damaged.",
            remedy="Restore it, remove the shards, or start a new run.",
            reason="EXTRACT_CHANGED",
        )
    if before is not None and before.get("key") != key:
        changed = [name for name in identity if before.get("identity", {}).get(name) != identity[name]]
        raise UserError(
            f"The activations in {folder} were extracted from something else ({', '.join(changed) or 'a damaged file'}"
            " has changed).",
            remedy="Restore it, or start a new run.",
            reason="EXTRACT_CHANGED",
        )
    write_json(folder / IDENTITY, {"key": key, "identity": identity})
    shards = whole_shards(folder, key)
    if shards:
        reader.load_state(shards[-1]["reader_after"])
    limit = documents or math.inf
    hooked = Reader(loaded, sorted(saes))
    while reader.read < limit and not (shards and shards[-1]["last"]):
        wanted = int(min(shard_documents, limit - reader.read))
        taken = reader.take(wanted) if shards else reader.require(wanted)
        if not taken:
            break
        first_row = reader.read - len(taken)
        not_finite = hooked.not_finite
        shard = _shard(hooked, saes, taken, first_row, batch_tokens, on_progress, should_stop)
        if shard is None:
            return None
        own = {
            "key": key,
            "tokens_not_finite": hooked.not_finite - not_finite,
            "reader_after": reader.state(),
            "last": len(taken) < wanted,
        }
        shards.append(write_shard(folder, len(shards), shard, layout, own))
        on_progress(reader.read)
    manifest = {
        "format": "qscope.activations",
        "format_version": VERSION,
        "key": key,
        "layout": layout,
        **identity,
        **facts,
        "columns": COLUMNS,
        "documents": sum(shard["documents"] for shard in shards),
        "documents_cut_at_context": reader.cut,
        "documents_empty": reader.empty,
        "tokens": sum(shard["tokens"] for shard in shards),
        "tokens_counted": sum(shard["tokens_counted"] for shard in shards),
        "tokens_not_finite": sum(shard["tokens_not_finite"] for shard in shards),
        "codes": sum(shard["codes"] for shard in shards),
        "shards": shards,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def _shard(
    hooked: Reader,
    saes: dict[int, TopKSae],
    documents: Sequence[Document],
    first_row: int,
    batch_tokens: int,
    on_progress: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> Shard | None:
    columns: dict[str, list[torch.Tensor]] = {name: [] for name in ("row", "position", "layer", "feature", "value")}
    done = 0
    offset_R = np.concatenate([[0], np.cumsum([len(document.ids_T) for document in documents])]).astype(np.int64)
    # What counts is what was read: a token that is not finite at some layer was not.
    counts_M = np.zeros(offset_R[-1], dtype=bool)
    for batch in batches(documents, batch_tokens):
        if should_stop():
            return None
        reading = hooked.read(batch, count_norms=False)
        place_N = batch.rows_B.to(reading.row_N.device)[reading.row_N]
        counts_M[offset_R[place_N.cpu().numpy()] + reading.position_N.cpu().numpy()] = True
        row_N = first_row + place_N
        for layer in hooked.layers:
            values_NK, indices_NK = encode(saes[layer], reading.resid[layer])
            n_P, k_P = (values_NK > 0).nonzero(as_tuple=True)
            parts = {
                "row": row_N[n_P],
                "position": reading.position_N[n_P].int(),
                "layer": torch.full_like(n_P, layer, dtype=torch.int32),
                "feature": indices_NK[n_P, k_P].int(),
                "value": values_NK[n_P, k_P],
            }
            for name, part in parts.items():
                columns[name].append(part.cpu())
        done += len(batch.rows_B)
        on_progress(first_row + done)
    return Shard(
        **{f"{name}_P": column for name, column in ordered(columns).items()},
        first_row=first_row,
        number_R=np.array([document.number for document in documents], dtype=np.int64),
        offset_R=offset_R,
        ids_M=np.concatenate([document.ids_T for document in documents]),
        counts_M=counts_M,
    )


def ordered(columns: dict[str, list[torch.Tensor]]) -> dict[str, np.ndarray]:
    """Codes joined and ordered by row, position and layer, within which they keep their order.

    Takes the parts out of ``columns`` one column after the other, so that no more than one is held twice.

    Args:
        columns: by name, parts in the order in which they were read; empty afterwards.
    """
    joined = {name: torch.cat(columns.pop(name)).numpy() for name in list(columns)}
    # Codes come by batch and layer; within a token of one layer they fall already, and a stable sort keeps that.
    order_P = np.lexsort((joined["layer"], joined["position"], joined["row"]))
    for name in list(joined):
        joined[name] = joined[name][order_P]
    return joined
