"""The features of whole texts: the largest activation of each over the tokens that count, and the mean residual.

One pass of the model serves all layers. A text *fires* a feature when it does so at any token that counts (h of
Qwen-Scope, section 5). Nothing here is as large as texts x features: codes are held as sparse rows.

    folder/extract.json             what is pooled, written first
    folder/shard-00000.safetensors  layerN.offset, .feature, .largest, and .mean where residuals are kept
    folder/shard-00000.json         counts and checksum; where there is one, the shard is whole
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from qscope.data import Document
from qscope.errors import UserError
from qscope.features.documents import DocumentReader, batches
from qscope.features.reading import Reader
from qscope.features.shards import IDENTITY, checksum, name_of, whole_shards
from qscope.models import LoadedModel
from qscope.runs.files import read_json, replacing, write_json
from qscope.runs.ledger import key_of
from qscope.sae.kernels import encode
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import Rendering, TokenMasks

#: Texts tokenised at once.
_AT_ONCE = 256


@dataclass(frozen=True)
class PooledLayer:
    """What one layer says of N texts.

    Attributes:
        offset_N1: where each text's features start, and the end of the last; int64.
        feature_P: features that fire, ascending within a text; int32.
        largest_P: largest activation of each, in the SAE's units; float32, above zero.
        mean_ND: mean residual over the tokens that count, zero for a text without any; None where not kept.
    """

    offset_N1: np.ndarray
    feature_P: np.ndarray
    largest_P: np.ndarray
    mean_ND: np.ndarray | None = None

    def matrix(self, d_sae: int) -> sparse.csr_matrix:
        """The largest activations as a sparse ``[N, d_sae]`` matrix."""
        shape = (len(self.offset_N1) - 1, d_sae)
        return sparse.csr_matrix((self.largest_P, self.feature_P, self.offset_N1), shape=shape)


class _Queue:
    """Texts as a source of documents, filled piece by piece."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self.given = 0

    def fill(self, texts: Sequence[str]) -> None:
        self._texts.extend(texts)

    def read_document(self, should_stop: Callable[[], bool] = lambda: False) -> Document | None:
        if not self._texts:
            return None
        self.given += 1
        return Document(self._texts.popleft(), "")


class Pooler:
    """Runs texts through the model and pools what each layer says of them.

    Args:
        loaded: the model.
        saes: encoders by layer.
        context: tokens kept of a text; the rest is cut off.
        rendering: how a text becomes the model's input.
        masks: tokens that do not count.
        batch_tokens: tokens of a forward pass, padding included.
        residuals: layers whose mean residual is kept.
        at: experiment field of the task, for errors.

    Attributes:
        cut: texts that were longer than the context.
        silent: texts without a token that counts; nothing fires in them.
        not_finite: tokens left out because some layer's activation was not finite.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        saes: dict[int, TopKSae],
        *,
        context: int,
        rendering: Rendering,
        masks: TokenMasks,
        batch_tokens: int,
        residuals: Sequence[int] = (),
        at: str = "",
    ) -> None:
        self._saes, self._batch_tokens, self._residuals = saes, batch_tokens, set(residuals)
        self._d_model = loaded.facts.d_model
        self._queue = _Queue()
        self._documents = DocumentReader(
            self._queue,
            loaded.tokenizer,
            context=context,
            rendering=rendering,
            masks=masks,
            at=at,
            rendering_at=f"{at}.rendering",
            masks_at=f"{at}.masks",
        )
        self._hooked = Reader(loaded, sorted(saes))

    @property
    def cut(self) -> int:
        return self._documents.cut

    @property
    def silent(self) -> int:
        return self._documents.empty

    @property
    def not_finite(self) -> int:
        return self._hooked.not_finite

    @torch.no_grad()
    def pool(
        self,
        texts: Sequence[str],
        *,
        on_progress: Callable[[int], None] = lambda done: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> dict[int, PooledLayer] | None:
        """What every layer says of the texts; None when ``should_stop`` said so."""
        first = self._queue.given
        self._queue.fill(texts)
        documents = self._documents.take(len(texts))
        rows = [document.number - first for document in documents]
        parts: dict[int, list[tuple[np.ndarray, ...]]] = {layer: [] for layer in self._hooked.layers}
        means = {
            layer: np.zeros((len(texts), self._d_model), dtype=np.float32)
            for layer in self._hooked.layers
            if layer in self._residuals
        }
        done = 0
        for batch in batches(documents, self._batch_tokens):
            if should_stop():
                return None
            reading = self._hooked.read(batch, count_norms=False)
            row_B = np.array([rows[index] for index in batch.rows_B.tolist()], dtype=np.int64)
            for layer in self._hooked.layers:
                resid_ND = reading.resid[layer]
                values_NK, indices_NK = encode(self._saes[layer], resid_ND)
                pooled = _largest(values_NK, indices_NK, reading.row_N, self._saes[layer].d_sae)
                parts[layer].append((row_B[pooled[0]], *pooled[1:]))
                if layer in means:
                    means[layer][row_B] = _means(resid_ND, reading.row_N, len(row_B)).cpu().numpy()
            done += len(row_B)
            on_progress(done)
        return {layer: _ordered(parts[layer], len(texts), self._saes[layer].d_sae, means.get(layer)) for layer in parts}


def _largest(
    values_NK: torch.Tensor, indices_NK: torch.Tensor, row_N: torch.Tensor, d_sae: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row of the batch, feature and largest activation of every pair that fires."""
    fires_NK = values_NK > 0
    keys_M = (row_N[:, None] * d_sae + indices_NK)[fires_NK]
    unique_P, place_M = torch.unique(keys_M, return_inverse=True)
    largest_P = torch.zeros(len(unique_P), dtype=torch.float32, device=keys_M.device)
    largest_P.scatter_reduce_(0, place_M, values_NK[fires_NK].float(), "amax")
    unique_P = unique_P.cpu().numpy()
    return unique_P // d_sae, (unique_P % d_sae).astype(np.int32), largest_P.cpu().numpy()


