"""Finding text files and reading their bytes, compressed or not, with bounded memory."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import zstandard

from qscope.errors import UserError

FORMATS = ("jsonl", "json", "parquet", "csv", "tsv", "txt")
COMPRESSIONS = ("gz", "zst")
READABLE = "Readable are ." + ", .".join(FORMATS) + "; each also as .gz or .zst."

Item = TypeVar("Item")

# A single row larger than this is a broken file far more often than a document.
MAX_ROW_BYTES = 64 << 20
# Small enough that a block of a highly compressible file stays below ~64 MB when inflated.
_BLOCK = 64 << 10


@dataclass(frozen=True)
class TextFile:
    """A file of documents.

    Attributes:
        path: where it lies.
        label: its name in messages, relative to the source.
        format: one of ``FORMATS``.
        compression: ``"gz"``, ``"zst"`` or ``""``.
    """

    path: Path
    label: str
    format: str
    compression: str


def classify(path: Path, label: str = "") -> TextFile | None:
    """The format and compression a file's name promises, or None when it is no text file we read."""
    suffixes = [part.lower() for part in path.name.split(".")[1:]]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    if not suffixes or suffixes[-1] not in FORMATS:
        return None
    return TextFile(path, label or path.name, suffixes[-1], compression)


def find_files(source: str, at: str) -> list[TextFile]:
    """Text files of a file, folder or glob, in the sorted order of their paths.

    Args:
        source: an existing file or folder, or a glob pattern (``**`` crosses folders).
        at: experiment field named in errors.

    Raises:
        UserError: nothing is there (TEXT_NOT_FOUND) or nothing there is readable (TEXT_FORMAT_UNKNOWN).
    """
    root = Path(source).expanduser()
    if root.is_file():
        found = classify(root)
        if found is None:
            raise UserError(
                f"{source}: the format of this file is unknown.",
                remedy=READABLE,
                reason="TEXT_FORMAT_UNKNOWN",
                field=at,
            )
        return [found]
    if root.is_dir():
        candidates = [p for p in root.rglob("*") if not any(part.startswith(".") for part in p.relative_to(root).parts)]
        labels = {p: p.relative_to(root).as_posix() for p in candidates}
    else:
        candidates = [Path(p) for p in glob.glob(os.path.expanduser(source), recursive=True)]
        labels = {p: p.as_posix() for p in candidates}
    files = [classify(p, labels[p]) for p in sorted(candidates, key=lambda p: p.as_posix()) if p.is_file()]
    readable = [f for f in files if f is not None]
    if readable:
        return readable
    if files:
        raise UserError(
            f"{source}: none of its {len(files)} files has a readable format.",
            remedy=READABLE,
            reason="TEXT_FORMAT_UNKNOWN",
            field=at,
        )
    raise UserError(
        f"{source}: no text file found there.",
        remedy="Check the path; relative paths start at the experiment's folder. " + READABLE,
        reason="TEXT_NOT_FOUND",
        field=at,
    )


def digest(files: list[TextFile]) -> str:
    """Fingerprint of names, sizes, first and last 64 KiB of all files; notices a replaced text on resume."""
    state = hashlib.blake2b(digest_size=16)
    for file in files:
        size = file.path.stat().st_size
        state.update(f"{file.label}\0{size}\0".encode())
        with file.path.open("rb") as stream:
            state.update(stream.read(_BLOCK))
            stream.seek(max(0, size - _BLOCK))
            state.update(stream.read(_BLOCK))
    return state.hexdigest()


def blocks(file: TextFile) -> Iterator[bytes]:
    """The decompressed bytes of a file, in blocks.

    Raises:
        UserError: the file is damaged, cut short or unreadable (TEXT_DAMAGED).
    """

    def refusal(error: Exception) -> UserError:
        if isinstance(error, OSError):
            return UserError(
                f"{file.label}: cannot be read ({error.strerror or error}).",
                remedy="Check the file and its permissions.",
                reason="TEXT_NOT_FOUND",
            )
        return damaged(file, str(error))

    return translated(_blocks(file), (zlib.error, zstandard.ZstdError, EOFError, OSError), refusal)


def _blocks(file: TextFile) -> Iterator[bytes]:
    with file.path.open("rb") as stream:
        match file.compression:
            case "gz":
                yield from _decompressed(stream, lambda: zlib.decompressobj(wbits=31), padding=b"\0")
            case "zst":
                yield from _decompressed(stream, lambda: zstandard.ZstdDecompressor().decompressobj(), padding=b"")
            case _:
                while block := stream.read(_BLOCK):
                    yield block


