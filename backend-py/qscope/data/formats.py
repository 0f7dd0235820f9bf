"""One reader per file format: the text column of every row, in order, from any row on."""

from __future__ import annotations

import csv
import difflib
import itertools
import json
import re
from collections.abc import Callable, Iterator

from qscope.data import files
from qscope.data.files import TextFile, brief, characters, damaged, decoded, lines, seekable, translated
from qscope.errors import UserError

# A document of a .txt file is cut here, so that a file of one endless line still streams.
MAX_TXT_CHARACTERS = 1 << 20
_PARQUET_ROWS = 256
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_SPACE = re.compile(r"\s*")


def rows(file: TextFile, column: str, skip: int, at: str) -> Iterator[str]:
    """Texts of a file's rows, from row ``skip`` on; an empty or null text is the empty string.

    Args:
        file: the file.
        column: name of the text column; ignored for .txt.
        skip: rows to leave out; they are not parsed where the format allows it.
        at: experiment field of the text source, for errors.

    Raises:
        UserError: a bad row (TEXT_ROW_BAD), a missing column (TEXT_FIELD_MISSING) or a damaged file (TEXT_DAMAGED).
    """
    return _READERS[file.format](file, column, skip, at)


def text_of(row: object, column: str, place: str, at: str) -> str:
    """The text of one parsed row.

    Lone surrogates, legal in JSON escapes but in no UTF-8 text, become U+FFFD.

    Args:
        row: mapping of column names to values.
        column: the text column.
        place: ``file:line`` for errors.
        at: experiment field of the text source, for errors.
    """
    if not isinstance(row, dict):
        raise _bad(place, f"holds {_kind(row)}, not an object with named columns")
    if column not in row:
        raise missing_column(place, column, [str(name) for name in row], at)
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f"{place}: column '{column}' holds {_kind(value)}, not text.",
            remedy="Name a text column in 'field'.",
            reason="TEXT_FIELD_NOT_TEXT",
            field=f"{at}.field",
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def missing_column(place: str, column: str, names: list[str], at: str) -> UserError:
    """The error for a row without the text column; suggests the nearest name."""
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    known = ", ".join(names[:12]) or "none"
    return UserError(
        f"{place}: no column '{column}'.",
        remedy=f"{guess}Columns there: {known}.",
        reason="TEXT_FIELD_MISSING",
        field=f"{at}.field",
    )


def _bad(place: str, why: str) -> UserError:
    return UserError(f"{place}: {why}.", remedy="Mend or remove this row.", reason="TEXT_ROW_BAD")


_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "a string"}


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def _parsed(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also integers of thousands of digits
        raise _bad(place, "not JSON") from error


def _jsonl(file: TextFile, column: str, skip: int, at: str) -> Iterator[str]:
    for number, raw in enumerate(lines(file), start=1):
        if number <= skip:
            continue
        place = f"{file.label}:{number}"
        line = decoded(file, number, raw)
        # A blank line is a row without text: numbering rows by line keeps cursors and messages the same.
        yield text_of(_parsed(line, place), column, place, at) if line.strip() else ""


def _json(file: TextFile, column: str, skip: int, at: str) -> Iterator[str]:
    for number, (line, value) in enumerate(_json_values(file)):
        if number >= skip:
            yield text_of(value, column, f"{file.label}:{line}", at)


def _json_values(file: TextFile) -> Iterator[tuple[int, object]]:
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


def _separated(file: TextFile, column: str, skip: int, at: str, delimiter: str) -> Iterator[str]:
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
    if column not in header:
        raise missing_column(f"{file.label}:1", column, header, at)
    index = header.index(column)
    for cells in itertools.islice(table, skip, None):
        if cells and len(cells) != len(header):
            raise _bad(f"{file.label}:{reader.line_num}", f"{len(cells)} cells, but the header names {len(header)}")
        yield cells[index].replace("\r\n", "\n") if cells else ""


def _csv(file: TextFile, column: str, skip: int, at: str) -> Iterator[str]:
    return _separated(file, column, skip, at, ",")


def _tsv(file: TextFile, column: str, skip: int, at: str) -> Iterator[str]:
    return _separated(file, column, skip, at, "\t")


def _parquet(file: TextFile, column: str, skip: int, at: str) -> Iterator[str]:
    import pyarrow

    return translated(
        _parquet_rows(file, column, skip, at),
        (pyarrow.ArrowException, OSError, UnicodeDecodeError),
        lambda error: damaged(file, brief(error)),
    )


def _parquet_rows(file: TextFile, column: str, skip: int, at: str) -> Iterator[str]:
    import pyarrow.parquet

    with seekable(file) as stream:
        table = pyarrow.parquet.ParquetFile(stream)
        names = table.schema_arrow.names
        if column not in names:
            raise missing_column(file.label, column, names, at)
        groups, number = list(range(table.num_row_groups)), 0
        while groups and number + (size := table.metadata.row_group(groups[0]).num_rows) <= skip:
            number += size
            groups.pop(0)
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, row_groups=groups, columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                if number > skip:
                    yield text_of({column: value}, column, f"{file.label}: row {number}", at)


def _txt(file: TextFile, column: str, skip: int, at: str) -> Iterator[str]:
    yield from itertools.islice(_paragraphs(file), skip, None)


def _paragraphs(file: TextFile) -> Iterator[str]:
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


_READERS: dict[str, Callable[[TextFile, str, int, str], Iterator[str]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "csv": _csv,
    "tsv": _tsv,
    "txt": _txt,
}
