"""Examples as the batches of a trainer: padded rows, or several rows packed into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
        language: index of the language of each token, ``UNTAGGED`` where nobody knows.
        position: of each token in its own example.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    language: tuple[int, ...]
    position: tuple[int, ...]

    @classmethod
    def of(cls, example: Example, language: int) -> Row:
        """A row of one example."""
        labels = [token if flag else IGNORED_LABEL for token, flag in zip(example.ids, example.answer, strict=True)]
        count = len(example.ids)
        return cls(example.ids, tuple(labels), (language,) * count, tuple(range(count)))

    def __add__(self, other: Row) -> Row:
        return Row(
            self.ids + other.ids,
            self.labels + other.labels,
            self.language + other.language,
            self.position + other.position,
        )


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
    found = []
    for members in bins:
        whole = rows[members[0]]
        for index in members[1:]:
            whole = whole + rows[index]
        found.append(whole)
    return found


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
        width = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, value: int) -> Tensor:
            return torch.tensor([list(row[name]) + [value] * (width - len(row[name])) for row in rows])

        batch = {"input_ids": padded("input_ids", self.pad), "labels": padded("labels", IGNORED_LABEL)}
        if self.packed:
            position_BT = padded("position", -1)
            # Padding is an example of its own, at positions that begin anew.
            place_T = torch.arange(width)
            begin_B1 = (position_BT >= 0).sum(1, keepdim=True)
            batch["position_ids"] = torch.where(position_BT < 0, place_T - begin_B1, position_BT)
        else:
            batch["attention_mask"] = (torch.arange(width) < lengths(rows)[:, None]).long()
        if self.language:
            batch[LANGUAGE] = padded("language", UNTAGGED)
        return batch


def lengths(rows: Sequence[dict[str, Any]]) -> Tensor:
    """Tokens of each row [B]."""
    return torch.tensor([len(row["input_ids"]) for row in rows])


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows as the columns of a table."""
    return {
        "input_ids": [row.ids for row in rows],
        "labels": [row.labels for row in rows],
        "language": [row.language for row in rows],
        "position": [row.position for row in rows],
    }
