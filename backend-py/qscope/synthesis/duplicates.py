"""Texts that add nothing: the same words, or the same features, as one that is kept already."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qscope.data.same_text import text_key


class Duplicates:
    """What is kept so far.

    Args:
        max_overlap: Jaccard overlap of two sets of features from which on they count as one; 1 takes equal sets only.
        texts: texts that are there already.
    """

    def __init__(self, max_overlap: float, texts: Iterable[str] = ()) -> None:
        self._max_overlap = max_overlap
        self._texts = {text_key(text) for text in texts}
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._kept_by_key: dict[int, list[int]] = {}
        self._sets: dict[bytes, int] = {}

    def holds_text(self, text: str) -> bool:
        """Whether the same words are there, whatever their case and the blanks between them."""
        return text_key(text) in self._texts

    def twin_of(self, key_P: np.ndarray) -> str | None:
        """Name of the kept text that fires the same features; None where there is none, and for a text without any."""
        if not len(key_P):
            return None
        if self._max_overlap >= 1:
            found = self._sets.get(key_P.tobytes())
            return None if found is None else self._names[found]
        shared = np.zeros(len(self._names), dtype=np.int64)
        for key in key_P.tolist():
            for kept in self._kept_by_key.get(key, ()):
                shared[kept] += 1
        union = np.asarray(self._sizes, dtype=np.int64) + len(key_P) - shared
        alike = np.flatnonzero(shared >= self._max_overlap * union)
        return self._names[int(alike[0])] if len(alike) else None

    def keep(self, name: str, text: str, key_P: np.ndarray) -> None:
        """Adds a text.

        Args:
            name: what it is called.
            text: its words.
            key_P: the features that fire in it, ascending.
        """
        self._texts.add(text_key(text))
        if not len(key_P):
            return
        place = len(self._names)
        self._names.append(name)
        self._sizes.append(len(key_P))
        if self._max_overlap >= 1:
            self._sets.setdefault(key_P.astype(np.int64).tobytes(), place)
            return
        for key in key_P.tolist():
            self._kept_by_key.setdefault(key, []).append(place)
