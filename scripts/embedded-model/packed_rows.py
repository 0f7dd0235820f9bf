"""Training rows from token files: whole documents end to end, streams mixed by share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np


class PackedRows:
    """Endless rows of context + 1 tokens; each stream is reshuffled for every pass over it. Deterministic by seed."""

    def __init__(self, folder: Path, mixture: dict[str, float], context: int, seed: int):
        self._tokens = {name: np.load(folder / f"{name}.npy") for name in mixture}
        self._starts = {name: np.load(folder / f"{name}.starts.npy") for name in mixture}
        self._context, self._seed = context, seed
        self.remix(mixture)
        self.passes = dict.fromkeys(mixture, 0)

    def _documents(self, name: str) -> Iterator[np.ndarray]:
        tokens, starts = self._tokens[name], self._starts[name]
        number = 0
        while True:
            # A stream's own generator: the order within a language does not depend on the others' shares.
            for at in np.random.default_rng([self._seed, number, *name.encode()]).permutation(len(starts) - 1):
                yield tokens[starts[at] : starts[at + 1]]
            number += 1
            self.passes[name] = number

    def remix(self, mixture: dict[str, float]) -> None:
        """Other shares from the next document on; what was given before no longer counts towards them."""
        self._mixture = mixture
        self._given = dict.fromkeys(mixture, 0)

    def __iter__(self) -> Iterator[np.ndarray]:
        streams = {name: self._documents(name) for name in self._mixture}
        held: list[np.ndarray] = []
        size = 0
        while True:
            name = min(self._given, key=lambda name: self._given[name] / self._mixture[name])
            document = next(streams[name])
            self._given[name] += len(document)
            held.append(document)
            size += len(document)
            if size > self._context:
                joined = np.concatenate(held)
                whole = (size - 1) // self._context
                for at in range(0, whole * self._context, self._context):
                    yield joined[at : at + self._context + 1].astype(np.int64)
                held = [joined[whole * self._context :]]
                size -= whole * self._context
