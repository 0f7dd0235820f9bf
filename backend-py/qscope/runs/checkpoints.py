"""Checkpoints: complete, checksummed, and never fewer than one once the first is written.

``checkpoints/step-000000200/`` holds ``tensors.safetensors``, ``state.json`` and ``manifest.json`` with the size and
SHA-256 of both. It is written under a temporary name, synced and renamed, so that a kill at any moment leaves either
the old set of checkpoints or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qscope.errors import UserError
from qscope.runs.files import fsync_folder
from qscope.runs.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        step: steps done when it was written.
        tensors: on the CPU, by name.
        state: what the recipe keeps besides tensors (data cursor, counters, schedules).
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. One process at a time uses it (the one that holds the folder's lock).

    Args:
        folder: holds the checkpoints; leftovers of an interrupted write are cleared away at once.
        keep: newest checkpoints kept, at least 1; may be changed at any time.
        on_saved: told the path, step and size in bytes of each complete checkpoint.
        on_warning: told one sentence when a damaged checkpoint is passed over.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        on_saved: Callable[[Path, int, int], object] = lambda path, step, size: None,
        on_warning: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.folder = Path(folder)
        self.keep = keep
        self._on_saved = on_saved
        self._on_warning = on_warning
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(".new-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".old-*"):
            # A kill fell between the two renames that replace a checkpoint of the same step.
            replaced = path.with_name(path.name.removeprefix(".old-"))
            shutil.rmtree(path) if replaced.exists() else path.rename(replaced)

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        """Writes the checkpoint of `step`, then removes those beyond `keep`.

        Args:
            tensors: any device and layout; views and shared storage are copied.
            state: anything JSON can hold; it comes back equal, with tuples as lists.

        Raises:
            UserError: DISK_FULL; earlier checkpoints stay as they were.
        """
        final = self.folder / f"step-{step:09d}"
        temporary = self.folder / f".new-{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            size = _write(temporary, step, tensors, state)
            replaced = self.folder / f".old-{final.name}"
            if final.exists():
                final.rename(replaced)
            temporary.rename(final)
            fsync_folder(self.folder)
            shutil.rmtree(replaced, ignore_errors=True)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if _is_disk_full(error):
                raise UserError(
                    f"The checkpoint of step {step} does not fit on the disk of {self.folder}.",
                    remedy="Make room, then resume the run: the checkpoint before it is intact.",
                    reason="DISK_FULL",
                ) from error
            raise
        self._on_saved(final, step, size)
        for old in self._steps()[: -self.keep] + sorted(self.folder.glob("damaged-*")):
            shutil.rmtree(old, ignore_errors=True)
        return final

    def load_newest(self) -> Checkpoint | None:
        """The newest checkpoint whose checksums hold; None when there is none.

        A damaged one is warned about, set aside as ``damaged-step-...`` and the one before it is tried.
        """
        for path in reversed(self._steps()):
            try:
                return _load(path)
            except _Damaged as damage:
                self._on_warning(f"Checkpoint {path.name} is damaged ({damage}); trying the one before it.")
                aside = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
        return None

    def _steps(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = [path for path in self.folder.iterdir() if re.fullmatch(r"step-\d{9,}", path.name)]
        return sorted(found, key=lambda path: int(path.name[5:]))


class SharedCheckpoints:
    """The checkpoints of a run of several ranks, see :class:`Checkpoints`: rank 0 writes, all read the same one.

    Args:
        folder: holds the checkpoints.
        ranks: this process among them.
        own: on rank 0, the writer; no other rank has one.
    """

    def __init__(self, folder: Path, ranks: Ranks, own: Checkpoints | None) -> None:
        assert (own is not None) == ranks.is_first
        self.folder = folder
        self._ranks, self._own = ranks, own

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        """As :meth:`Checkpoints.save` on rank 0; on any other it does nothing, and what it is given may be empty.

        It is not collective: nobody waits for the disk.
        """
        return self._own.save(step, tensors, state) if self._own else self.folder / f"step-{step:09d}"

    def load_newest(self) -> Checkpoint | None:
        """As :meth:`Checkpoints.load_newest`, and every rank gets the one that rank 0 chose. Collective."""
        chosen = self._own.load_newest() if self._own else None
        step = self._ranks.first(lambda: chosen.step if chosen else None)
        # The tensors are mapped from the file: the ranks of a machine share its pages.
        return chosen if chosen or step is None else _load(self.folder / f"step-{step:09d}")


class _Damaged(Exception):
    """Why a checkpoint cannot be trusted."""


def _write(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> int:
    from safetensors.torch import save_file

    # Before anything is written: a state that JSON cannot hold is a bug of the recipe.
    state_text = json.dumps(state)
    folder.mkdir()
    save_file(_separate(tensors), folder / _TENSORS)
    (folder / _STATE).write_text(state_text, encoding="utf-8")
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in (_TENSORS, _STATE)
    }
    (folder / _MANIFEST).write_text(json.dumps({"format": 1, "step": step, "files": files}, indent=2), encoding="utf-8")
    for name in (_TENSORS, _STATE, _MANIFEST):
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
    fsync_folder(folder)
    return sum((folder / name).stat().st_size for name in (_TENSORS, _STATE, _MANIFEST))


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no storage, as the format demands; copies only where it must."""
    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate


def _load(folder: Path) -> Checkpoint:
    from safetensors.torch import load_file

    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        step, files = manifest["step"], manifest["files"]
        if manifest["format"] != 1 or folder.name != f"step-{step:09d}":
            raise _Damaged("its manifest belongs to another checkpoint")
        for name in (_TENSORS, _STATE):
            # Sizes first: they tell a truncated file without reading gigabytes.
            if (folder / name).stat().st_size != files[name]["bytes"]:
                raise _Damaged(f"{name} has the wrong size")
        for name in (_TENSORS, _STATE):
            if _sha256(folder / name) != files[name]["sha256"]:
                raise _Damaged(f"{name} has the wrong checksum")
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except OSError as error:
        raise _Damaged(f"{error.strerror}: {Path(error.filename or '').name}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _Damaged("its manifest cannot be read") from error
    return Checkpoint(step=step, tensors=load_file(folder / _TENSORS), state=state)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_SPACE
    # safetensors reports the system's error only as text.
    found = re.search(r"os error (\d+)", str(error))
    return found is not None and int(found.group(1)) in _NO_SPACE
