"""From the experiment's TextSource to a reader of documents."""

from __future__ import annotations

from qscope.data.files import find_files
from qscope.data.hub import SourceName, open_hub
from qscope.data.readers import DatasetReader, FileReader, ShuffledReader, TextReader
from qscope.data.selection import Selection
from qscope.v1.text_pb2 import TextSource

#: Texts that come with the program.
EMBEDDED = ("embedded", "embedded-heldout")


def open_text(
    source: TextSource, *, at: str = "text", seed: int = 0, label: str = "", label_field: str = ""
) -> TextReader:
    """Opens a text source.

    The order of documents is a function of the source and the seed alone. Files are found, and a hub dataset is
    resolved to its commit, before this returns; rows are read later.

    Args:
        source: what to read.
        at: experiment field of ``source``, for errors.
        seed: seed of the shuffle window.
        label: column whose value becomes the label of each document; empty for none.
        label_field: experiment field that named ``label``, for errors.

    Raises:
        UserError: nothing readable is there, or the hub cannot be reached or does not know the dataset.
    """
    column = "text" if source.source in EMBEDDED else source.field or "text"
    selection = Selection(column, at, where=source.where, label=label, label_field=label_field)
    reader = _reader(source, selection)
    return ShuffledReader(reader, source.shuffle_documents, seed) if source.shuffle_documents > 1 else reader


def _reader(source: TextSource, selection: Selection) -> TextReader:
    name = SourceName(source.source, source.config, source.split or "train", source.revision, selection.at)
    if name.source in EMBEDDED:
        return FileReader(name.source, find_files(embedded_path(name.source), f"{name.at}.source"), selection)
    if not name.is_hub:
        return FileReader(name.source, find_files(name.source, f"{name.at}.source"), selection)
    opened = open_hub(name)
    return DatasetReader(opened.dataset, opened.identity, selection)


def embedded_path(name: str) -> str:
    """File of a text that comes with the program, one of EMBEDDED."""
    from qscope import embedded

    return str(embedded.train_text_path() if name == "embedded" else embedded.heldout_text_path())
