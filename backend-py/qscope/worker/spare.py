"""A job process kept ready: it imports torch and transformers, half of a small run's start, before there is a run.

Started first thing in the worker, it works on one core while the worker gets ready on another. Importing it costs
nothing: the process must be on its way before grpc is loaded.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from qscope.processes import stops_blocked


class Spare:
    """At most one job process that waits for its run folder on standard input.

    It belongs to the worker until it is taken: when the worker ends, however it ends, the pipe does too and the
    process leaves.

    Args:
        kept: whether `renew` starts another one after one was taken.
    """

    def __init__(self, *, kept: bool = False) -> None:
        self._kept = kept
        self._process: subprocess.Popen[bytes] | None = None

    def renew(self) -> None:
        """Starts another process where one is always to be kept."""
        if self._kept:
            self.prepare()

    def prepare(self) -> None:
        """Starts a process unless one waits already; without one the next job is started in the plain way."""
        if self._process is not None and self._process.poll() is None:
            return
        with stops_blocked(), contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                job_command("-"),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=job_environment(),
            )

    def take(self, folder: Path) -> subprocess.Popen[bytes] | None:
        """Gives the waiting process its run folder; None when there is none or it has died."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None or process.stdin is None:
            return None
        try:
            with process.stdin as pipe:
                pipe.write(os.fsencode(folder))
        except BrokenPipeError:
            process.wait()
            return None
        return process

    def decline(self) -> None:
        """Leaves the cores to a run that cannot use the waiting process, unless another run may come."""
        if not self._kept:
            self.dismiss()

    def dismiss(self) -> None:
        """Lets the waiting process end; it does so at once, or within the import it is in."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()


def job_command(folder: str) -> list[str]:
    """How a job process is started; the folder ``-`` stands for one named later on standard input."""
    return [sys.executable, "-P", "-m", "qscope.execute", folder]


def job_environment() -> dict[str, str]:
    """The variables of a job process.

    OpenMP's threads sleep while they wait unless the environment says otherwise: as it is, they spin for milliseconds,
    and two runs of as many threads as cores then slow each other down eightfold. Alone, a run is as fast either way.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
