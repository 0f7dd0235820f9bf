"""Two ranks as forks of a process that has imported what they need: their imports take longer than their training.

The process is this file run as a module: ``multiprocessing`` has one fork server for all, which others preload.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from functools import cache
from pathlib import Path

import torch

from qscope.runs import Seat

RANKS, SECONDS = 2, 240
ROOT = Path(__file__).parents[2]
_MODULES = ("tests.posttraining.tuned_ranks", "tests.posttraining.reinforced_ranks")


def together(module: str, folder: Path) -> None:
    """Runs ``main(folder)`` of a module as each of two ranks, with one thread each.

    Raises:
        AssertionError: a rank failed, with what both wrote to stderr.
    """
    (folder / "meeting").unlink(missing_ok=True)
    server = _server()
    server.stdin.write(json.dumps([module, str(folder)]) + "\n")
    server.stdin.flush()
    codes = json.loads(server.stdout.readline())
    said = "".join(_stderr(folder, rank).read_text(errors="replace") for rank in range(RANKS))
    assert codes == [0] * RANKS, said


@cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", __name__]
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.kill)
    return server


def _serve() -> None:
    for module in _MODULES:
        importlib.import_module(module)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        module, folder = json.loads(line)
        ranks = [_start(module, Seat(rank, RANKS, os.getpid(), Path(folder))) for rank in range(RANKS)]
        out.write(json.dumps(_codes(ranks)) + "\n")
        out.flush()


def _start(module: str, seat: Seat) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with _stderr(seat.folder, seat.rank).open("wb") as file:
            os.dup2(file.fileno(), 2)
        os.environ.update(seat.variables)
        torch.set_num_threads(1)
        sys.modules[module].main(seat.folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _codes(ranks: list[int]) -> list[int]:
    codes, until = {}, time.monotonic() + SECONDS
    while len(codes) < len(ranks):
        for pid in ranks:
            done, status = (0, 0) if pid in codes else os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
            elif pid not in codes and time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[pid] for pid in ranks]


def _stderr(folder: Path, rank: int) -> Path:
    return folder / f"stderr-{rank}"


if __name__ == "__main__":
    _serve()
