"""Whole rows of a file, with every column: for data sets that are looked at item by item, such as benchmarks.

Where :mod:`qscope.data.formats` streams text and stops at a bad row, this names the bad rows and goes on: whether one
is an error is for the caller to say. The exception is a .json, which is one value from its first character to its last:
behind a place that is no JSON nothing can be told apart, and the file ends with an error.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qscope.data import files, formats
from qscope.data.files import TextFile, decoded, lines, seekable, translated
from qscope.errors import UserError


@dataclass(frozen=True)
class Record:
    """One row.

    Attributes:
        place: where it stands: ``file:line``, or the item of an array.
        values: its columns.
    """

    place: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A row that cannot be read, and why."""

    place: str
    why: str


def remedy_of(faults: Sequence[Fault], usual: str) -> str:
    """What to do about a source of which nothing is left: by the first of its faults, else ``usual``."""
    if faults and faults[0].why == "not UTF-8 text":
        return "Convert the file to UTF-8, for example with iconv."
    if faults and ".json:" in faults[0].place:
        return f"{usual} Where the rows of a .json are not at the top, 'records' says where they are."
    return usual


@dataclass(frozen=True)
class Layout:
    """What a file does not say of itself.

    Attributes:
        columns: names of the columns of a .csv or .tsv without a header; empty when the first row names them.
        inside: path of the array of rows in a .json whose rows are not at the top, keys joined by dots.
        at: experiment field of the source, for errors; ``columns`` and ``inside`` stand beside it.
    """

    columns: Sequence[str] = ()
    inside: str = ""
    at: str = ""


def records(file: TextFile, layout: Layout | None = None) -> Iterator[Record | Fault]:
    """The rows of a file in order. Blank lines are no rows.

    Raises:
        UserError: a damaged file (TEXT_DAMAGED), a .json that is no JSON, a table whose header cannot be read, a row of
            more than 64 MiB (TEXT_ROW_BAD), or rows that are not where ``inside`` says (RECORDS_NOT_FOUND).
    """
    return _READERS[file.format](file, layout or Layout())


def _jsonl(file: TextFile, layout: Layout) -> Iterator[Record | Fault]:
    for number, raw in enumerate(lines(file), start=1):
        place = f"{file.label}:{number}"
        try:
            line = decoded(file, number, raw)
        except UserError:
            yield Fault(place, "not UTF-8 text")
            continue
        if line.strip():
            yield _parsed(line, place)


def _parsed(text: str, place: str) -> Record | Fault:
    try:
        return _row(json.loads(text), place)
    except (ValueError, RecursionError):  # ValueError: also integers of thousands of digits
        return Fault(place, "not JSON")


def _row(value: object, place: str) -> Record | Fault:
    if isinstance(value, dict):
        try:
            return Record(place, _whole(value))
        except RecursionError:
            return Fault(place, "nested too deeply")
    return Fault(place, f"holds {formats.kind_of(value)}, not an object with named columns")


def _whole(value: Any) -> Any:
    """A value of JSON whose text, names of columns too, is whole characters."""
    if isinstance(value, str):
        return formats.whole_characters(value)
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    if isinstance(value, dict):
        return {formats.whole_characters(key): _whole(inner) for key, inner in value.items()}
    return value


def _json(file: TextFile, layout: Layout) -> Iterator[Record | Fault]:
    if not layout.inside:
        for line, value in formats.json_values(file):
            yield _row(value, f"{file.label}:{line}")
        return
    for _, value in formats.json_values(file):
        found: Any = value
        for key in layout.inside.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, list):
            known = ", ".join(list(value)[:12]) if isinstance(value, dict) else "none"
            raise UserError(
                f"{file.label}: there is no array '{layout.inside}' in it.",
                remedy=f"Name the path of the rows in 'records'. Keys at the top: {known}.",
                reason="RECORDS_NOT_FOUND",
                field=f"{layout.at}.records" if layout.at else "",
            )
        for index, row in enumerate(found):
            yield _row(row, f"{file.label}: {layout.inside}[{index}]")


#: A row of a table: the line it begins in, and its cells, or why it has none.
_Row = tuple[int, list[str] | str]


def _csv(file: TextFile, layout: Layout) -> Iterator[Record | Fault]:
    return _table(file, layout, _csv_rows(file))


