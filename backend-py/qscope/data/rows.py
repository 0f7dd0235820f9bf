"""Rows of whatever a source names, files or a data set of the hub, each with its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from qscope.data.files import TextFile, brief, digest, find_files, translated
from qscope.data.hub import OpenedHub, SourceName, open_hub
from qscope.data.records import Fault, Layout, Record, records
from qscope.data.source import EMBEDDED, embedded_path
from qscope.errors import UserError


class Rows(Protocol):
    """Rows in a fixed order, read anew by every :meth:`records`; nothing is held."""

    def records(self) -> Iterator[Record | Fault]: ...

    def identity(self) -> dict[str, Any]:
        """What is read: enough to notice on resume that the source has changed."""
        ...


def open_rows(name: SourceName, layout: Layout, *, split: str = "train", form: str = "") -> Rows:
    """Finds what a source names.

    Args:
        name: a text that comes with the program, a file, folder or glob, or a data set of the hub. A folder with a
            configuration or split is read as the hub reads it.
        layout: what files do not say of themselves.
        split: split of a data set where none is named.
        form: format of the files, whatever their names say; empty: what they say.

    Raises:
        UserError: nothing readable is there, see :func:`find_files` and :func:`open_hub`; or fields that do not belong
            together (SOURCE_FIELDS).
    """
    source, at = name.source, name.at
    if source not in EMBEDDED and (name.is_hub or name.is_hub_layout):
        _refuse(name, {"columns": layout.columns, "records": layout.inside, "format": form}, "a dataset of the hub")
        return HubRows(open_hub(replace(name, split=name.split or split)), at)
    _refuse(name, {"config": name.config, "split": name.split, "revision": name.revision}, "files")
    files = find_files(embedded_path(source) if source in EMBEDDED else source, f"{at}.source")
    return FileRows(source, [replace(file, format=form) for file in files] if form else files, layout)


def _refuse(name: SourceName, fields: dict[str, Any], kind: str) -> None:
    for field, value in fields.items():
        if value:
            raise UserError(
                f"'{field}' says nothing about '{name.source}', which is {kind}.",
                remedy=f"Leave '{field}' out, or check the source.",
                reason="SOURCE_FIELDS",
                field=f"{name.at}.{field}",
            )


class FileRows(Rows):
    """Rows of files, in the order of their paths."""

    def __init__(self, source: str, files: Sequence[TextFile], layout: Layout) -> None:
        self._files, self._layout = files, layout
        self._identity = {"source": source, "digest": digest(files)}

    def records(self) -> Iterator[Record | Fault]:
        """The rows in order; errors say which field of the experiment named the file."""
        for file in self._files:
            yield from translated(records(file, self._layout), (UserError,), self._placed)

    def _placed(self, error: UserError) -> UserError:
        field = error.field or f"{self._layout.at}.source"
        return UserError(error.message, remedy=error.remedy, reason=error.reason, field=field)

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)


class HubRows(Rows):
    """Rows of a split of a data set, streamed."""

    def __init__(self, opened: OpenedHub, at: str) -> None:
        self._opened, self._at = opened, at

    def records(self) -> Iterator[Record | Fault]:
        """The rows in order.

        Raises:
            UserError: reading broke off: the network (TEXT_UNREACHABLE), or a file that is not like the others
                (TEXT_DAMAGED).
        """
        number, rows = 0, None
        while True:
            try:
                rows = iter(self._opened.dataset) if rows is None else rows
                row = next(rows, None)
            except Exception as error:  # whatever the readers behind it raise, from half a dozen libraries
                raise _broken_off(self._opened.label, number, error, self._at) from error
            if row is None:
                return
            number += 1
            yield Record(f"{self._opened.label}: row {number}", row)

    def identity(self) -> dict[str, Any]:
        return dict(self._opened.identity)


def _broken_off(label: str, rows: int, error: Exception, at: str) -> UserError:
    import httpx

    root = error
    # datasets wraps what its readers raise in a sentence without content.
    while root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, OSError | httpx.HTTPError):
        reason, remedy = "TEXT_UNREACHABLE", "Check the network, or what was downloaded, and resume the run."
    else:
        reason, remedy = "TEXT_DAMAGED", "Its files differ or are damaged: name another 'revision', or mend a copy."
    return UserError(
        f"{label}: reading broke off after row {rows:,} ({brief(root)}).",
        remedy=remedy,
        reason=reason,
        field=f"{at}.source",
    )
