"""Results that grow piece by piece in a fixed order, without being held: what was cut short is taken away again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qscope.runs.files import read_json, write_json


class GrowingFiles:
    """Files that are appended to together. After a kill they are as after the last :meth:`append` that returned.

    Args:
        folder: where they are.
        names: their names.
        note: name of the small file that says how far they are whole.

    Attributes:
        state: what the last :meth:`append` was given; None before the first.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, note: str) -> None:
        self._paths, self._note = {name: folder / name for name in names}, folder / note
        known = read_json(self._note)
        sizes = known["bytes"] if known else dict.fromkeys(names, 0)
        self.state: dict[str, Any] | None = known["state"] if known else None
        self._sizes = {name: int(sizes[name]) for name in names}
        for name, path in self._paths.items():
            there = path.stat().st_size if path.exists() else 0
            if there < self._sizes[name]:
                # Somebody shortened it: what is missing cannot be told from what was never written.
                self._sizes, self.state = dict.fromkeys(names, 0), None
                break
        for name, path in self._paths.items():
            path.touch()
            os.truncate(path, self._sizes[name])

    def append(self, pieces: Mapping[str, bytes], state: dict[str, Any]) -> None:
        """Adds a piece to each file, and the state that goes with it.

        Args:
            pieces: what to add, by file; a file without a piece stays as it is.
            state: anything JSON holds.
        """
        for name, piece in pieces.items():
            with self._paths[name].open("ab") as file:
                file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            self._sizes[name] += len(piece)
        write_json(self._note, {"bytes": self._sizes, "state": state})
        self.state = state
