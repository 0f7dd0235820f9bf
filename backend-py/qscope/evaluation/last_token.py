"""The features of each item at the last token of its prompt: read once, looked at under several rules.

Items run through :func:`qscope.features.extract.extract` as documents of which only the last token counts, so a killed
run goes on with the next shard and every pass of the model is over items of like length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qscope.data.items import Benchmark, Item
from qscope.features.documents import Document, DocumentTemplate
from qscope.features.footprints import Footprints
from qscope.features.shards import Extract, Shard
from qscope.v1.features_pb2 import Rendering

_AT_ONCE = 256


class ItemReader:
    """Items as documents whose last token counts and no other.

    What is longer than the context loses its beginning: the last token is what is looked at.

    Args:
        benchmark: the items.
        tokenizer: the model's.
        context: tokens kept of an item.
        rendering: how a prompt becomes the model's input.
        rendering_at: experiment field of the rendering, for errors.

    Attributes:
        read: items given out.
        cut: those of them that lost their beginning.
        empty: items without a token; they are given out with one that does not count.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        tokenizer: Any,
        *,
        context: int,
        rendering: Rendering,
        rendering_at: str = "rendering",
    ) -> None:
        self._benchmark, self._tokenizer, self._context = benchmark, tokenizer, context
        self._template = DocumentTemplate(tokenizer, rendering, rendering_at)
        self.read = self.cut = self.empty = 0

    def identity(self) -> dict[str, Any]:
        """What is read."""
        state = hashlib.blake2b(digest_size=16)
        for item in self._benchmark.items:
            state.update(item.prompt.encode() + b"\0")
        return {
            "benchmark": self._benchmark.name,
            "items": len(self._benchmark.items),
            "template": self._benchmark.template,
            "digest": state.hexdigest(),
        }

    def state(self) -> dict[str, Any]:
        """Where the reader stands, as JSON."""
        return {"read": self.read, "cut": self.cut, "empty": self.empty}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on where ``state`` was taken."""
        self.read, self.cut, self.empty = (int(state[name]) for name in ("read", "cut", "empty"))

    def take(self, count: int) -> list[Document]:
        """The next ``count`` items, fewer at the end."""
        items = self._benchmark.items[self.read : self.read + count]
        taken = [
            self._document(self.read + index, ids)
            for start in range(0, len(items), _AT_ONCE)
            for index, ids in enumerate(self._tokenised(items[start : start + _AT_ONCE]), start=start)
        ]
        self.read += len(taken)
        return taken

    #: There is always an item: a benchmark without any is refused when it is read.
    require = take

    def _tokenised(self, items: Sequence[Item]) -> list[list[int]]:
        return self._tokenizer(
            [self._template.render(item.prompt)[0] for item in items],
            add_special_tokens=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]

    def _document(self, number: int, ids: Sequence[int]) -> Document:
        self.cut += len(ids) > self._context
        self.empty += not ids
        # A row of its own even then: items are numbered by their place.
        ids_T = np.asarray(ids[-self._context :] or [0], dtype=np.int32)
        group_T = np.full(len(ids_T), -1, dtype=np.int16)
        group_T[-1] = 0 if ids else -1
        return Document(number, ids_T, group_T, "", b"")


@dataclass(frozen=True)
class Rule:
    """Which codes of a token count as its features.

    Attributes:
        name: in tables.
        top: that many largest at most; 0 takes all that are active.
        share: those of at least this share of the token's largest; 0 takes all.
    """

    name: str
    top: int = 0
    share: float = 0.0

    def select(self, row_P: np.ndarray, value_P: np.ndarray) -> np.ndarray:
        """Which of the codes of one layer count.

        Args:
            row_P: item of each code, ascending.
            value_P: codes, falling within an item.
        """
        if not len(row_P):
            return np.zeros(0, dtype=bool)
        begins_P = np.concatenate([[True], row_P[1:] != row_P[:-1]])
        start_P = np.maximum.accumulate(np.where(begins_P, np.arange(len(row_P)), 0))
        chosen_P = np.ones(len(row_P), dtype=bool)
        if self.top:
            chosen_P &= np.arange(len(row_P)) - start_P < self.top
        if self.share:
            chosen_P &= value_P >= self.share * value_P[start_P]
        return chosen_P


def footprints_of(extract: Extract, layers: Sequence[int], rules: Sequence[Rule]) -> dict[tuple[int, str], Footprints]:
    """Footprints of all items by layer and rule, from one reading of the shards.

    Args:
        extract: what was extracted with an :class:`ItemReader`.
        layers: layers wanted.
        rules: rules of different names.
    """
    parts: dict[tuple[int, str], list[Footprints]] = {(layer, rule.name): [] for layer in layers for rule in rules}
    for shard in extract.shards():
        for layer in layers:
            row_P, feature_P, value_P = _of_layer(shard, layer)
            for rule in rules:
                chosen_P = rule.select(row_P, value_P)
                item_P = row_P[chosen_P] - shard.first_row
                parts[layer, rule.name].append(_footprints(item_P, feature_P[chosen_P], len(shard.number_R)))
    # One by one out of the parts: no more than one is held twice.
    return {key: _joined(parts.pop(key)) for key in list(parts)}


def endings(extract: Extract) -> np.ndarray:
    """The id of each item's last token, the one that is looked at; -1 where none is."""
    lasts = [(shard, shard.offset_R[1:] - 1) for shard in extract.shards()]
    return np.concatenate([np.where(shard.counts_M[last_R], shard.ids_M[last_R], -1) for shard, last_R in lasts])


def _of_layer(shard: Shard, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    here_P = shard.layer_P == layer
    return shard.row_P[here_P], shard.feature_P[here_P], shard.value_P[here_P]


def _footprints(item_P: np.ndarray, feature_P: np.ndarray, items: int) -> Footprints:
    lengths_N = np.bincount(item_P, minlength=items)
    offset_N = np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int64)
    return Footprints(offset_N, feature_P[np.lexsort((feature_P, item_P))])


def _joined(shards: list[Footprints]) -> Footprints:
    """Footprints of the items of all shards, in order."""
    if not shards:
        return Footprints.of([])
    lengths_N = np.concatenate([np.diff(part.offset_N) for part in shards])
    return Footprints(
        np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int64),
        np.concatenate([part.feature_P for part in shards]),
    )
