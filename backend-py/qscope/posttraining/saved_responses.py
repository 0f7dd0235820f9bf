"""Responses that were written before, by this program or another, from the rows of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from qscope.data.formats import Column, missing_column
from qscope.data.hub import SourceName
from qscope.data.records import Fault, Layout, Record, remedy_of
from qscope.data.rows import open_rows
from qscope.data.selection import Condition
from qscope.data.template import shown
from qscope.errors import UserError
from qscope.posttraining.answered import COLUMNS, Answered, response_of
from qscope.posttraining.row_language import tagged_language
from qscope.v1.eval_pb2 import SavedResponses

#: What a rollout is called that was steered: no response of the model itself.
STEERED = "steered"


@dataclass(frozen=True)
class Saved:
    """What a file holds.

    Attributes:
        answered: the responses, in order.
        columns: the column of each part that has one.
        faults: rows that cannot be used.
        tagged: responses whose language is a verdict on their prompt.
        steered: steered rollouts, left out: the model alone does not write like that.
        identity: what was read.
    """

    answered: list[Answered]
    columns: dict[str, str]
    faults: list[Fault]
    tagged: int
    steered: int
    identity: dict[str, Any]

    @property
    def cut_off_known(self) -> bool:
        """Whether the rows say if a response was cut off."""
        return "truncated" in self.columns


def read_saved(saved: SavedResponses, *, at: str) -> Saved:
    """Reads responses.

    Args:
        saved: the file, its columns and the rows wanted.
        at: experiment field of it.

    Raises:
        UserError: nothing readable is there; no column holds the response (RESPONSE_UNKNOWN); a column that was named
            is in no row (TEXT_FIELD_MISSING); no row can be used (DATA_EMPTY); or only some rows say whether they were
            cut off (TRUNCATED_MISSING) or which tokens they have (TOKENS_MISSING).
    """
    source = open_rows(SourceName(saved.source, "", "", "", at), Layout(at=at))
    condition = Condition.parse(saved.where, at=f"{at}.where") if saved.where else None
    named = {part: getattr(saved, part) for part in COLUMNS if getattr(saved, part)}
    names: dict[str, None] = {}
    columns: dict[str, str] | None = None
    answered: list[Answered] = []
    faults: list[Fault] = []
    tagged = steered = 0
    for number, record in enumerate(source.records()):
        if saved.limit and len(answered) == saved.limit:
            break
        if isinstance(record, Fault):
            faults.append(record)
            continue
        names.update(dict.fromkeys(map(str, record.values)))
        if condition is not None and not condition.holds(_cell(record, condition.column)):
            continue
        if condition is None and record.values.get(STEERED) is True:
            steered += 1
            continue
        columns = columns or _columns(record, named, at)
        try:
            response = response_of(record.values, columns)
        except ValueError as error:
            faults.append(Fault(record.place, str(error)))
            continue
        if not response.language and response.prompt:
            response = replace(response, language=tagged_language(response.prompt) or "")
            tagged += bool(response.language)
        answered.append(Answered(number, 0, response))
    wanted = [Column(name, f"{at}.{part}") for part, name in named.items()]
    wanted += [Column(condition.column, f"{at}.where")] if condition else []
    _refuse_unknown(wanted, list(names), saved.source)
    if not answered:
        raise _empty(saved, faults, at)
    assert columns is not None, "a response was read by some columns"
    _refuse_partly(faults, columns, at)
    return Saved(answered, columns, faults, tagged, steered, source.identity())


def _cell(record: Record, column: str) -> str:
    value = record.values.get(column)
    return "" if value is None else shown(value)


def _columns(record: Record, named: dict[str, str], at: str) -> dict[str, str]:
    """The column of each part: the one that was named, else the first of :data:`COLUMNS` that the first row has."""
    columns = dict(named)
    for part, guesses in COLUMNS.items():
        taken = set(columns.values())
        guess = next((name for name in guesses if name not in taken and record.values.get(name) is not None), None)
        if part not in columns and guess:
            columns[part] = guess
    if "response" not in columns:
        raise UserError(
            f"{record.place}: which column holds the response?",
            remedy=f"Say so in 'response'. Columns there: {', '.join(list(map(str, record.values))[:12]) or 'none'}.",
            reason="RESPONSE_UNKNOWN",
            field=f"{at}.response",
        )
    return columns


def _refuse_unknown(wanted: Sequence[Column], names: Sequence[str], source: str) -> None:
    for column in wanted:
        # `a.b` looks inside a column.
        if names and column.name not in names and column.name.split(".")[0] not in names:
            raise missing_column(source, column, list(names))


def _empty(saved: SavedResponses, faults: Sequence[Fault], at: str) -> UserError:
    message = f"'{saved.source}' holds no response that can be used."
    if faults:
        message += f" The first of {len(faults):,} rows left out: {faults[0].place}: {faults[0].why}."
    return UserError(
        message,
        remedy=remedy_of(faults, "Check 'source', 'where' and the columns."),
        reason="DATA_EMPTY",
        field=f"{at}.source",
    )


def _refuse_partly(faults: Sequence[Fault], columns: dict[str, str], at: str) -> None:
    """Left out, rows that do not say how they ended would shift a share that depends on it."""
    for part, reason, what in (
        ("truncated", "TRUNCATED_MISSING", "do not say whether they were cut off"),
        ("ids", "TOKENS_MISSING", "have no token ids"),
    ):
        why = f"no column {columns.get(part)!r} with a value"
        missing = [fault for fault in faults if fault.why == why]
        if missing:
            raise UserError(
                f"{len(missing):,} rows {what}, others do (the first: {missing[0].place}).",
                remedy=f"Fill the column {columns[part]!r} in every row, or leave these rows out with 'where'.",
                reason=reason,
                field=f"{at}.{part}",
            )
