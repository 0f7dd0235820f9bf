"""Documents from any text source: one at a time, in a fixed order, from any remembered place on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from qscope.data.files import TextFile, brief, digest
from qscope.data.formats import rows, values_of
from qscope.data.selection import Selection
from qscope.errors import UserError


class Document(NamedTuple):
    """A document: its text ("" for a row without text) and its label ("" where none was asked for)."""

    text: str
    label: str


def never() -> bool:
    """Nobody asks to stop."""
    return False


class TextReader(Protocol):
    """A source of documents in a fixed order.

    A state is small, fits JSON, and names the next document; a reader that loads it goes on exactly there.
    """

    def read_document(self, should_stop: Callable[[], bool] = never) -> Document | None:
        """The next document that the source's ``where`` lets through, or None at the end of the pass.

        ``should_stop`` is asked for every row that it does not let through; once it says so, the answer is None and
        the reader's state is good for nothing but the end of a run.
        """
        ...

    def read(self) -> str | None:
        """The text of the next document, or None at the end of the pass."""
        document = self.read_document()
        return None if document is None else document.text

    def start_pass(self, number: int) -> None:
        """Goes back to the first document, for pass ``number`` (from 0) over the source."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def identity(self) -> dict[str, Any]:
        """What is read: enough to notice on resume that the source has changed."""
        ...


class FileReader(TextReader):
    """Documents of files, in their order.

    Args:
        source: name of the source in reports.
        files: the files.
        selection: which columns and rows are wanted.
    """

    def __init__(self, source: str, files: list[TextFile], selection: Selection) -> None:
        self._files, self._selection = files, selection
        self._identity = {
            "source": source,
            "files": len(files),
            "bytes": sum(file.path.stat().st_size for file in files),
            "digest": digest(files),
            **selection.identity(),
        }
        self.load_state({"file": 0, "row": 0})

    def read_document(self, should_stop: Callable[[], bool] = never) -> Document | None:
        while self._file < len(self._files):
            if self._rows is None:
                self._rows = rows(self._files[self._file], self._selection.columns, self._row)
            for values in self._rows:
                self._row += 1
                if self._selection.keeps(values):
                    return Document(values[0], self._selection.label(values))
                if should_stop():
                    return None
            self._rows, self._file, self._row = None, self._file + 1, 0
        return None

    def start_pass(self, number: int) -> None:
        self.load_state({"file": 0, "row": 0})

    def state(self) -> dict[str, Any]:
        return {"file": self._file, "row": self._row}

    def load_state(self, state: dict[str, Any]) -> None:
        self._file, self._row = int(state["file"]), int(state["row"])
        self._rows: Iterator[tuple[str, ...]] | None = None

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)


class DatasetReader(TextReader):
    """Documents of a streamed dataset of the Hugging Face hub.

    Args:
        dataset: a ``datasets.IterableDataset``.
        name: its id, configuration, split and commit, for reports.
        selection: which columns and rows are wanted.
    """

    def __init__(self, dataset: Any, name: dict[str, str], selection: Selection) -> None:
        self._dataset, self._name, self._selection = dataset, name, selection
        self._start = dataset.state_dict()
        self.load_state({"row": 0, "dataset": self._start})

    def read_document(self, should_stop: Callable[[], bool] = never) -> Document | None:
        while (row := self._next_row()) is not None:
            self._row += 1
            values = values_of(row, self._selection.columns, f"{self._name['source']}: row {self._row}")
            if self._selection.keeps(values):
                return Document(values[0], self._selection.label(values))
            if should_stop():
                return None
        return None

    def _next_row(self) -> Any:
        try:
            if self._rows is None:
                self._rows = iter(self._dataset)
            return next(self._rows, None)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self._name['source']}: reading stopped after row {self._row} ({brief(error)}).",
                remedy="Check the network and resume the run.",
                reason="TEXT_UNREACHABLE",
                field=f"{self._selection.at}.source",
            ) from error

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
        return {**self._name, **self._selection.identity()}


class ShuffledReader(TextReader):
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

    def read_document(self, should_stop: Callable[[], bool] = never) -> Document | None:
        if self._next == len(self._held):
            if self._held:
                self._open_window(self._number + 1)
            self._fill(should_stop)
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
        self._held: list[Document] = []
        self._next = 0

    def _fill(self, should_stop: Callable[[], bool] = never) -> None:
        held: list[Document] = []
        while len(held) < self._window and (document := self._reader.read_document(should_stop)) is not None:
            held.append(document)
        order = np.random.default_rng((self._seed, self._pass, self._number)).permutation(len(held))
        self._held = [held[i] for i in order]
