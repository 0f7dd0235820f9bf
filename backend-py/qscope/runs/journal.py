"""The journal of a run: events.jsonl, one proto JSON event a line, sequence n on line n.

One process owns the journal at a time (it holds the folder's lock). Readers never lock: a line without its line feed
is unfinished and does not exist yet. A process that goes on after a crash cuts such a line off and counts on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from qscope.errors import UserError
from qscope.v1.run_event_pb2 import (
    RUN_STATE_CANCELLED,
    RUN_STATE_FAILED,
    RUN_STATE_PREEMPTED,
    RUN_STATE_SUCCEEDED,
    RunEvent,
)

TERMINAL_STATES = frozenset({RUN_STATE_SUCCEEDED, RUN_STATE_FAILED, RUN_STATE_CANCELLED, RUN_STATE_PREEMPTED})
_BLOCK_BYTES = 256 * 1024


def is_terminal(event: RunEvent | None) -> bool:
    """True when `event` ends an attempt; nothing but a resume's RUNNING follows it."""
    return event is not None and event.HasField("state_changed") and event.state_changed.state in TERMINAL_STATES


class Journal:
    """The writing end. Opening it repairs an unfinished last line and checks every line before.

    Args:
        path: events.jsonl; created when absent. The caller holds the folder's lock.

    Raises:
        UserError: JOURNAL_DAMAGED when a finished line is not the event that belongs there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        path = self._path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self.last_sequence = 0
            last: RunEvent | None = None
            reader = JournalReader(path)
            while events := reader.read():
                last = events[-1]
                self.last_sequence = last.sequence
            self._bytes = reader.offset
            self.ended = is_terminal(last)
            os.ftruncate(self._descriptor, self._bytes)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, *, durable: bool = False, **event: Any) -> RunEvent:
        """Writes one event and returns it.

        Args:
            durable: wait until it is on disk; state changes and checkpoints always do.
            event: exactly one field of RunEvent's oneof, for example ``progress=Progress(...)``.
        """
        with self._lock:
            message = RunEvent(sequence=self.last_sequence + 1, **event)
            message.time.GetCurrentTime()
            line = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None).encode() + b"\n"
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                # Half a line would swallow the next event.
                os.ftruncate(self._descriptor, self._bytes)
                raise
            self._bytes += len(line)
            self.last_sequence = message.sequence
            self.ended = is_terminal(message)
            if durable or message.HasField("state_changed") or message.HasField("checkpoint"):
                os.fsync(self._descriptor)
            return message

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Leaves the journal to another process, which this one outlives, and takes it up again where that left it."""
        self.close()
        try:
            yield
        finally:
            self._open()

    def close(self) -> None:
        """Releases the file; a second call does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JournalReader:
    """The reading end: each call of `read` returns the finished events that came since the last.

    Args:
        path: events.jsonl; may not exist yet.
        after_sequence: events up to this one are passed over without being parsed.
    """

    def __init__(self, path: Path, after_sequence: int = 0) -> None:
        self._path = path
        self._after = after_sequence
        self.sequence = 0
        self.offset = 0

    def read(self, max_bytes: int = _BLOCK_BYTES) -> list[RunEvent]:
        """New finished events in order; an empty list when there is none.

        Args:
            max_bytes: about how much of the file one call parses; a longer line is still read whole.

        Raises:
            UserError: JOURNAL_DAMAGED, with the line.
        """
        events: list[RunEvent] = []
        while not events:
            lines = self._next_lines(max_bytes)
            if not lines:
                break
            for line in lines:
                self.sequence += 1
                self.offset += len(line)
                if self.sequence > self._after:
                    events.append(_parse(line, self.sequence, self._path))
        return events

    def _next_lines(self, max_bytes: int) -> list[bytes]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            block = os.pread(descriptor, max_bytes, self.offset)
            while b"\n" not in block:
                more = os.pread(descriptor, max_bytes, self.offset + len(block))
                if not more:
                    return []
                block += more
        finally:
            os.close(descriptor)
        return [line + b"\n" for line in block[: block.rindex(b"\n")].split(b"\n")]


def tail(path: Path, after_sequence: int = 0) -> Iterator[RunEvent]:
    """Every finished event after `after_sequence` that the journal holds now, in order."""
    reader = JournalReader(path, after_sequence)
    while events := reader.read():
        yield from events


def newest(path: Path, limit_bytes: int = _BLOCK_BYTES) -> tuple[RunEvent | None, RunEvent | None]:
    """The newest finished event, and the newest progress event if the last `limit_bytes` of the journal hold one.

    Raises:
        UserError: JOURNAL_DAMAGED when the last line is no event.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            while True:
                start = max(0, size - limit_bytes)
                file.seek(start)
                block = file.read(size - start)
                # A single line may be longer than the limit; the newest event is always found.
                if start == 0 or block.count(b"\n") >= 2:
                    break
                limit_bytes *= 4
    except FileNotFoundError:
        return None, None
    lines = block[: block.rfind(b"\n") + 1].split(b"\n")[0 if start == 0 else 1 : -1]
    if not lines:
        return None, None
    last = _parse(lines[-1], None, path)
    for line in reversed(lines):
        # Parsing costs fifty times the search.
        if b'"progress"' in line:
            event = _parse(line, None, path)
            if event.HasField("progress"):
                return last, event
    return last, None


def _parse(line: bytes, sequence: int | None, path: Path) -> RunEvent:
    where = f"line {sequence}" if sequence else "its last lines"
    try:
        event = json_format.Parse(line, RunEvent(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise _damaged(path, f"{where} is no event ({error})") from error
    if event.sequence != (sequence or event.sequence) or not event.sequence:
        raise _damaged(path, f"{where} carries sequence {event.sequence}")
    return event


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"The journal {path} is damaged: {what}.",
        remedy="Restore the file from a copy, or start the run again under a new request.",
        reason="JOURNAL_DAMAGED",
    )