def translated(
    source: Iterator[Item], errors: tuple[type[Exception], ...], into: Callable[[Exception], UserError]
) -> Iterator[Item]:
    """The items of ``source``, with its errors turned into errors for people.

    Nothing is caught around the ``yield``: an interpreter that shuts down closes open generators after the names in
    their ``except`` clauses are gone, and would complain about each.
    """
    while True:
        try:
            item = next(source)
        except StopIteration:
            return
        except errors as error:
            raise into(error) from error
        yield item


def damaged(file: TextFile, why: str) -> UserError:
    """The error for a file that is not what its name says."""
    kind = f".{file.format}" + (f".{file.compression}" if file.compression else "")
    return UserError(
        f"{file.label}: not a whole {kind} file ({why}).",
        remedy="Download or write the file again.",
        reason="TEXT_DAMAGED",
    )


def brief(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _decompressed(stream: BinaryIO, start: Callable[[], object], padding: bytes) -> Iterator[bytes]:
    # The libraries' file objects are not used: zstandard's ends silently on a truncated file.
    inflater = start()
    while block := stream.read(_BLOCK):
        while block:
            if inflater.eof:
                block = block.lstrip(padding) if padding else block
                if not block:
                    break
                inflater = start()
            yield inflater.decompress(block)
            block = inflater.unused_data if inflater.eof else b""
    if not inflater.eof:
        raise EOFError("it ends early")


def lines(file: TextFile) -> Iterator[bytes]:
    """Lines of a file without their ``\\n``.

    Only ``\\n`` ends a line: U+2028 and its kin are legal inside JSON strings.
    A UTF-8 byte-order mark at the start is dropped.

    Raises:
        UserError: a line exceeds ``MAX_ROW_BYTES``, or the file is UTF-16.
    """
    pieces: list[bytes] = []
    held, number, first = 0, 1, True
    for block in blocks(file):
        if not block:
            continue
        if first:
            block, first = _without_bom(file, block), False
        *whole, rest = block.split(b"\n")
        for part in whole:
            pieces.append(part)
            yield b"".join(pieces)
            pieces, held, number = [], 0, number + 1
        pieces.append(rest)
        held += len(rest)
        if held > MAX_ROW_BYTES:
            raise row_too_long(file, number)
    if held:
        yield b"".join(pieces)


def row_too_long(file: TextFile, line: int) -> UserError:
    """The error for a row beyond ``MAX_ROW_BYTES``."""
    return UserError(
        f"{file.label}:{line}: a row of more than {MAX_ROW_BYTES >> 20} MiB.",
        remedy="Split the document, or check that the file has the format its name says.",
        reason="TEXT_ROW_BAD",
    )


def characters(file: TextFile) -> Iterator[str]:
    """The text of a UTF-8 file in blocks, with every line end as ``\\n``.

    Raises:
        UserError: the bytes are not UTF-8 (names the byte).
    """
    import codecs

    utf8 = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    done, first = 0, True
    for block in blocks(file):
        if not block:
            continue
        if first:
            block, first = _without_bom(file, block), False
        try:
            text = utf8.decode(block)
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{file.label}: byte {done + error.start}") from error
        done += len(block)
        yield newlines.decode(text)
    try:
        yield newlines.decode(utf8.decode(b"", final=True), final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{file.label}: byte {done}") from error


def decoded(file: TextFile, line: int, raw: bytes) -> str:
    """One line as text.

    Raises:
        UserError: the line is not UTF-8 (names the line).
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{file.label}:{line}") from error


def _not_utf8(place: str) -> UserError:
    return UserError(
        f"{place}: not UTF-8 text.",
        remedy="Convert the file to UTF-8, for example with iconv.",
        reason="TEXT_ROW_BAD",
    )


def _without_bom(file: TextFile, block: bytes) -> bytes:
    if block.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _not_utf8(f"{file.label}:1")
    return block.removeprefix(b"\xef\xbb\xbf")


@contextmanager
def seekable(file: TextFile) -> Iterator[BinaryIO]:
    """The decompressed file as a seekable stream; a compressed one is unpacked to a temporary file."""
    if not file.compression:
        with file.path.open("rb") as stream:
            yield stream
        return
    with tempfile.TemporaryFile() as stream:
        for block in blocks(file):
            stream.write(block)
        stream.seek(0)
        yield stream
