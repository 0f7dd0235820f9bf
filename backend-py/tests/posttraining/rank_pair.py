"""Two ranks as forks of a process that has imported what they need: their imports take longer than their training."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import torch

from qscope.runs import Seat

RANKS = 2
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.posttraining.tuned_ranks", "tests.posttraining.reinforced_ranks"])


def together(main: Callable[[Path], None], folder: Path) -> None:
    """Runs ``main(folder)`` as each of two ranks, with one thread each.

    Raises:
        AssertionError: a rank failed, with what both wrote to stderr.
    """
    (folder / "meeting").unlink(missing_ok=True)
    seats = [Seat(rank, RANKS, os.getpid(), folder) for rank in range(RANKS)]
    ranks = [_SERVER.Process(target=_rank, args=(main, folder, seat)) for seat in seats]
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(240)
    finally:
        for rank in ranks:
            rank.kill()
    said = "".join(_stderr(folder, seat.rank).read_text(errors="replace") for seat in seats)
    assert [rank.exitcode for rank in ranks] == [0] * RANKS, said


def _rank(main: Callable[[Path], None], folder: Path, seat: Seat) -> None:
    with _stderr(folder, seat.rank).open("wb") as file:
        os.dup2(file.fileno(), 2)
    os.environ.update(seat.variables)
    torch.set_num_threads(1)
    main(folder)


def _stderr(folder: Path, rank: int) -> Path:
    return folder / f"stderr-{rank}"
