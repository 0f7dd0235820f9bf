"""Extracted activations on disk: shards of sparse rows, each with a description, and a manifest over them.

    folder/extract.json                what is extracted, written first
    folder/shard-00000.safetensors     or shard-00000.parquet and shard-00000.tokens.parquet
    folder/shard-00000.json            counts and checksums; where there is one, the shard is whole
    folder/manifest.json               all of it, written last

docs/features.md has the columns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qscope.errors import UserError
from qscope.runs.files import read_json, replacing, write_json

VERSION = 1
FORMATS = ("safetensors", "parquet")
IDENTITY, MANIFEST = "extract.json", "manifest.json"
_CODES = {"row": np.int64, "position": np.int32, "layer": np.int32, "feature": np.int32, "value": np.float32}
_HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class Shard:
    """Codes above zero of some documents, ordered by row, position, layer and falling value; and their tokens.

    Attributes:
        row_P, position_P, layer_P, feature_P, value_P: one entry a code; ``row`` numbers documents over all shards.
        first_row: row of the first document.
        number_R: each document's place in the source.
        offset_R: where each document's tokens start, and the end of the last.
        ids_M: token ids.
        counts_M: whether a token counts; only those have codes.
    """

    row_P: np.ndarray
    position_P: np.ndarray
    layer_P: np.ndarray
    feature_P: np.ndarray
    value_P: np.ndarray
    first_row: int
    number_R: np.ndarray
    offset_R: np.ndarray
    ids_M: np.ndarray
    counts_M: np.ndarray


def name_of(index: int) -> str:
    """File name of a shard, without its ending."""
    return f"shard-{index:05d}"


def write_shard(folder: Path, index: int, shard: Shard, layout: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes a shard, its description last, and returns the description.

    Args:
        folder: the folder of the extract.
        index: number of the shard.
        shard: the shard.
        layout: ``safetensors`` or ``parquet``.
        facts: what else the description holds.
    """
    files = {}
    for path, write in _WRITERS[layout](folder, name_of(index), shard):
        with replacing(path) as temporary:
            write(temporary)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": checksum(path)}
    description = {
        "shard": index,
        "first_row": shard.first_row,
        "documents": len(shard.number_R),
        "tokens": len(shard.ids_M),
        "tokens_counted": int(shard.counts_M.sum()),
        "codes": len(shard.row_P),
        "files": files,
        **facts,
    }
    write_json(folder / f"{name_of(index)}.json", description)
    return description


def whole_shards(folder: Path, key: str) -> list[dict[str, Any]]:
    """Descriptions of the shards from 0 on that are whole, by their checksums, and were extracted from what ``key`` is
    the digest of; ends at the first that is not."""
    found: list[dict[str, Any]] = []
    while (description := read_json(folder / f"{name_of(len(found))}.json")) is not None:
        files = description.get("files", {})
        if (
            description.get("key") != key
            or not files
            or any(
                not (folder / name).is_file() or checksum(folder / name) != facts.get("sha256")
                for name, facts in files.items()
            )
        ):
            break
        found.append(description)
    return found


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BYTES):
            state.update(block)
    return state.hexdigest()


class Extract:
    """A finished extract, for reading.

    Args:
        path: its folder, or the run folder.
        field: experiment field that named it, for errors.

    Attributes:
        folder: where the shards are.
        manifest: the manifest.

    Raises:
        UserError: there is none (EXTRACT_NOT_FOUND), it is not finished (EXTRACT_UNFINISHED), or damaged.
    """

    def __init__(self, path: Path | str, field: str = "") -> None:
        given = Path(path).expanduser()
        folders = (given, given / "activations", given / "artifacts" / "activations")
        self.folder = next((one for one in folders if (one / IDENTITY).is_file()), None)
        self._field = field
        if self.folder is None:
            raise UserError(
                f"{path}: there are no extracted activations.",
                remedy="Name a run of `qscope features extract`, or its folder artifacts/activations.",
                reason="EXTRACT_NOT_FOUND",
                field=field,
            )
        manifest = read_json(self.folder / MANIFEST)
        if manifest is None:
            raise UserError(
                f"{self.folder}: the extraction is not finished.",
                remedy="Go on with it first: qscope runs resume RUN",
                reason="EXTRACT_UNFINISHED",
                field=field,
            )
        if manifest.get("format") != "qscope.activations" or not isinstance(manifest.get("shards"), list):
            raise self._damaged(MANIFEST, "is not the manifest of an extract")
        if manifest.get("format_version", 0) > VERSION:
            raise self._damaged(MANIFEST, f"is of a version newer than {VERSION}")
        self.manifest = manifest

    def shards(self) -> Iterator[Shard]:
        """The shards, one after the other; each is checked before it is read."""
        for description in self.manifest["shards"]:
            for name, facts in description["files"].items():
                path = self.folder / name
                if not re.fullmatch(r"shard-\d+(\.tokens)?\.(safetensors|parquet)", name) or not path.is_file():
                    raise self._damaged(name, "is missing")
                if checksum(path) != facts["sha256"]:
                    raise self._damaged(name, "is not what the manifest says")
            yield _READERS[self.manifest["layout"]](self.folder, name_of(description["shard"]))

    def _damaged(self, name: str, why: str) -> UserError:
        return UserError(
            f"{self.folder / name} {why}.",
            remedy="Extract the activations again.",
            reason="EXTRACT_DAMAGED",
            field=self._field,
        )


