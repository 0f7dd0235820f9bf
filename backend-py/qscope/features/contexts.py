"""Where features fire most: the largest activations with their surroundings, one context a document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qscope.features.documents import Document, batches
from qscope.features.encoders import feature_slots
from qscope.features.reading import Reader
from qscope.features.shards import Shard
from qscope.models import LoadedModel
from qscope.sae.kernels import encode
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import FeatureContext, FeatureContexts

#: Features of one collector: activations are held dense, tokens of a pass x these.
FEATURES_AT_ONCE = 256


def in_slices(features: Sequence[int]) -> list[list[int]]:
    """Features in parts of at most :data:`FEATURES_AT_ONCE`, a collector each."""
    return [list(features[start : start + FEATURES_AT_ONCE]) for start in range(0, len(features), FEATURES_AT_ONCE)]


class Collector(Protocol):
    """Takes the activations of a few features of one layer, batch by batch."""

    features: list[int]

    def add(self, acts_BTM: Tensor, ids_BT: Tensor, length_B: Tensor, number_B: Tensor, tokens: int) -> None:
        """Adds documents, on the CPU; see :meth:`TopContexts.add`."""
        ...


class TopContexts:
    """The best contexts of a few features of one layer.

    Memory is features x (contexts + documents of a batch) x window, whatever the number of documents.

    Args:
        features: features of the layer.
        contexts: contexts kept of each.
        before, after: tokens of the window on either side of the largest activation.
    """

    def __init__(self, features: Sequence[int], contexts: int, before: int, after: int) -> None:
        self.features, self._keep = list(features), contexts
        self._offset_W = torch.arange(-before, after + 1)
        count, width = len(self.features), before + after + 1
        self._peak_MC = torch.zeros(count, 0)
        self._number_MC = torch.zeros(count, 0, dtype=torch.int64)
        self._position_MC = torch.zeros(count, 0, dtype=torch.int64)
        self._ids_MCW = torch.zeros(count, 0, width, dtype=torch.int64)
        self._acts_MCW = torch.zeros(count, 0, width)
        self._tokens = 0
        self._hits_M = torch.zeros(count, dtype=torch.int64)
        self._sum_M = torch.zeros(count, dtype=torch.float64)

    def add(self, acts_BTM: Tensor, ids_BT: Tensor, length_B: Tensor, number_B: Tensor, tokens: int) -> None:
        """Adds documents, on the CPU.

        Args:
            acts_BTM: activations of the features, in their order; 0 where a token does not count.
            ids_BT: token ids.
            length_B: tokens of each document.
            number_B: each document's place in its source; of equal activations the lower number is kept.
            tokens: tokens that count.
        """
        self._tokens += tokens
        self._hits_M += (acts_BTM > 0).sum((0, 1))
        self._sum_M += acts_BTM.double().sum((0, 1))
        peak_MB = acts_BTM.amax(1).t()
        places_T = torch.arange(acts_BTM.shape[1])
        is_peak_BTM = acts_BTM == peak_MB.t()[:, None]
        position_MB = torch.where(is_peak_BTM, places_T[None, :, None], acts_BTM.shape[1]).amin(1).t()
        window_MBW = position_MB[:, :, None] + self._offset_W
        inside_MBW = (window_MBW >= 0) & (window_MBW < length_B[None, :, None])
        row_B1 = torch.arange(len(ids_BT))[None, :, None]
        within_MBW = window_MBW.clamp(0, acts_BTM.shape[1] - 1)
        slot_M = torch.arange(len(self.features))[:, None, None]
        # -1 stands for "outside the document".
        ids_MBW = torch.where(inside_MBW, ids_BT[row_B1, within_MBW], -1)
        acts_MBW = acts_BTM[row_B1, within_MBW, slot_M] * inside_MBW
        number_MB = number_B.expand(len(self.features), -1)
        self._merge(peak_MB, number_MB, position_MB, ids_MBW, acts_MBW)

    def _merge(self, *new: Tensor) -> None:
        old = (self._peak_MC, self._number_MC, self._position_MC, self._ids_MCW, self._acts_MCW)
        both = [torch.cat([one, other], dim=1) for one, other in zip(old, new, strict=True)]
        by_number = both[1].argsort(dim=1, stable=True)
        by_peak = both[0].gather(1, by_number).argsort(dim=1, descending=True, stable=True)
        order = by_number.gather(1, by_peak)[:, : self._keep]

        def picked(tensor: Tensor) -> Tensor:
            index = order if tensor.dim() == 2 else order[:, :, None].expand(-1, -1, tensor.shape[2])
            return tensor.gather(1, index)

        (self._peak_MC, self._number_MC, self._position_MC, self._ids_MCW, self._acts_MCW) = map(picked, both)

    def results(self, layer: int, tokenizer: Any) -> Iterator[FeatureContexts]:
        """The features in their order, each with its contexts of falling activation."""
        for slot, feature in enumerate(self.features):
            found = FeatureContexts(
                layer=layer,
                feature=feature,
                rate=int(self._hits_M[slot]) / max(1, self._tokens),
                mean=float(self._sum_M[slot]) / max(1, self._tokens),
                tokens=self._tokens,
            )
            for place in range(self._peak_MC.shape[1]):
                peak = float(self._peak_MC[slot, place])
                if peak <= 0:
                    break
                found.max_activation = max(found.max_activation, peak)
                inside_W = self._ids_MCW[slot, place] >= 0
                tokens = token_texts(tokenizer, self._ids_MCW[slot, place][inside_W].tolist())
                # What lies before the peak and inside the document.
                before = int(inside_W[self._offset_W < 0].sum())
                found.contexts.append(
                    FeatureContext(
                        document=int(self._number_MC[slot, place]),
                        position=int(self._position_MC[slot, place]),
                        activation=peak,
                        text="".join(tokens),
                        tokens=tokens,
                        activations=self._acts_MCW[slot, place][inside_W].tolist(),
                        peak=before,
                    )
                )
            yield found


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Tokens as text, so that their concatenation is the text of all.

    A character may take several tokens (of bytes); it stands with the last of them. Bytes that never become a
    character stand as U+FFFD.
    """
    texts: list[str] = []
    start = 0
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # A character takes four bytes at most: what is still open after that is no character.
        if whole.endswith("\ufffd") and end - start < 4 and end < len(ids):
            texts.append("")
            continue
        texts.append(whole)
        start = end
    return texts


