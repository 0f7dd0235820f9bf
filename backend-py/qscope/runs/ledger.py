"""Answers that cost money or hours, kept one line each, so that a run that goes on asks for none of them twice."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qscope.runs.lines import JsonLines


class Ledger:
    """Answers in a :class:`JsonLines`, found again by what was asked.

    An answer is on the disk before :meth:`put` returns; one that was under way when the run was killed is asked for
    again. Threads may share one ledger, processes may not.

    Args:
        path: the file; made when the first answer comes.

    Attributes:
        damaged: lines that hold no answer; what they held is asked for again.
    """

    def __init__(self, path: Path) -> None:
        self._lines, self._lock = JsonLines(path), threading.Lock()
        self.damaged = self._lines.damaged
        self._known: dict[str, Any] = {}
        for record in self._lines.records:
            if isinstance(record.get("key"), str) and record.get("value") is not None:
                self._known[record["key"]] = record["value"]
            else:
                self.damaged += 1

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any | None:
        """The answer to a question, None when there is none yet."""
        return self._known.get(key)

    def values(self) -> list[Any]:
        """All answers, in the order in which they came."""
        with self._lock:
            return list(self._known.values())

    def put(self, key: str, value: Any) -> None:
        """Keeps an answer; of two to the same question the first, so that no reader of the file ever sees both.

        Args:
            key: what :func:`key_of` made of the question.
            value: the answer, anything JSON holds but null.

        Raises:
            OSError: it cannot be written; the ledger is as it was before.
        """
        self.put_all({key: value})

    def put_all(self, answers: Mapping[str, Any]) -> None:
        """Keeps several answers, in one writing: see :meth:`put`."""
        assert None not in answers.values(), "null means that there is no answer"
        with self._lock:
            fresh = {key: value for key, value in answers.items() if key not in self._known}
            self._lines.append([{"key": key, "value": value} for key, value in fresh.items()])
            self._known |= fresh


def key_of(question: Any) -> str:
    """Digest of a question or an identity: anything JSON holds, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
