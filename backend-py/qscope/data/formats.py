"""One reader per file format: the wanted columns of every row, in order, from any row on."""

from __future__ import annotations

import csv
import difflib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from qscope.data import files
from qscope.data.files import TextFile, brief, characters, damaged, decoded, lines, seekable, translated
from qscope.errors import UserError

# A document of a .txt file is cut here, so that a file of one endless line still streams.
MAX_TXT_CHARACTERS = 1 << 20
_PARQUET_ROWS = 256
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_SPACE = re.compile(r"\s*")


class Column(NamedTuple):
    """A column of a table and the experiment field that named it, for errors."""

    name: str
    field: str


def rows(file: TextFile, columns: Sequence[Column], skip: int) -> Iterator[tuple[str, ...]]:
    """Values of a file's rows, from row ``skip`` on, in the order of ``columns``.

    Args:
        file: the file.
        columns: the text column, then any others; a .txt file has the text alone, under any name.
        skip: rows to leave out; they are not parsed where the format allows it.

    Raises:
        UserError: a bad row (TEXT_ROW_BAD), a missing column (TEXT_FIELD_MISSING) or a damaged file (TEXT_DAMAGED).
    """
    return _READERS[file.format](file, columns, skip)


def values_of(row: object, columns: Sequence[Column], place: str) -> tuple[str, ...]:
    """The wanted values of one parsed row.

    The text must be text; an empty or null one is the empty string. A further column may also hold a number or a
    boolean, which is written as in JSON. Lone surrogates, legal in JSON escapes but in no UTF-8 text, become U+FFFD.

    Args:
        row: mapping of column names to values.
        columns: the text column, then any others.
        place: ``file:line`` for errors.
    """
    if not isinstance(row, dict):
        raise _bad(place, f"holds {kind_of(row)}, not an object with named columns")
    return tuple(_value(row, column, place, scalar=index > 0) for index, column in enumerate(columns))


def _value(row: dict, column: Column, place: str, *, scalar: bool) -> str:
    if column.name not in row:
        raise missing_column(place, column, [str(name) for name in row])
    value = row[column.name]
    if value is None:
        return ""
    if scalar and isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise UserError(
            f"{place}: column '{column.name}' holds {kind_of(value)}, not text.",
            remedy=f"Name another column in '{column.field.rpartition('.')[2]}'.",
            reason="TEXT_FIELD_NOT_TEXT",
            field=column.field,
        )
    return whole_characters(value)