@torch.no_grad()
def contexts_of_text(
    loaded: LoadedModel,
    saes: dict[int, TopKSae],
    documents: Sequence[Document],
    tops: Mapping[int, Sequence[Collector]],
    *,
    batch_tokens: int,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int | None:
    """Adds documents to the contexts of every layer, from one pass of the model.

    Args:
        loaded: the model.
        saes: encoders by layer.
        documents: the documents.
        tops: by layer one collector for every few features (:func:`in_slices`), as each takes dense activations.
        batch_tokens: tokens of a forward pass, padding included.
        on_progress: called with the documents done.
        should_stop: asked between batches.

    Returns:
        Tokens left out as their activations were not finite at some layer; None when ``should_stop`` said so.
    """
    reader = Reader(loaded, sorted(tops))
    slots = {
        layer: [feature_slots(top.features, saes[layer].d_sae).to(loaded.device) for top in parts]
        for layer, parts in tops.items()
    }
    done = 0
    for batch in batches(documents, batch_tokens):
        if should_stop():
            return None
        reading = reader.read(batch, count_norms=False)
        length_B = batch.attention_mask_BT.sum(1)
        number_B = torch.tensor([documents[row].number for row in batch.rows_B.tolist()])
        for layer, parts in tops.items():
            values_NK, indices_NK = encode(saes[layer], reading.resid[layer])
            for top, slot_F in zip(parts, slots[layer], strict=True):
                slot_NK = slot_F[indices_NK]
                n_P, k_P = ((slot_NK >= 0) & (values_NK > 0)).nonzero(as_tuple=True)
                acts_BTM = torch.zeros(*batch.input_ids_BT.shape, len(top.features), device=values_NK.device)
                acts_BTM[reading.row_N[n_P], reading.position_N[n_P], slot_NK[n_P, k_P]] = values_NK[n_P, k_P]
                top.add(acts_BTM.cpu(), batch.input_ids_BT, length_B, number_B, len(reading.row_N))
        done += len(batch.rows_B)
        on_progress(done)
    return reader.not_finite


def contexts_of_shard(
    shard: Shard, tops: Mapping[int, Sequence[Collector]], d_sae: Mapping[int, int], *, batch_tokens: int
) -> None:
    """Adds the documents of a shard of extracted activations to the contexts of every layer.

    Args:
        shard: the shard.
        tops: as in :func:`contexts_of_text`.
        d_sae: features of each layer's SAE.
        batch_tokens: tokens taken at a time, padding included.
    """
    lengths_R = np.diff(shard.offset_R)
    slots = {layer: [feature_slots(top.features, d_sae[layer]).numpy() for top in tops[layer]] for layer in tops}
    rows = max(1, batch_tokens // int(lengths_R.max(initial=1)))
    for first in range(0, len(lengths_R), rows):
        length_B = lengths_R[first : first + rows]
        start, end = shard.offset_R[first], shard.offset_R[first + len(length_B)]
        row_M = np.repeat(np.arange(len(length_B)), length_B)
        place_M = np.arange(start, end) - np.repeat(shard.offset_R[first : first + len(length_B)], length_B)
        ids_BT = np.zeros((len(length_B), int(length_B.max())), dtype=np.int64)
        ids_BT[row_M, place_M] = shard.ids_M[start:end]
        low, high = np.searchsorted(shard.row_P, [shard.first_row + first, shard.first_row + first + len(length_B)])
        for layer, parts in tops.items():
            at_layer_P = np.flatnonzero(shard.layer_P[low:high] == layer) + low
            for top, slot_F in zip(parts, slots[layer], strict=True):
                slot_P = slot_F[shard.feature_P[at_layer_P]]
                taken_P, slot_P = at_layer_P[slot_P >= 0], slot_P[slot_P >= 0]
                acts_BTM = np.zeros((*ids_BT.shape, len(top.features)), dtype=np.float32)
                row_P = shard.row_P[taken_P] - shard.first_row - first
                acts_BTM[row_P, shard.position_P[taken_P], slot_P] = shard.value_P[taken_P]
                top.add(
                    torch.from_numpy(acts_BTM),
                    torch.from_numpy(ids_BT),
                    torch.from_numpy(length_B),
                    torch.from_numpy(shard.number_R[first : first + len(length_B)]),
                    int(shard.counts_M[start:end].sum()),
                )