def _csv_rows(file: TextFile) -> Iterator[_Row]:
    """Rows one by one. Behind a row that cannot be read it goes on with the very next line: a stray quotation mark
    would otherwise take along all lines up to the next one, or the rest of the file."""
    csv.field_size_limit(max(csv.field_size_limit(), files.MAX_ROW_BYTES))
    numbered = enumerate(lines(file), start=1)
    again: deque[tuple[int, bytes]] = deque()

    def following() -> tuple[int, bytes] | None:
        return again.popleft() if again else next(numbered, None)

    def row_from(raw: bytes, taken: list[tuple[int, bytes]]) -> Iterator[str]:
        # The terminator stays on the line: a quoted cell may span lines.
        yield raw.decode() + "\n"
        while (line := following()) is not None:
            taken.append(line)
            yield line[1].decode() + "\n"

    while (line := following()) is not None:
        first, raw = line
        taken: list[tuple[int, bytes]] = []
        try:
            row: list[str] | str = next(csv.reader(row_from(raw, taken), strict=True))
        except UnicodeDecodeError:
            row = "not UTF-8 text"
        except csv.Error as error:
            row = f"not a row of the table ({_plain(str(error))})"
        if isinstance(row, str):
            again.extendleft(reversed(taken))
        yield first, row


def _plain(error: str) -> str:
    """What the csv module complains of, in words of the file rather than of the module."""
    if error == "unexpected end of data":
        return "a quotation mark is not closed"
    return "a carriage return without a line feed" if error.startswith("new-line character") else error


def _tsv(file: TextFile, layout: Layout) -> Iterator[Record | Fault]:
    return _table(file, layout, _tsv_rows(file))


def _tsv_rows(file: TextFile) -> Iterator[_Row]:
    # No quoting across cells: a tab always ends one, and text that merely begins with a quotation mark is left alone.
    for number, raw in enumerate(lines(file), start=1):
        try:
            line = raw.decode().rstrip("\r")
        except UnicodeDecodeError:
            yield number, "not UTF-8 text"
            continue
        if line.strip():
            yield number, [_unquoted(cell) for cell in line.split("\t")]


def _unquoted(cell: str) -> str:
    """A cell as a table writer that quotes has meant it: only when all of it is in quotation marks, doubled inside."""
    inner = cell[1:-1]
    whole = len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else cell


def _table(file: TextFile, layout: Layout, rows: Iterator[_Row]) -> Iterator[Record | Fault]:
    names = list(layout.columns)
    for number, cells in rows:
        place = f"{file.label}:{number}"
        if not cells:
            continue
        if isinstance(cells, str):
            if not names:
                raise UserError(
                    f"{place}: {cells}.",
                    remedy="Mend this row: it names the columns.",
                    reason="TEXT_ROW_BAD",
                )
            yield Fault(place, cells)
        elif not names:
            names = cells
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise UserError(
                    f"{place}: {Counter(names)[twice[0]]} columns are called '{twice[0]}'.",
                    remedy="Give every column a name of its own.",
                    reason="TEXT_ROW_BAD",
                )
        elif len(cells) != len(names):
            yield Fault(place, f"{len(cells)} cells, but {len(names)} columns")
        else:
            yield Record(place, dict(zip(names, (cell.replace("\r\n", "\n") for cell in cells), strict=True)))


def _parquet(file: TextFile, layout: Layout) -> Iterator[Record | Fault]:
    import pyarrow
    import pyarrow.parquet

    def rows() -> Iterator[Record | Fault]:
        with seekable(file) as stream:
            number = itertools.count(1)
            for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    yield Record(f"{file.label}: row {next(number)}", row)

    return translated(
        rows(),
        (pyarrow.ArrowException, OSError, UnicodeDecodeError),
        lambda error: files.damaged(file, files.brief(error)),
    )


def _txt(file: TextFile, layout: Layout) -> Iterator[Record | Fault]:
    for number, text in enumerate(formats.paragraphs(file), start=1):
        yield Record(f"{file.label}: paragraph {number}", {"text": text})


_READERS: dict[str, Callable[[TextFile, Layout], Iterator[Record | Fault]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "csv": _csv,
    "tsv": _tsv,
    "txt": _txt,
}
