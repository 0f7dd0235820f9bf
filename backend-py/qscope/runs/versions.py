"""What a run was made with, for run.json. Looks at installed packages without importing them."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import qscope

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy", "protobuf")


def versions() -> dict[str, str]:
    """Version of the program, of Python, of the packages that shape numbers, and the git commit if there is one."""
    found = {"qscope": qscope.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = git_commit()
    return found | ({"git": commit} if commit else {})


def git_commit() -> str | None:
    """Commit of this source tree, with "+changes" when files differ from it; None outside a repository."""
    folder = Path(__file__).resolve().parent
    try:
        output = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return output or None
