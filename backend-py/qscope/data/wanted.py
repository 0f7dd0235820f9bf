"""Rows of a source that a condition lets through, each with its number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qscope.data.formats import Column, missing_column
from qscope.data.hub import SourceName
from qscope.data.records import Fault, Layout, Record
from qscope.data.rows import open_rows
from qscope.data.selection import Condition
from qscope.data.template import shown


class WantedRows:
    """The rows of a source that fulfil a condition, in order, read anew by every :meth:`records`; nothing is held.

    Args:
        name: a text that comes with the program, a file, folder or glob, or a data set of the hub.
        layout: what files do not say of themselves.
        where: ``column=value`` or ``column!=value``; other rows are left out. Empty keeps all.
        usual_split: split of a data set where none is named.
        form: format of the files, whatever their names say; empty: what they say.

    Raises:
        UserError: nothing readable is there, fields that do not belong together (SOURCE_FIELDS), or a condition is
            malformed (WHERE_MALFORMED).
    """

    def __init__(
        self, name: SourceName, layout: Layout, *, where: str = "", usual_split: str = "train", form: str = ""
    ) -> None:
        self._name, self._where = name, where
        self._condition = Condition.parse(where, at=f"{name.at}.where") if where else None
        self._rows = open_rows(name, layout, split=usual_split, form=form)
        self._columns: dict[str, None] = {}

    def identity(self) -> dict[str, Any]:
        """What is read: enough to notice on resume that the source has changed."""
        return {**self._rows.identity(), "where": self._where}

    def records(self) -> Iterator[tuple[int, Record | Fault]]:
        """Number in the source, from 0 and counting those left out too, and row; a fault where one cannot be read.

        Raises:
            UserError: a damaged file, or a column in ``where`` that no row has (TEXT_FIELD_MISSING).
        """
        self._columns = {}
        for number, record in enumerate(self._rows.records()):
            if isinstance(record, Record) and self._condition is not None:
                self._columns.update(dict.fromkeys(map(str, record.values)))
                value = record.values.get(self._condition.column)
                if not self._condition.holds("" if value is None else shown(value)):
                    continue
            yield number, record
        self.check_condition()

    def check_condition(self) -> None:
        """For who stops reading before the end: refuses a ``where`` whose column none of the rows so far had.

        Raises:
            UserError: TEXT_FIELD_MISSING.
        """
        if self._condition is not None and self._columns and self._condition.column not in self._columns:
            column = Column(self._condition.column, f"{self._name.at}.where")
            raise missing_column(self._name.source, column, list(self._columns))
