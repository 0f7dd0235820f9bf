"""Which features fire in a text, how strongly and where: h of Qwen-Scope, section 5, for every feature at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qscope.data.readers import Document as Row
from qscope.errors import Stopped
from qscope.features.documents import DocumentReader, batches
from qscope.features.reading import Reader
from qscope.models import LoadedModel
from qscope.sae.kernels import encode
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import Rendering, TokenMasks

#: Features of different layers are told apart by layer x STRIDE + feature; no SAE is wider.
STRIDE = 1 << 24
_AT_ONCE = 1024


def key_of_feature(layer: int, feature: int) -> int:
    """One number for a feature of a layer."""
    return layer * STRIDE + feature


@dataclass(frozen=True)
class Fired:
    """The footprint of one text.

    Attributes:
        key_P: the features that fire, see :func:`key_of_feature`; ascending, int64.
        peak_P: the largest activation of each, float32.
        position_P: the token it is at; the first of equals.
        ids_T: the tokens of the text as the model read them.
    """

    key_P: np.ndarray
    peak_P: np.ndarray
    position_P: np.ndarray
    ids_T: np.ndarray

    def peak_of(self, key: int) -> tuple[float, int]:
        """Activation and token of one feature; (0, -1) where it does not fire."""
        place = int(np.searchsorted(self.key_P, key))
        if place == len(self.key_P) or self.key_P[place] != key:
            return 0.0, -1
        return float(self.peak_P[place]), int(self.position_P[place])


NOTHING = Fired(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int32))


class FiredReader:
    """Reads texts and says what fires in each.

    Args:
        loaded: the model.
        saes: encoders by layer.
        context: tokens kept of a text; the rest is cut off.
        rendering: how a text becomes the model's input.
        masks: tokens that do not count.
        threshold: a feature fires where its activation exceeds this.
        batch_tokens: tokens of a forward pass, padding included.
        at: experiment field of the task, for errors.
        should_stop: asked between passes.

    Attributes:
        cut: texts so far that were longer than the context.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        saes: Mapping[int, TopKSae],
        *,
        context: int,
        rendering: Rendering,
        masks: TokenMasks,
        threshold: float = 0.0,
        batch_tokens: int = 8192,
        at: str = "synthesize",
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.tokenizer = loaded.tokenizer
        self._saes, self._threshold, self._batch_tokens = dict(saes), threshold, batch_tokens
        self._hooked = Reader(loaded, sorted(saes))
        self._settings = {"context": context, "rendering": rendering, "masks": masks}
        self._at, self._should_stop = at, should_stop
        self.cut = 0

    @property
    def not_finite(self) -> int:
        """Tokens so far that do not count, as their activations are infinite or undefined at some layer."""
        return self._hooked.not_finite

    def read(self, texts: Sequence[str]) -> list[Fired]:
        """What fires in each text; nothing in one without a token that counts.

        A function of the texts together: which of them share a pass may change the last bit of an activation.

        Raises:
            Stopped: when asked to stop.
        """
        return list(self.stream(texts))

    @torch.no_grad()
    def stream(self, texts: Sequence[str], on_progress: Callable[[int], None] = lambda done: None) -> Iterator[Fired]:
        """The same for many texts, in their order, a thousand in memory at a time."""
        for start in range(0, len(texts), _AT_ONCE):
            yield from self._some(texts[start : start + _AT_ONCE])
            on_progress(min(len(texts), start + _AT_ONCE))

    def _some(self, texts: Sequence[str]) -> list[Fired]:
        reader = DocumentReader(
            _Given(texts),
            self.tokenizer,
            at=self._at,
            rendering_at=f"{self._at}.rendering",
            masks_at=f"{self._at}.masks",
            **self._settings,
        )
        documents = reader.take(len(texts))
        self.cut += reader.cut
        found = [NOTHING] * len(texts)
        for batch in batches(documents, self._batch_tokens):
            if self._should_stop():
                raise Stopped
            reading = self._hooked.read(batch, count_norms=False)
            parts = []
            for layer in self._hooked.layers:
                values_NK, indices_NK = encode(self._saes[layer], reading.resid[layer])
                n_P, k_P = (values_NK > self._threshold).nonzero(as_tuple=True)
                key_P = indices_NK[n_P, k_P].long() + layer * STRIDE
                parts.append(
                    torch.stack([reading.row_N[n_P], key_P, reading.position_N[n_P]]).cpu().numpy()
                    if len(n_P)
                    else np.zeros((3, 0), np.int64)
                )
                parts.append(values_NK[n_P, k_P].cpu().numpy())
            (row_P, key_P, position_P), value_P = np.concatenate(parts[::2], axis=1), np.concatenate(parts[1::2])
            # The largest of each text and feature comes first, the first token of equals.
            order_P = np.lexsort((position_P, -value_P, key_P, row_P))
            row_P, key_P = row_P[order_P], key_P[order_P]
            first_P = np.ones(len(row_P), dtype=bool)
            first_P[1:] = (row_P[1:] != row_P[:-1]) | (key_P[1:] != key_P[:-1])
            row_P, key_P, chosen_P = row_P[first_P], key_P[first_P], order_P[first_P]
            bounds = np.searchsorted(row_P, np.arange(len(batch.rows_B) + 1))
            for index, document in enumerate(batch.rows_B.tolist()):
                own = slice(bounds[index], bounds[index + 1])
                found[documents[document].number] = Fired(
                    key_P[own], value_P[chosen_P[own]], position_P[chosen_P[own]], documents[document].ids_T
                )
        return found


class _Given:
    """Texts in memory as a source of documents."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts, self._next = texts, 0

    def read_document(self, should_stop: Callable[[], bool] = lambda: False) -> Row | None:
        if self._next == len(self._texts):
            return None
        self._next += 1
        return Row(self._texts[self._next - 1], "")

    def identity(self) -> dict[str, Any]:
        return {}


class FiringCounts:
    """In how many texts each feature fires.

    Args:
        widths: number of features by layer.

    Attributes:
        texts: texts counted.
    """

    def __init__(self, widths: Mapping[int, int]) -> None:
        self._count = {layer: np.zeros(width, np.int64) for layer, width in widths.items()}
        self.texts = 0

    def add(self, fired: Fired) -> None:
        """Counts one text."""
        self.texts += 1
        layer_P = fired.key_P // STRIDE
        for layer, count_F in self._count.items():
            # A text holds a feature once.
            count_F[fired.key_P[layer_P == layer] % STRIDE] += 1

    def of(self, layer: int, feature: int) -> int:
        """Texts in which one feature fires."""
        return int(self._count[layer][feature])

    def between(self, lowest: int, highest: float) -> list[tuple[int, int]]:
        """Layer and feature of all that fire in ``lowest`` to ``highest`` texts, in order."""
        return [
            (layer, int(feature))
            for layer, count_F in sorted(self._count.items())
            for feature in np.flatnonzero((count_F >= lowest) & (count_F <= highest))
        ]