def _means(resid_ND: torch.Tensor, row_N: torch.Tensor, rows: int) -> torch.Tensor:
    # Float64 sums: a text may have thousands of tokens, and an attention sink among them.
    sums_BD = torch.zeros(rows, resid_ND.shape[1], dtype=torch.float64, device=resid_ND.device)
    sums_BD.index_add_(0, row_N, resid_ND.double())
    counts_B = torch.bincount(row_N, minlength=rows).clamp_min(1)
    return (sums_BD / counts_B[:, None]).float()


def _ordered(parts: list[tuple[np.ndarray, ...]], texts: int, d_sae: int, mean_ND: np.ndarray | None) -> PooledLayer:
    types = (np.int64, np.int32, np.float32)
    row_P, feature_P, largest_P = (
        np.concatenate([part[index] for part in parts]).astype(kind) if parts else np.zeros(0, kind)
        for index, kind in enumerate(types)
    )
    order_P = np.argsort(row_P * d_sae + feature_P, kind="stable")
    offset_N1 = np.searchsorted(row_P[order_P], np.arange(texts + 1)).astype(np.int64)
    return PooledLayer(offset_N1, feature_P[order_P], largest_P[order_P], mean_ND)


def texts_as_read(tokenizer: Any, texts: Sequence[str], context: int) -> list[str]:
    """What of each text its first ``context`` tokens hold: for baselines that read words, so that they see no more.

    Args:
        tokenizer: the model's; one without offsets gives its tokens back as text instead.
        texts: the texts.
        context: tokens of a text at most.
    """
    parts = []
    for start in range(0, len(texts), _AT_ONCE):
        piece = list(texts[start : start + _AT_ONCE])
        encoded = tokenizer(
            piece,
            add_special_tokens=False,
            return_offsets_mapping=tokenizer.is_fast,
            return_attention_mask=False,
            verbose=False,
        )
        for index, text in enumerate(piece):
            ids = encoded["input_ids"][index]
            if len(ids) <= context:
                parts.append(text)
            elif tokenizer.is_fast:
                parts.append(text[: encoded["offset_mapping"][index][context - 1][1]])
            else:
                parts.append(tokenizer.decode(ids[:context]))
    return parts


