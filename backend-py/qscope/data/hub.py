"""Data sets of the Hugging Face hub: what a name means at one commit, streamed, with or without a network.

A folder in the layout of the hub (a clone, or a folder of ``huggingface_hub``'s cache) is opened by the same code: the
cache is what stands in where the hub cannot be reached.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qscope.data.files import TextFile, brief, classify, digest
from qscope.errors import UserError

TIMEOUT_SECONDS = 10.0
# The hub's own rule for repository ids.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_GLOB = re.compile(r"[*?\[]")


class SourceFields(Protocol):
    """A source of an experiment: the fields that say where its rows are."""

    source: str
    config: str
    split: str
    revision: str


@dataclass(frozen=True)
class SourceName:
    """What an experiment names as a source.

    Attributes:
        source: a file, folder or glob, or the id of a data set of the hub.
        config: configuration of a data set; empty takes the only one, or the one called default.
        split: split of a data set; empty where none is named.
        revision: branch, tag or commit of a data set; empty takes the main branch. A folder has none.
        at: experiment field of the source, for errors; the others stand beside it.
    """

    source: str
    config: str = ""
    split: str = ""
    revision: str = ""
    at: str = ""

    @classmethod
    def of(cls, fields: SourceFields, at: str) -> SourceName:
        return cls(fields.source, fields.config, fields.split, fields.revision, at)

    @property
    def is_hub(self) -> bool:
        """Whether it is the id of a data set of the hub, and no file, folder or glob."""
        name = self.source
        return not (
            Path(name).expanduser().exists()
            or _GLOB.search(name)
            or name.startswith(("/", "./", "../", "~"))
            or name.count("/") > 1
            or classify(Path(name)) is not None
            or not _HUB_ID.fullmatch(name)
        )

    @property
    def is_hub_layout(self) -> bool:
        """Whether it is a folder to be read as the hub reads it: one with a configuration or split."""
        return bool(self.config or self.split) and Path(self.source).expanduser().is_dir()


@dataclass(frozen=True)
class OpenedHub:
    """A split that is ready to be read.

    Attributes:
        dataset: a ``datasets.IterableDataset``; nothing but its head is read yet.
        label: its name in messages: data set, configuration, split.
        identity: what is read, enough to notice on resume that it has changed: the commit, or the digest of a folder.
    """

    dataset: Any
    label: str
    identity: dict[str, str]


def commit_of(name: SourceName) -> str:
    """The commit that a name means now.

    Raises:
        UserError: see :func:`find_commit`.
    """
    return find_commit(name)[0]


def find_commit(name: SourceName) -> tuple[str, Path | None]:
    """The commit that a name means now: by the hub, or, where it cannot be asked, by what was downloaded before.

    Returns:
        The commit, and where it lies when it is not to be read from the hub.

    Raises:
        UserError: the hub knows no such data set (TEXT_NOT_FOUND), shows it to some only (TEXT_GATED), or cannot be
            asked and nothing was downloaded (TEXT_UNREACHABLE).
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

    # One bounded question first: datasets itself retries an unreachable hub for half a minute.
    try:
        info = HfApi().dataset_info(name.source, revision=name.revision or None, timeout=TIMEOUT_SECONDS)
        return info.sha or "", None
    except GatedRepoError as error:
        raise UserError(
            f"{name.source}: the hub shows this dataset only to those who have agreed to its terms.",
            remedy=f"Agree at https://huggingface.co/datasets/{name.source}, then set HF_TOKEN or run `hf auth login`.",
            reason="TEXT_GATED",
            field=f"{name.at}.source",
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{name.source} has no revision '{name.revision}'.",
            remedy="Name a branch, a tag or a whole commit, or leave it out for the main branch.",
            reason="TEXT_NOT_FOUND",
            field=f"{name.at}.revision",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429 or status >= 500:
            return _downloaded(name, error, f"the hub answers {status}")
        raise UserError(
            f"{name.source}: neither a file or folder here nor a dataset the hub knows.",
            remedy="Check the path, or the dataset id (a private or gated dataset needs HF_TOKEN).",
            reason="TEXT_NOT_FOUND",
            field=f"{name.at}.source",
        ) from error
    except OfflineModeIsEnabled as error:
        return _downloaded(name, error, "HF_HUB_OFFLINE keeps from asking the hub")
    except (httpx.HTTPError, OSError) as error:
        return _downloaded(name, error, "the hub cannot be reached")


def _downloaded(name: SourceName, cause: Exception, why: str) -> tuple[str, Path]:
    folder = cached_folder(name.source, name.revision)
    if folder is not None:
        return folder.name, folder
    revision = f" --revision {name.revision}" if name.revision else ""
    raise UserError(
        f"{name.source}: no file or folder of that name, {why}, and no such dataset was downloaded before.",
        remedy=f"Check the path or the network, or download it once: hf download {name.source} --repo-type dataset"
        f"{revision}; 'embedded' needs none of it.",
        reason="TEXT_UNREACHABLE",
        field=f"{name.at}.source",
    ) from cause


def cached_folder(source: str, revision: str) -> Path | None:
    """Where ``hf download`` has put a data set at a revision; None where it has not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(source, repo_type="dataset", revision=revision or None, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return Path(found)


def open_hub(name: SourceName) -> OpenedHub:
    """Opens a split of a data set at the commit that its revision means now, or of a folder in the same layout.

    Args:
        name: what to open; it has a split.

    Raises:
        UserError: as :func:`find_commit`; or there is no such configuration (TEXT_CONFIG_UNKNOWN) or split
            (TEXT_SPLIT_UNKNOWN), or the data set cannot be opened (TEXT_NOT_FOUND).
    """
    label = " ".join(part for part in (name.source, name.config, name.split) if part)
    identity = {"source": name.source, "config": name.config, "split": name.split}
    folder = Path(name.source).expanduser()
    if folder.is_dir():
        label = label.replace(name.source, folder.name, 1)
        return OpenedHub(_split(name, str(folder), None), label, {**identity, "digest": digest(_files(folder))})
    commit, cached = find_commit(name)
    place, revision = (name.source, commit) if cached is None else (str(cached), None)
    return OpenedHub(_split(name, place, revision), label, {**identity, "revision": commit})


def _files(folder: Path) -> list[TextFile]:
    """Every file of a data set: README.md too, which says what belongs to which configuration."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    labels = ((path, path.relative_to(folder)) for path in found)
    return [
        TextFile(path, label.as_posix(), "", "")
        for path, label in labels
        if not any(part.startswith(".") for part in label.parts)
    ]


def _split(name: SourceName, place: str, revision: str | None) -> Any:
    import datasets
    import httpx

    # What goes wrong is told below, once.
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    errors = (ValueError, OSError, RuntimeError, httpx.HTTPError, datasets.exceptions.DatasetsError)
    try:
        splits = datasets.load_dataset(place, name.config or None, revision=revision, streaming=True)
    except errors as error:
        known = _configs(place, revision)
        if known and name.config not in known:
            raise _unknown(name, "config", name.config, known) from error
        raise UserError(
            f"{name.source}: cannot be opened as a dataset ({brief(error)}).",
            remedy="Check it; datasets that run code of their own, or mix kinds of files, are not supported.",
            reason="TEXT_NOT_FOUND",
            field=f"{name.at}.source",
        ) from error
    if name.split not in splits:
        raise _unknown(name, "split", name.split, list(splits))
    # Pictures and sound are no text: what they hold is left as it is.
    return splits[name.split].decode(False)


def _configs(place: str, revision: str | None) -> list[str]:
    import datasets

    try:
        return list(datasets.get_dataset_config_names(place, revision=revision))
    except Exception:  # whatever went wrong is told of by what was asked for first
        return []


def _unknown(name: SourceName, what: str, given: str, known: Iterable[str]) -> UserError:
    known = list(known)
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    said = f"{name.source} has no {what} '{given}'" if given else f"{name.source} has several configurations"
    guess = f"Did you mean '{near[0]}'? " if near else ""
    more = ", ..." if len(known) > 20 else ""
    return UserError(
        f"{said}.",
        remedy=f"{guess}Name one in '{what}': {', '.join(known[:20])}{more}.",
        reason=f"TEXT_{what.upper()}_UNKNOWN",
        field=f"{name.at}.{what}",
    )
