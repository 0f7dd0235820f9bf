"""Which columns and rows of a text source are wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qscope.data.formats import Column
from qscope.errors import UserError

_WHERE = re.compile(r"(?P<name>[^=!]+?)\s*(?P<no>!?)=\s*(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """``column=value``, or ``column!=value`` where ``equal`` is false."""

    column: str
    equal: bool
    value: str

    @classmethod
    def parse(cls, text: str, *, at: str) -> Condition:
        """Reads a condition.

        Args:
            text: the condition.
            at: its experiment field, for errors.

        Raises:
            UserError: it has another form (WHERE_MALFORMED).
        """
        match = _WHERE.fullmatch(text.strip())
        if match is None:
            raise UserError(
                f"where: {text!r} is no condition.",
                remedy="Write column=value or column!=value.",
                reason="WHERE_MALFORMED",
                field=at,
            )
        return cls(match["name"], not match["no"], match["value"])

    def holds(self, value: str) -> bool:
        """Whether a row with this value in the column is wanted."""
        return (value == self.value) == self.equal


class Selection:
    """Columns to read of every row, and the rows to keep.

    Args:
        column: the text column.
        at: experiment field of the text source, for errors.
        where: ``column=value`` or ``column!=value``; empty keeps every row.
        label: column whose value becomes a document's label; empty for none.
        label_field: experiment field that named ``label``, for errors.

    Raises:
        UserError: ``where`` has another form (WHERE_MALFORMED).
    """

    def __init__(self, column: str, at: str, *, where: str = "", label: str = "", label_field: str = "") -> None:
        self.at, self._where = at, where
        self.columns = [Column(column, f"{at}.field")]
        self._filter: tuple[int, Condition] | None = None
        self._label: int | None = None
        if where:
            condition = Condition.parse(where, at=f"{at}.where")
            self._filter = (self._index(condition.column, f"{at}.where"), condition)
        if label:
            self._label = self._index(label, label_field)

    def _index(self, name: str, field: str) -> int:
        # Not shared with the text column: what lies beside the text may also be a number.
        self.columns.append(Column(name, field))
        return len(self.columns) - 1

    def keeps(self, values: Sequence[str]) -> bool:
        """Whether a row with these values, in the order of ``columns``, is wanted."""
        if self._filter is None:
            return True
        index, condition = self._filter
        return condition.holds(values[index])

    def label(self, values: Sequence[str]) -> str:
        """The label of a row with these values."""
        return "" if self._label is None else values[self._label]

    def identity(self) -> dict[str, Any]:
        """What changes the documents that are read."""
        return {"column": self.columns[0].name, **({"where": self._where} if self._where else {})}
