"""Windows of text on which a feature is silent: what its contexts are told apart from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from qscope.features.contexts import token_texts
from qscope.v1.features_pb2 import FeatureContext, FeatureContexts


class SilentContexts:
    """A few windows for each feature of one layer, each from another document, on which the feature never fires.

    Every document offers one window, at a place drawn from the seed and the document's number, the same for all
    features; kept are those of lowest digest, so that the choice does not depend on the order of the documents.

    Args:
        features: features of the layer.
        contexts: windows kept of each.
        before, after: tokens of the window on either side of its middle.
        seed: of the places and of the choice.
    """

    def __init__(self, features: Sequence[int], contexts: int, before: int, after: int, seed: int) -> None:
        self.features, self._keep, self._before, self._after = list(features), contexts, before, after
        self._key = seed.to_bytes(8, "big")
        self._kept: list[list[tuple[bytes, FeatureWindow]]] = [[] for _ in self.features]

    def add(self, acts_BTM: Tensor, ids_BT: Tensor, length_B: Tensor, number_B: Tensor, tokens: int) -> None:
        """Adds documents, on the CPU; arguments as in :meth:`qscope.features.contexts.TopContexts.add`."""
        for row, number in enumerate(number_B.tolist()):
            digest = hashlib.blake2b(number.to_bytes(8, "big"), key=self._key, digest_size=16).digest()
            middle = int.from_bytes(digest[:8], "big") % int(length_B[row])
            start, end = max(0, middle - self._before), min(int(length_B[row]), middle + self._after + 1)
            silent_M = ~(acts_BTM[row, start:end] > 0).any(0)
            window = (number, middle, ids_BT[row, start:end].tolist(), middle - start)
            for slot in silent_M.nonzero().flatten().tolist():
                kept = self._kept[slot]
                kept.append((digest, window))
                if len(kept) >= 2 * self._keep:
                    self._trim(kept)

    def _trim(self, kept: list[tuple[bytes, FeatureWindow]]) -> None:
        kept.sort(key=lambda entry: entry[0])
        del kept[self._keep :]

    def results(self, layer: int, tokenizer: Any) -> Iterator[FeatureContexts]:
        """The features in their order, each with its windows; activations are all zero."""
        for feature, kept in zip(self.features, self._kept, strict=True):
            self._trim(kept)
            found = FeatureContexts(layer=layer, feature=feature)
            for _, (number, middle, ids, peak) in kept:
                tokens = token_texts(tokenizer, ids)
                found.contexts.append(
                    FeatureContext(
                        document=number,
                        position=middle,
                        text="".join(tokens),
                        tokens=tokens,
                        activations=[0.0] * len(tokens),
                        peak=peak,
                    )
                )
            yield found


#: A document's number, the middle of the window, its token ids, and the place of the middle in it.
FeatureWindow = tuple[int, int, list[int], int]
