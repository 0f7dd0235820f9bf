"""Virtual environments of the peers, outside the repository: one per peer, pinned, made once.

torch goes in first and alone, in the version of qscope's own environment: what the peers ask for later must fit it, and
no resolver may replace it by another build.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QSCOPE_PYTHON = ROOT / "backend-py" / ".venv" / "bin" / "python"
PEERS = ("saelens", "sparsify", "dictionary_learning")


def default_folder() -> Path:
    """Where the environments are kept unless --venvs says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qscope-bench"


def requirements(peer: str) -> Path:
    """Pinned packages of one peer."""
    return HERE / f"requirements-{peer.replace('_', '-')}.txt"


def ensure(peer: str, folder: Path) -> Path:
    """Python of a peer's environment, which is made or renewed when its requirements changed.

    Raises:
        SystemExit: an installation failed; pip has said why.
    """
    place = folder / peer
    python = place / "bin" / "python"
    stamp = place / "qscope-stamp"
    wanted = hashlib.sha256(requirements(peer).read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"bench-peers: making the environment of {peer} in {place}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        _run(sys.executable, "-m", "venv", str(place))
    pins = requirements(peer).read_text().splitlines()
    torch = next(line for line in pins if line.startswith("torch=="))
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet")
    _run(*pip, torch)
    # The pins are complete. torchvision, which nnsight asks for, is left out: builds of it that do not match torch's
    # break every import of transformers, and nothing here sees images.
    _run(*pip, "--no-deps", "-r", str(requirements(peer)))
    stamp.write_text(wanted)
    return python


def _run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"bench-peers: `{' '.join(command)}` failed; the lines above say why.")