def pool_to_disk(
    pooler: Pooler,
    texts: Sequence[str],
    folder: Path,
    *,
    identity: dict[str, Any],
    shard_texts: int,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Pools | None:
    """Pools texts shard by shard, from the first shard that is not whole on.

    Args:
        pooler: what runs the texts.
        texts: the texts.
        folder: where the shards go.
        identity: everything the shards depend on, as JSON.
        shard_texts: texts of one shard; a shard is a function of its texts alone.
        on_progress: called with the texts done.
        should_stop: asked between batches.

    Returns:
        The pools; None when ``should_stop`` said so (the shards so far are whole).

    Raises:
        UserError: the shards in ``folder`` are of something else (EXTRACT_CHANGED).
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.tmp"):
        # Half a file of a run that was killed.
        left.unlink()
    identity = {**identity, "shard_texts": shard_texts, "texts": len(texts)}
    key = key_of(identity)
    before = read_json(folder / IDENTITY)
    if before is None and any(folder.glob("shard-*")):
        raise UserError(
            f"{folder} holds shards, and {IDENTITY}, which says what they were pooled from, is missing or damaged.",
            remedy="Restore it, remove the shards, or start a new run.",
            reason="EXTRACT_CHANGED",
        )
    if before is not None and before.get("key") != key:
        changed = [name for name in identity if before.get("identity", {}).get(name) != identity[name]]
        raise UserError(
            f"The activations in {folder} are of something else: {', '.join(changed) or 'a damaged file'} has changed.",
            remedy="Restore it, or start a new run.",
            reason="EXTRACT_CHANGED",
        )
    write_json(folder / IDENTITY, {"key": key, "identity": identity})
    shards = whole_shards(folder, key)
    for index in range(len(shards), -(-len(texts) // shard_texts)):
        start = index * shard_texts
        before_cut, before_silent, before_finite = pooler.cut, pooler.silent, pooler.not_finite
        pooled = pooler.pool(
            texts[start : start + shard_texts],
            on_progress=lambda done, start=start: on_progress(start + done),
            should_stop=should_stop,
        )
        if pooled is None:
            return None
        tensors = {
            f"layer{layer}.{name}": np.ascontiguousarray(array)
            for layer, one in pooled.items()
            for name, array in (
                ("offset", one.offset_N1),
                ("feature", one.feature_P),
                ("largest", one.largest_P),
                ("mean", one.mean_ND),
            )
            if array is not None
        }
        path = folder / f"{name_of(index)}.safetensors"
        with replacing(path) as temporary:
            save_file(tensors, temporary)
        description = {
            "shard": index,
            "key": key,
            "texts": len(texts[start : start + shard_texts]),
            "cut": pooler.cut - before_cut,
            "silent": pooler.silent - before_silent,
            "not_finite": pooler.not_finite - before_finite,
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": checksum(path)}},
        }
        write_json(folder / f"{name_of(index)}.json", description)
        shards.append(description)
    return Pools(folder, shards)


class Pools:
    """Pooled texts on disk, read layer by layer.

    Attributes:
        cut, silent, not_finite: as in :class:`Pooler`, over all shards.
    """

    def __init__(self, folder: Path, shards: Sequence[dict[str, Any]]) -> None:
        self._paths = [folder / f"{name_of(shard['shard'])}.safetensors" for shard in shards]
        self.cut, self.silent, self.not_finite = (
            sum(shard[name] for shard in shards) for name in ("cut", "silent", "not_finite")
        )

    def layer(self, layer: int) -> PooledLayer:
        """What one layer says of all texts."""
        from safetensors import safe_open

        found: dict[str, list[np.ndarray]] = {"offset": [], "feature": [], "largest": [], "mean": []}
        base = 0
        for path in self._paths:
            with safe_open(path, framework="numpy") as shard:
                names = set(shard.keys())
                for name in found:
                    if f"layer{layer}.{name}" in names:
                        found[name].append(shard.get_tensor(f"layer{layer}.{name}"))
            offset_N1 = found["offset"][-1]
            found["offset"][-1] = offset_N1[:-1] + base
            base += int(offset_N1[-1])
        return PooledLayer(
            np.concatenate([*found["offset"], np.array([base])]),
            np.concatenate(found["feature"]),
            np.concatenate(found["largest"]),
            np.concatenate(found["mean"]) if found["mean"] else None,
        )
