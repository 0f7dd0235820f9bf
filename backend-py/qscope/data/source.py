"""From the experiment's TextSource to a reader of documents."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from qscope.data.files import brief, classify, find_files
from qscope.data.readers import DatasetReader, FileReader, ShuffledReader, TextReader
from qscope.data.selection import Selection
from qscope.errors import UserError
from qscope.v1.text_pb2 import TextSource

# The hub's own rule for repository ids.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_GLOB = re.compile(r"[*?\[]")
HUB_TIMEOUT_SECONDS = 10.0
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
    name, at = source.source, selection.at
    if name in EMBEDDED:
        return FileReader(name, find_files(embedded_path(name), f"{at}.source"), selection)
    if Path(name).expanduser().exists() or _GLOB.search(name) or _looks_like_path(name):
        return FileReader(name, find_files(name, f"{at}.source"), selection)
    return _hub_reader(source, selection)


def embedded_path(name: str) -> str:
    """File of a text that comes with the program, one of EMBEDDED."""
    from qscope import embedded

    return str(embedded.train_text_path() if name == "embedded" else embedded.heldout_text_path())


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith(("/", "./", "../", "~"))
        or name.count("/") > 1
        or classify(Path(name)) is not None
        or not _HUB_ID.fullmatch(name)
    )


def _hub_reader(source: TextSource, selection: Selection) -> TextReader:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    name, at = source.source, selection.at
    # One bounded question first: datasets itself retries an unreachable hub for half a minute.
    try:
        commit = HfApi().dataset_info(name, revision=source.revision or None, timeout=HUB_TIMEOUT_SECONDS).sha or ""
    except HfHubHTTPError as error:
        raise UserError(
            f"{name}: neither a file or folder here nor a dataset the hub knows.",
            remedy="Check the path, or the dataset id and its revision (a gated dataset needs HF_TOKEN).",
            reason="TEXT_NOT_FOUND",
            field=f"{at}.source",
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise UserError(
            f"{name}: no file or folder of that name, and the hub cannot be reached to look for a dataset.",
            remedy="Check the path, or the network; 'embedded' needs neither.",
            reason="TEXT_UNREACHABLE",
            field=f"{at}.source",
        ) from error
    import datasets

    logging.getLogger("datasets").setLevel(logging.ERROR)
    split = source.split or "train"
    try:
        dataset = datasets.load_dataset(name, source.config or None, split=split, revision=commit, streaming=True)
    except (ValueError, OSError, RuntimeError, httpx.HTTPError) as error:
        raise UserError(
            f"{name}: cannot be opened as a dataset ({brief(error)}).",
            remedy="Check 'config' and 'split'; datasets that run code of their own are not supported.",
            reason="TEXT_NOT_FOUND",
            field=f"{at}.source",
        ) from error
    identity = {"source": name, "config": source.config, "split": split, "revision": commit}
    return DatasetReader(dataset, identity, selection)
