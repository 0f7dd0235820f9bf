"""Excerpts that show what a feature fires on, from the footprints of many texts; and excerpts drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qscope.features.contexts import token_texts
from qscope.models.prompts import special_ids
from qscope.synthesis.fired import Fired
from qscope.v1.features_pb2 import FeatureContext

#: Places held before the weakest are let go.
_HELD = 1 << 22


class StrongestPlaces:
    """For every feature the few texts in which it fires most; memory does not grow with the number of texts.

    Args:
        keep: texts of each feature.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._parts: list[np.ndarray] = []
        self._size = 0

    def add(self, number: int, fired: Fired) -> None:
        """Adds text ``number``; of equal activations the text added first is kept."""
        part = np.zeros(len(fired.key_P), dtype=_PLACE)
        part["key"], part["peak"] = fired.key_P, fired.peak_P
        part["text"], part["position"] = number, fired.position_P
        self._parts.append(part)
        self._size += len(part)
        if self._size > _HELD:
            self._parts = [self._strongest()]
            # What is left may itself be most of it: then wait for as much again.
            self._size = len(self._parts[0]) // 2

    def _strongest(self) -> np.ndarray:
        held = np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=_PLACE)
        held = held[np.lexsort((held["text"], -held["peak"], held["key"]))]
        begins = np.ones(len(held), dtype=bool)
        begins[1:] = held["key"][1:] != held["key"][:-1]
        start = np.maximum.accumulate(np.where(begins, np.arange(len(held)), 0))
        return held[np.arange(len(held)) - start < self._keep]

    def of(self, keys: Sequence[int]) -> dict[int, list[tuple[int, int, float]]]:
        """Text, token and activation of each place by feature, the strongest first."""
        held = self._strongest()
        low = np.searchsorted(held["key"], keys)
        high = np.searchsorted(held["key"], keys, side="right")
        return {
            key: [(int(one["text"]), int(one["position"]), float(one["peak"])) for one in held[start:end]]
            for key, start, end in zip(keys, low, high, strict=True)
        }


_PLACE = np.dtype([("key", np.int64), ("peak", np.float32), ("text", np.int32), ("position", np.int32)])


class Excerpts:
    """Cuts windows out of texts.

    Special tokens are no text, and what is written after an excerpt must not hold any: they stand there empty. So do
    the bytes at either end whose character was cut through.

    Args:
        tokenizer: the model's.
        before, after: tokens on either side of the one a window is cut around.
    """

    def __init__(self, tokenizer: Any, *, before: int, after: int) -> None:
        self._tokenizer, self._before, self._after = tokenizer, before, after
        self._special = special_ids(tokenizer)

    def around(self, ids_T: np.ndarray, position: int, *, activation: float, text: int) -> FeatureContext:
        """The window around one token, which alone carries an activation; ``text`` is the number of the text."""
        start = max(0, position - self._before)
        ids = ids_T[start : position + self._after + 1].tolist()
        texts = token_texts(self._tokenizer, ids)
        tokens = ["" if token in self._special else one for token, one in zip(ids, texts, strict=True)]
        for place in (0, len(tokens) - 1):
            tokens[place] = tokens[place].replace("\ufffd", "")
        return _context(tokens, position - start, position, activation, text)


def token_at(tokenizer: Any, ids_T: np.ndarray, position: int) -> str:
    """The text of one token; of one that ends inside a character, up to where the character ends."""
    start = max(0, position - 4)
    texts = token_texts(tokenizer, ids_T[start : position + 5].tolist())[position - start :]
    return next((text for text in texts if text), "")


def _context(tokens: list[str], peak: int, position: int, activation: float, text: int) -> FeatureContext:
    return FeatureContext(
        document=text,
        position=position,
        activation=activation,
        text="".join(tokens),
        tokens=tokens,
        activations=[activation if index == peak else 0.0 for index in range(len(tokens))],
        peak=peak,
    )


def contexts_of(
    places: Mapping[int, Sequence[tuple[int, int, float]]],
    ids: Sequence[np.ndarray],
    excerpts: Excerpts,
) -> dict[int, list[FeatureContext]]:
    """The excerpts at the strongest places of each feature.

    Args:
        places: see :meth:`StrongestPlaces.of`.
        ids: tokens of every text.
        excerpts: cuts them out.
    """
    return {
        key: [excerpts.around(ids[text], position, activation=peak, text=text) for text, position, peak in found]
        for key, found in places.items()
    }


def random_excerpts(ids: Sequence[np.ndarray], excerpts: Excerpts, count: int, *, seed: int) -> list[FeatureContext]:
    """Windows around random tokens of random texts: what a writer without a target is shown."""
    random = np.random.default_rng(seed)
    usable = [index for index, ids_T in enumerate(ids) if len(ids_T) > 1]
    if not usable:
        return []
    found = []
    for _ in range(count):
        text = usable[int(random.integers(len(usable)))]
        # Never the first token, as no feature counts there.
        position = int(random.integers(1, len(ids[text])))
        found.append(excerpts.around(ids[text], position, activation=1.0, text=text))
    return found