def whole_characters(text: str) -> str:
    """Text with lone surrogates, legal in JSON escapes but in no UTF-8 text, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def missing_column(place: str, column: Column, names: list[str]) -> UserError:
    """The error for a row without a wanted column; suggests the nearest name."""
    near = difflib.get_close_matches(column.name, names, n=1, cutoff=0.5)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    known = ", ".join(names[:12]) or "none"
    return UserError(
        f"{place}: no column '{column.name}'.",
        remedy=f"{guess}Columns there: {known}.",
        reason="TEXT_FIELD_MISSING",
        field=column.field,
    )


def _bad(place: str, why: str) -> UserError:
    return UserError(f"{place}: {why}.", remedy="Mend or remove this row.", reason="TEXT_ROW_BAD")


_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "a string"}


def kind_of(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def _parsed(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also integers of thousands of digits
        raise _bad(place, "not JSON") from error


def _jsonl(file: TextFile, columns: Sequence[Column], skip: int) -> Iterator[tuple[str, ...]]:
    for number, raw in enumerate(lines(file), start=1):
        if number <= skip:
            continue
        place = f"{file.label}:{number}"
        line = decoded(file, number, raw)
        # A blank line is a row without text: numbering rows by line keeps cursors and messages the same.
        yield values_of(_parsed(line, place), columns, place) if line.strip() else ("",) * len(columns)


def _json(file: TextFile, columns: Sequence[Column], skip: int) -> Iterator[tuple[str, ...]]:
    for number, (line, value) in enumerate(json_values(file)):
        if number >= skip:
            yield values_of(value, columns, f"{file.label}:{line}")


def json_values(file: TextFile) -> Iterator[tuple[int, object]]:
    """Values of one top-level array, or of concatenated top-level values, each with its line."""
    decoder = json.JSONDecoder()
    source = characters(file)
    buffer, position, line = "", 0, 1
    in_array, closed, ended = False, False, False

    def refill() -> None:
        nonlocal buffer, position, ended
        buffer, position = buffer[position:], 0
        # At least doubling keeps the repeated decoding of one large value linear.
        target = 2 * len(buffer) + 1
        parts, size = [buffer], len(buffer)
        while size < target:
            part = next(source, None)
            if part is None:
                ended = True
                break
            parts.append(part)
            size += len(part)
        buffer = "".join(parts)

    first, separated = True, True
    while True:
        end = _SPACE.match(buffer, position).end()
        line += buffer.count("\n", position, end)
        position = end
        if position == len(buffer):
            if not ended:
                refill()
                continue
            if in_array and not closed:
                raise damaged(file, "the array is not closed")
            return
        place = f"{file.label}:{line}"
        if closed:
            raise _bad(place, "text after the end of the array")
        character = buffer[position]
        if first and character == "[":
            in_array, first, position = True, False, position + 1
            continue
        first = False
        if in_array and character == "]":
            closed, position = True, position + 1
            continue
        if in_array and character == "," and not separated:
            separated, position = True, position + 1
            continue
        if in_array and not separated:
            raise _bad(place, "not JSON (a comma is missing)")
        try:
            value, end = decoder.raw_decode(buffer, position)
        except (ValueError, RecursionError) as error:
            if len(buffer) - position > files.MAX_ROW_BYTES:
                raise files.row_too_long(file, line) from error
            if ended or isinstance(error, RecursionError):
                raise _bad(place, "not JSON") from error
            refill()
            continue
        # A bare number may go on in the next block, but no number is a row anyway.
        yield line, value
        line += buffer.count("\n", position, end)
        position, separated = end, not in_array


def _separated(file: TextFile, columns: Sequence[Column], skip: int, delimiter: str) -> Iterator[tuple[str, ...]]:
    # The limit is global to the process in the standard library; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), files.MAX_ROW_BYTES))
    # The terminator stays on the line: a quoted cell may span lines.
    source = (decoded(file, number, raw) + "\n" for number, raw in enumerate(lines(file), start=1))
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    table = translated(
        reader, (csv.Error,), lambda error: _bad(f"{file.label}:{reader.line_num}", f"not a row of the table ({error})")
    )
    header = next(table, None)
    if header is None:
        return
    for column in columns:
        if column.name not in header:
            raise missing_column(f"{file.label}:1", column, header)
    indices = [header.index(column.name) for column in columns]
    for cells in itertools.islice(table, skip, None):
        if cells and len(cells) != len(header):
            raise _bad(f"{file.label}:{reader.line_num}", f"{len(cells)} cells, but the header names {len(header)}")
        yield tuple(cells[index].replace("\r\n", "\n") if cells else "" for index in indices)


def _csv(file: TextFile, columns: Sequence[Column], skip: int) -> Iterator[tuple[str, ...]]:
    return _separated(file, columns, skip, ",")


def _tsv(file: TextFile, columns: Sequence[Column], skip: int) -> Iterator[tuple[str, ...]]:
    return _separated(file, columns, skip, "\t")


def _parquet(file: TextFile, columns: Sequence[Column], skip: int) -> Iterator[tuple[str, ...]]:
    import pyarrow

    return translated(
        _parquet_rows(file, columns, skip),
        (pyarrow.ArrowException, OSError, UnicodeDecodeError),
        lambda error: damaged(file, brief(error)),
    )


def _parquet_rows(file: TextFile, columns: Sequence[Column], skip: int) -> Iterator[tuple[str, ...]]:
    import pyarrow.parquet

    with seekable(file) as stream:
        table = pyarrow.parquet.ParquetFile(stream)
        names = table.schema_arrow.names
        for column in columns:
            if column.name not in names:
                raise missing_column(file.label, column, names)
        wanted = list(dict.fromkeys(column.name for column in columns))
        groups, number = list(range(table.num_row_groups)), 0
        while groups and number + (size := table.metadata.row_group(groups[0]).num_rows) <= skip:
            number += size
            groups.pop(0)
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, row_groups=groups, columns=wanted):
            for row in batch.to_pylist():
                number += 1
                if number > skip:
                    yield values_of(row, columns, f"{file.label}: row {number}")


def _txt(file: TextFile, columns: Sequence[Column], skip: int) -> Iterator[tuple[str, ...]]:
    if len(columns) > 1:
        raise missing_column(file.label, columns[1], [])
    for text in itertools.islice(paragraphs(file), skip, None):
        yield (text,)


def paragraphs(file: TextFile) -> Iterator[str]:
    """Documents of a text file: blank lines separate them, and long ones are cut at white space."""
    buffer = ""
    for block in characters(file):
        buffer += block
        start = 0
        while True:
            gap = _BLANK_LINE.search(buffer, start, start + MAX_TXT_CHARACTERS)
            if gap:
                text, start = buffer[start : gap.start()], gap.end()
            elif len(buffer) - start >= MAX_TXT_CHARACTERS:
                cut = buffer.rfind(" ", start + MAX_TXT_CHARACTERS // 2, start + MAX_TXT_CHARACTERS)
                stop = cut if cut > 0 else start + MAX_TXT_CHARACTERS
                text, start = buffer[start:stop], stop
            else:
                break
            if text.strip():
                yield text.strip("\n")
        buffer = buffer[start:]
    if buffer.strip():
        yield buffer.strip("\n")


_READERS: dict[str, Callable[[TextFile, Sequence[Column], int], Iterator[tuple[str, ...]]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "csv": _csv,
    "tsv": _tsv,
    "txt": _txt,
}
