"""Documents from any text source: one at a time, in a fixed order, from any remembered place on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from qscope.data.files import TextFile, brief, digest
from qscope.data.formats import rows, text_of
from qscope.errors import UserError


class TextReader(Protocol):
    """A source of documents in a fixed order.

    A state is small, fits JSON, and names the next document; a reader that loads it goes on exactly there.
    """

    def read(self) -> str | None:
        """The next document ("" for a row without text), or None at the end of the pass."""
        ...

    def start_pass(self, number: int) -> None:
        """Goes back to the first document, for pass ``number`` (from 0) over the source."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def identity(self) -> dict[str, Any]:
        """What is read: enough to notice on resume that the source has changed."""
        ...


class FileReader:
    """Documents of files, in their order.

    Args:
        source: name of the source in reports.
        files: the files.
        column: the text column.
        at: experiment field of the text source, for errors.
    """

    def __init__(self, source: str, files: list[TextFile], column: str, at: str) -> None:
        self._files, self._column, self._at = files, column, at
        self._identity = {
            "source": source,
            "files": len(files),
            "bytes": sum(file.path.stat().st_size for file in files),
            "digest": digest(files),
            "column": column,
        }
        self.load_state({"file": 0, "row": 0})

    def read(self) -> str | None:
        while self._file < len(self._files):
            if self._rows is None:
                self._rows = rows(self._files[self._file], self._column, self._row, self._at)
            text = next(self._rows, None)
            if text is not None:
                self._row += 1
                return text
            self._rows, self._file, self._row = None, self._file + 1, 0
        return None

    def start_pass(self, number: int) -> None:
        self.load_state({"file": 0, "row": 0})

    def state(self) -> dict[str, Any]:
        return {"file": self._file, "row": self._row}

    def load_state(self, state: dict[str, Any]) -> None:
        self._file, self._row = int(state["file"]), int(state["row"])
        self._rows: Iterator[str] | None = None

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)


class DatasetReader:
    """Documents of a streamed dataset of the Hugging Face hub.

    Args:
        dataset: a ``datasets.IterableDataset``.
        name: its id, configuration, split and commit, for reports.
        column: the text column.
        at: experiment field of the text source, for errors.
    """

    def __init__(self, dataset: Any, name: dict[str, str], column: str, at: str) -> None:
        self._dataset, self._name, self._column, self._at = dataset, name, column, at
        self._start = dataset.state_dict()
        self.load_state({"row": 0, "dataset": self._start})

    def read(self) -> str | None:
        try:
            if self._rows is None:
                self._rows = iter(self._dataset)
            row = next(self._rows, None)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self._name['source']}: reading stopped after row {self._row} ({brief(error)}).",
                remedy="Check the network and resume the run.",
                reason="TEXT_UNREACHABLE",
                field=f"{self._at}.source",
            ) from error
        if row is None:
            return None
        self._row += 1
        return text_of(row, self._column, f"{self._name['source']}: row {self._row}", self._at)

    def start_pass(self, number: int) -> None:
        self.load_state({"row": 0, "dataset": self._start})

    def state(self) -> dict[str, Any]:
        # Until it is iterated, a dataset reports where its previous iterator stood, not the state it has loaded.
        return {"row": self._row, "dataset": self._loaded if self._rows is None else self._dataset.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._loaded = state["dataset"]
        self._dataset.load_state_dict(self._loaded)
        self._row = int(state["row"])
        self._rows: Iterator[dict[str, Any]] | None = None

    def identity(self) -> dict[str, Any]:
        return {**self._name, "column": self._column}


class ShuffledReader:
    """Shuffles documents within consecutive windows of a reader.

    The order of a window is a function of the seed, the pass and the window's number, so the state is only where the
    window starts and how much of it has been read; resuming reads the window again. A reservoir would mix across
    windows, but its exact state is its whole content.

    Args:
        reader: the reader in file order.
        window: documents held.
        seed: seed of the order.
    """

    def __init__(self, reader: TextReader, window: int, seed: int) -> None:
        self._reader, self._window, self._seed = reader, window, seed
        self._pass = 0
        self._open_window(0)

    def read(self) -> str | None:
        if self._next == len(self._held):
            if self._held:
                self._open_window(self._number + 1)
            self._fill()
            if not self._held:
                return None
        self._next += 1
        return self._held[self._next - 1]

    def start_pass(self, number: int) -> None:
        self._reader.start_pass(number)
        self._pass = number
        self._open_window(0)

    def state(self) -> dict[str, Any]:
        return {"pass": self._pass, "window": self._number, "start": self._start, "next": self._next}

    def load_state(self, state: dict[str, Any]) -> None:
        self._reader.load_state(state["start"])
        self._pass = int(state["pass"])
        self._open_window(int(state["window"]))
        if state["next"]:
            self._fill()
            self._next = int(state["next"])

    def identity(self) -> dict[str, Any]:
        return {**self._reader.identity(), "shuffle_documents": self._window, "shuffle_seed": self._seed}

    def _open_window(self, number: int) -> None:
        self._number, self._start = number, self._reader.state()
        self._held: list[str] = []
        self._next = 0

    def _fill(self) -> None:
        held: list[str] = []
        while len(held) < self._window and (text := self._reader.read()) is not None:
            held.append(text)
        order = np.random.default_rng((self._seed, self._pass, self._number)).permutation(len(held))
        self._held = [held[i] for i in order]