def _safetensors_files(folder: Path, name: str, shard: Shard):
    from safetensors.numpy import save_file

    tensors = {
        **{
            column: np.ascontiguousarray(getattr(shard, f"{column}_P"), dtype=dtype) for column, dtype in _CODES.items()
        },
        "document.first_row": np.array([shard.first_row], dtype=np.int64),
        "document.number": np.ascontiguousarray(shard.number_R, dtype=np.int64),
        "document.offset": np.ascontiguousarray(shard.offset_R, dtype=np.int64),
        "token.id": np.ascontiguousarray(shard.ids_M, dtype=np.int32),
        "token.counts": np.ascontiguousarray(shard.counts_M, dtype=np.uint8),
    }
    yield folder / f"{name}.safetensors", lambda path: save_file(tensors, path)


def _read_safetensors(folder: Path, name: str) -> Shard:
    from safetensors.numpy import load_file

    tensors = load_file(folder / f"{name}.safetensors")
    return Shard(
        **{f"{column}_P": tensors[column] for column in _CODES},
        first_row=int(tensors["document.first_row"][0]),
        number_R=tensors["document.number"],
        offset_R=tensors["document.offset"],
        ids_M=tensors["token.id"],
        counts_M=tensors["token.counts"].astype(bool),
    )


def _parquet_files(folder: Path, name: str, shard: Shard):
    import pyarrow
    import pyarrow.parquet

    def write(table):
        return lambda path: pyarrow.parquet.write_table(table, path, compression="zstd")

    codes = pyarrow.table({column: getattr(shard, f"{column}_P").astype(dtype) for column, dtype in _CODES.items()})
    yield folder / f"{name}.parquet", write(codes)
    lengths_R = np.diff(shard.offset_R)
    tokens = pyarrow.table(
        {
            "row": np.repeat(shard.first_row + np.arange(len(lengths_R)), lengths_R),
            "number": np.repeat(shard.number_R, lengths_R),
            "position": (np.arange(len(shard.ids_M)) - np.repeat(shard.offset_R[:-1], lengths_R)).astype(np.int32),
            "id": shard.ids_M.astype(np.int32),
            "counts": shard.counts_M.astype(bool),
        }
    )
    yield folder / f"{name}.tokens.parquet", write(tokens)


def _read_parquet(folder: Path, name: str) -> Shard:
    import pyarrow.parquet

    codes = pyarrow.parquet.read_table(folder / f"{name}.parquet")
    tokens = pyarrow.parquet.read_table(folder / f"{name}.tokens.parquet")
    row_M = tokens["row"].to_numpy()
    rows_R, starts_R = np.unique(row_M, return_index=True)
    return Shard(
        **{f"{column}_P": codes[column].to_numpy() for column in _CODES},
        first_row=int(rows_R[0]),
        number_R=tokens["number"].to_numpy()[starts_R],
        offset_R=np.append(starts_R, len(row_M)),
        ids_M=tokens["id"].to_numpy(),
        counts_M=tokens["counts"].to_numpy(zero_copy_only=False),
    )


_WRITERS = {"safetensors": _safetensors_files, "parquet": _parquet_files}
_READERS = {"safetensors": _read_safetensors, "parquet": _read_parquet}
