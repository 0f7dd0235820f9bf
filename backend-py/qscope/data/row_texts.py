"""Texts in the rows of a source: which column the model reads, which rows are wanted, which cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qscope.data.hub import SourceName
from qscope.data.records import Fault, Layout, Record
from qscope.data.template import Template, guessed_template
from qscope.data.wanted import WantedRows
from qscope.errors import UserError

#: Columns that hold the text, in the order they are looked for.
TEXT_COLUMNS = ("text", "prompt", "question", "input", "tweet", "comment", "sentence", "content")


@dataclass(frozen=True)
class TextRow:
    """One row with a text.

    Attributes:
        place: where it stands, ``file:line``.
        number: its place in the source, from 0, counting those left out too.
        text: what the model reads.
        values: all columns.
    """

    place: str
    number: int
    text: str
    values: dict[str, Any]


class RowSource:
    """The rows of a source, in order, read anew by every :meth:`rows`; nothing is held.

    Args:
        source: a text that comes with the program, a file, folder or glob, or the id of a data set of the hub.
        text: template of what the model reads; left out, the first of ``guesses`` that the first row has.
        config, split, revision: of a data set of the hub.
        usual_split: split of a data set where none is named.
        columns: names of the columns of a table without a header.
        inside: path of the rows in a .json whose rows are not at the top.
        where: ``column=value`` or ``column!=value``; other rows are neither given out nor at fault.
        form: format of the files, whatever their names say; empty: what they say.
        refuse_faults: whether a row that cannot be used is an error; otherwise it is given out as a fault.
        field: experiment field of the template, which is also what a text is called: ``text`` or ``prompt``.
        guesses: columns that may hold the text.
        at: experiment field of the source, for errors.

    Raises:
        UserError: nothing readable is there, fields that do not belong together (SOURCE_FIELDS), or a template or
            condition is malformed.
    """

    def __init__(
        self,
        source: str,
        *,
        text: str = "",
        config: str = "",
        split: str = "",
        revision: str = "",
        usual_split: str = "train",
        columns: Sequence[str] = (),
        inside: str = "",
        where: str = "",
        form: str = "",
        refuse_faults: bool = False,
        field: str = "text",
        guesses: Sequence[str] = TEXT_COLUMNS,
        at: str = "",
    ) -> None:
        self._at, self._refuse, self._field, self._guesses = at, refuse_faults, field, guesses
        self._template = Template(text, at=f"{at}.{field}") if text else None
        name = SourceName(source, config, split, revision, at)
        self._rows = WantedRows(name, Layout(columns, inside, at), where=where, usual_split=usual_split, form=form)
        self._identity = {**self._rows.identity(), "text": text}

    @property
    def template(self) -> str:
        """The template in use; empty until the first row has said which."""
        return self._template.text if self._template else ""

    def identity(self) -> dict[str, Any]:
        """What is read: enough to notice on resume that the source has changed."""
        return self._identity

    def rows(self) -> Iterator[TextRow | Fault]:
        """The rows in order; a fault where one cannot be used.

        Raises:
            UserError: a damaged file, no column to read (PROMPT_UNKNOWN), a column in ``where`` that no row has
                (TEXT_FIELD_MISSING), or, where asked for, a bad row (ROW_BAD).
        """
        for number, record in self._rows.records():
            if isinstance(record, Record) and self._template is None:
                self._template = guessed_template(record, self._guesses, at=f"{self._at}.{self._field}")
            row = record if isinstance(record, Fault) else self._filled(record, number)
            yield self.fault(row) if isinstance(row, Fault) else row

    def check_condition(self) -> None:
        """See :meth:`WantedRows.check_condition`."""
        self._rows.check_condition()

    def fault(self, fault: Fault) -> Fault:
        """The fault itself, or an error where faults are refused."""
        if self._refuse:
            raise refused_row(fault, at=f"{self._at}.source")
        return fault

    def _filled(self, record: Record, number: int) -> TextRow | Fault:
        try:
            text = self._template.fill(record.values)
        except KeyError as error:
            return missing(record.place, str(error.args[0]), record.values)
        except ValueError as error:
            return Fault(record.place, str(error))
        if not text.strip():
            return Fault(record.place, f"its {self._field} is empty")
        return TextRow(record.place, number, text, record.values)


def missing(place: str, column: str, values: dict[str, Any]) -> Fault:
    """The fault of a row without a value in a column."""
    known = ", ".join(map(str, list(values)[:12])) or "none"
    return Fault(place, f"no column {column!r} with a value (columns there: {known})")


def refused_row(fault: Fault, *, at: str) -> UserError:
    """The error for a row that cannot be used, where such rows are refused."""
    return UserError(
        f"{fault.place}: {fault.why}.",
        remedy="Mend the row, or leave bad rows out with bad_rows: skip.",
        reason="ROW_BAD",
        field=at,
    )
