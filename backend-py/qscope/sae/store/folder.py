"""Where converted SAEs are kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from qscope.sae.store.manifest import Identity


def store_root() -> Path:
    """``$QSCOPE_CACHE/store``, else ``$XDG_CACHE_HOME/qscope/store``, else ``~/.cache/qscope/store``."""
    own, shared = os.environ.get("QSCOPE_CACHE", ""), os.environ.get("XDG_CACHE_HOME", "")
    if own:
        return Path(own).expanduser().absolute() / "store"
    # The XDG specification has relative paths ignored.
    cache = Path(shared) if os.path.isabs(shared) else Path("~/.cache").expanduser()
    return cache / "qscope" / "store"


def group_folder(root: Path, slug: str, identity: Identity) -> Path:
    """The folder of one group: a name for people, then the key."""
    return root / f"{slug}-{identity.key}"


def free_bytes(folder: Path) -> int:
    """Room on the disk that ``folder`` is on, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size(count: float) -> str:
    """Bytes for people, in powers of 1,000 like disks and download pages."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
