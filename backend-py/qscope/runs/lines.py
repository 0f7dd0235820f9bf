"""Files of JSON, one record a line, that only ever grow: what a run has made so far and need not make again."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qscope.runs.files import fsync_folder, plain, replacing


class JsonLines:
    """An append-only file of JSON objects.

    A record is on the disk before :meth:`append` returns. What a kill left of a last line is cut off when the file is
    opened. A line that ends but holds no object was damaged by something other than a kill: it is passed over and
    counted, and what comes after it is kept. Threads may share one object, processes may not: the lock of the run
    folder sees to that.

    Args:
        path: the file; made with the first record.

    Attributes:
        records: every object of the file, oldest first.
        damaged: lines passed over.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self.records: list[dict[str, Any]] = []
        self.damaged = 0
        if not path.exists():
            return
        whole = 0
        with path.open("rb") as file:
            # Only \n ends a line: a text may hold U+2028 and the like, at which str.splitlines would cut.
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                record = _object(line)
                if record is None:
                    self.damaged += 1
                else:
                    self.records.append(record)
        if whole < path.stat().st_size:
            os.truncate(path, whole)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Adds records, all of them or none; NaN and infinities become null.

        Raises:
            OSError: they cannot be written (disk full); the file is as it was before.
        """
        if not records:
            return
        data = b"".join(_line(record) for record in records)
        with self._lock:
            is_new = not self._path.exists()
            # Unbuffered: nothing is left to be written when the file is closed after a failure.
            with self._path.open("ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    _write(file, data)
                    os.fsync(file.fileno())
                except BaseException:
                    # Half a line would swallow the next one.
                    os.ftruncate(file.fileno(), size)
                    raise
            if is_new:
                fsync_folder(self._path.parent)
            self.records.extend(records)

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> int:
        """Removes the records that are not ``wanted``; returns how many. The file is the old or the whole new one."""
        with self._lock:
            kept = [record for record in self.records if wanted(record)]
            if gone := len(self.records) - len(kept):
                with replacing(self._path) as temporary:
                    temporary.write_bytes(b"".join(_line(record) for record in kept))
                self.records = kept
            return gone


def _write(file: Any, data: bytes) -> None:
    """All of `data`: a raw file may take less at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _line(record: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        # Half a character, which no UTF-8 file holds.
        return (json.dumps(plain(record), allow_nan=False) + "\n").encode()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
