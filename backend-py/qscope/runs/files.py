"""Small files that are either the old or the new one, never half of each."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message


def fsync_folder(folder: Path) -> None:
    """Makes renames and removals inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what was written under it takes the place of `path` in one step.

    Readers see the old file or the whole new one; an error inside the block leaves the old one and no rest.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` by `value` as indented JSON, in one step; see :func:`plain` for what JSON cannot hold."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """A value as JSON can hold it: arrays and tuples as lists, NaN and the infinities, which JSON does not know, as
    null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    # Arrays and numbers of numpy, without an import of it here.
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces `path` by a table with a header, also without rows, in one step; what is missing or NaN is an empty
    cell."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(plain(row) for row in rows)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces `path` by one line of JSON for each row, in one step; see :func:`plain` for what JSON cannot hold."""
    # Half a character, which no UTF-8 file holds, becomes JSON's escape of it.
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def write_message(path: Path, message: Message) -> None:
    """Replaces `path` by a message in protobuf's JSON form, in one step.

    Every field stands there by its name in the contract, also those that are false, zero or empty: a result says what
    was off, too.
    """
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None when there is none (absent or not an object)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None
