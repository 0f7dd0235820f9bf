"""Examples as the batches of a trainer: padded rows, or several rows packed into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qscope.posttraining.examples import Example
from qscope.posttraining.sae_loss import IGNORED_LABEL, UNTAGGED

#: Keys of a batch that the model itself does not take.
LANGUAGE = "language"


@dataclass(frozen=True)
class Row:
    """What one row of a batch holds: an example, or several one after the other.

    Attributes:
        ids: tokens.
        labels: tokens that are trained on, ``IGNORED_LABEL`` elsewhere.
        sizes: tokens of each example in it.
        languages: index of the language of each example, ``UNTAGGED`` where nobody knows.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    sizes: tuple[int, ...]
    languages: tuple[int, ...]

    @classmethod
    def of(cls, example: Example, language: int) -> Row:
        """A row of one example."""
        labels = [token if flag else IGNORED_LABEL for token, flag in zip(example.ids, example.answer, strict=True)]
        return cls(example.ids, tuple(labels), (len(example.ids),), (language,))

    @classmethod
    def joined(cls, rows: Sequence[Row]) -> Row:
        """Several rows as one."""
        return cls(*(tuple(chain.from_iterable(getattr(row, part.name) for row in rows)) for part in fields(cls)))


def rows_of(examples: Sequence[Example], languages: Sequence[int]) -> list[Row]:
    """A row for each example."""
    return [Row.of(example, language) for example, language in zip(examples, languages, strict=True)]


def packed(rows: Sequence[Row], context: int) -> list[Row]:
    """Rows put together, longest first into the fullest row that still has room (best fit decreasing).

    Each example keeps its own positions, by which attention tells them apart, and each token its language.

    Args:
        rows: none longer than ``context``.
        context: tokens of a packed row at most.
    """
    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index].ids), index))
    # Rows by the room they have left: a search for the least that is enough.
    by_room: list[list[int]] = [[] for _ in range(context + 1)]
    bins: list[list[int]] = []
    for index in order:
        size = len(rows[index].ids)
        room = next((room for room in range(size, context + 1) if by_room[room]), None)
        if room is None:
            bins.append([index])
            by_room[context - size].append(len(bins) - 1)
        else:
            place = by_room[room].pop()
            bins[place].append(index)
            by_room[room - size].append(place)
    return [Row.joined([rows[index] for index in members]) for members in bins]


@dataclass(frozen=True)
class Collator:
    """Rows to a batch, padded on the right.

    Attributes:
        pad: token to pad with; never attended to by what stands before it, and never a label.
        packed: rows hold several examples: their positions go to the model and no mask does, as it would hide them.
        language: whether the batch holds the language of each token.
    """

    pad: int
    packed: bool = False
    language: bool = True

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """``input_ids``, ``labels``, ``attention_mask`` or ``position_ids``, and ``language``, all [B, T]."""
        size_B = torch.tensor([len(row["input_ids"]) for row in rows])
        place_T = torch.arange(int(size_B.max()))

        def padded(parts: Sequence[Sequence[int] | Tensor], value: int) -> Tensor:
            return pad_sequence([torch.as_tensor(part) for part in parts], batch_first=True, padding_value=value)

        batch = {
            "input_ids": padded([row["input_ids"] for row in rows], self.pad),
            "labels": padded([row["labels"] for row in rows], IGNORED_LABEL),
        }
        if self.packed:
            position_BT = padded([torch.cat([torch.arange(size) for size in row["sizes"]]) for row in rows], -1)
            # Padding is an example of its own, at positions that begin anew.
            batch["position_ids"] = torch.where(position_BT < 0, place_T - size_B[:, None], position_BT)
        else:
            batch["attention_mask"] = (place_T < size_B[:, None]).long()
        if self.language:
            each = [torch.tensor(row["languages"]).repeat_interleave(torch.tensor(row["sizes"])) for row in rows]
            batch[LANGUAGE] = padded(each, UNTAGGED)
        return batch


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows as the columns of a table."""
    return {
        "input_ids": [row.ids for row in rows],
        "labels": [row.labels for row in rows],
        "sizes": [row.sizes for row in rows],
        "languages": [row.languages for row in rows],
    }
