"""Graders in processes of their own, with a limit of time and memory that holds whatever they do.

A grader that hangs in C code holds the interpreter's lock, and one that crashes takes its process along: neither a
thread nor a signal ends it, only SIGKILL. A process that was ended is started again for the next response, and the
order of results is the order of responses, whoever graded them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from qscope.errors import Stopped, UserError
from qscope.posttraining.graders import CRASHED, MEMORY, TIMEOUT, Grade, Grader, Response

#: A reply is a number or a sentence; a longer one is none of ours.
_LONGEST_REPLY = 1 << 20
#: Seconds after its limit at which a wait that ends was held up from outside.
_LATE = 1.0


class GraderPool:
    """Processes that grade.

    Every process loads every grader. A user's function must depend on its arguments alone: which process it meets, and
    after which other responses, is not fixed.

    Args:
        graders: what grades, in the order of the results.
        processes: how many at once.
        seconds: limit of one grader on one response.
        memory: bytes a process may hold beyond its own start.
        start_seconds: limit of loading the graders.
        at: experiment field of the graders, for errors.

    Raises:
        UserError: from the start (``with GraderPool(...)``) or from a later start of a process: a grader cannot be
            loaded (GRADER_BROKEN, or what :func:`~.graders.load` says).
    """

    def __init__(
        self,
        graders: Sequence[Grader],
        *,
        processes: int = 2,
        seconds: float = 30.0,
        memory: int = 2 << 30,
        start_seconds: float = 120.0,
        at: str = "",
    ) -> None:
        assert graders, "a pool has graders"
        self._graders = list(graders)
        self._processes = processes
        self._seconds = seconds
        self._memory = memory
        self._start_seconds = start_seconds
        self._at = at
        self._workers: list[_Worker] = []

    def __enter__(self) -> GraderPool:
        """Starts one process, so that graders that cannot work are refused before anything is generated for them."""
        worker = self._start()
        try:
            worker.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes, what they do included."""
        while self._workers:
            self._workers.pop().kill()

    def grade(
        self, responses: Sequence[Response], *, should_stop: Callable[[], bool] = lambda: False
    ) -> list[list[Grade]]:
        """What every grader says of every response, in their order.

        Args:
            responses: what is graded.
            should_stop: asked before every wait, which takes ``seconds`` at most.

        Raises:
            UserError: a grader could not be loaded again.
            Stopped: when asked to stop.
        """
        # What an interrupted call left behind would be taken for an answer to this one.
        for worker in [worker for worker in self._workers if worker.task]:
            self._drop(worker)
        grades: list[list[Grade]] = [[Grade(None)] * len(self._graders) for _ in responses]
        waiting = deque((row, grader) for row in range(len(responses)) for grader in range(len(self._graders)))
        payloads = [asdict(response) for response in responses]
        while waiting or any(worker.task for worker in self._workers):
            for worker in [worker for worker in self._workers if worker.idle]:
                if worker.gone:
                    # It died between two tasks: the next one is not at fault.
                    self._drop(worker)
                elif waiting:
                    row, grader = waiting.popleft()
                    worker.give((row, grader), {"grader": grader, "response": payloads[row]}, self._seconds)
            if len(waiting) > sum(worker.task is None for worker in self._workers) and (
                len(self._workers) < self._processes
            ):
                self._start()
            if should_stop():
                raise Stopped
            self._collect(grades)
        return grades

    def _collect(self, grades: list[list[Grade]]) -> None:
        """Waits for the next reply, end or limit, and takes what there is."""
        busy = [worker for worker in self._workers if not worker.idle]
        begun = time.monotonic()
        limit = max(0.0, min(worker.deadline for worker in busy) - begun)
        replied = set(wait([worker.channel for worker in busy], limit))
        waited = time.monotonic() - begun
        if waited > limit + _LATE:
            # A suspended job stands still with its graders: that time is nobody's, and how long they ran is not known.
            for worker in busy:
                worker.deadline += waited
        for worker in busy:
            if worker.channel not in replied and time.monotonic() < worker.deadline:
                continue
            if not worker.ready:
                try:
                    worker.take_ready(worker.channel in replied)
                except UserError:
                    self.close()
                    raise
                continue
            assert worker.task is not None, "a process that is ready and not idle has a task"
            row, grader = worker.task
            grade = worker.take() if worker.channel in replied else Grade(None, TIMEOUT, f"{self._seconds:g} seconds")
            grades[row][grader] = grade
            worker.task = None
            # Out of memory, a process would fail on what comes next as well.
            if grade.reason in (TIMEOUT, CRASHED, MEMORY):
                self._drop(worker)

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.kill()

    def _start(self) -> _Worker:
        worker = _Worker(self._graders, self._memory, self._start_seconds, self._at)
        self._workers.append(worker)
        return worker


class _Worker:
    """One process: starting, then idle or with a task.

    Attributes:
        channel: to it.
        ready: it has loaded the graders.
        task: row and grader it is at; None while there is none.
        deadline: when it is killed, of ``time.monotonic``.
    """

    def __init__(self, graders: Sequence[Grader], memory: int, start_seconds: float, at: str) -> None:
        mine, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "qscope.posttraining.grader_process"),
                    *(str(its.fileno()), str(os.getpid()), str(memory)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                # Its own group: what a grader started is killed with it, and Ctrl-C is the run's alone.
                start_new_session=True,
            )
        self.channel = Connection(mine.detach())
        self.ready = False
        self.task: tuple[int, int] | None = None
        self._start_seconds = start_seconds
        self._at = at
        self.deadline = time.monotonic() + start_seconds
        self._send(
            {
                "graders": [asdict(grader) for grader in graders],
                "at": [f"{at}[{index}]" if at else "" for index in range(len(graders))],
            }
        )

    @property
    def idle(self) -> bool:
        """Whether it waits for a task."""
        return self.ready and self.task is None

    @property
    def gone(self) -> bool:
        """Whether it, having no task, has something to say all the same: its end."""
        return self.channel.poll()

    def give(self, task: tuple[int, int], request: dict[str, Any], seconds: float) -> None:
        """Gives it a task."""
        self.task = task
        self.deadline = time.monotonic() + seconds
        self._send(request)

    def take(self) -> Grade:
        """Its reply to the task."""
        try:
            reply = json.loads(self.channel.recv_bytes(_LONGEST_REPLY))
            return Grade(reply.get("value"), reply.get("reason", ""), reply.get("detail", ""))
        except (EOFError, OSError):
            return Grade(None, CRASHED, self._end())
        except (ValueError, AttributeError):
            return Grade(None, CRASHED, "it wrote into its own channel")

    def wait_until_ready(self) -> None:
        """Waits until it has loaded the graders, see :meth:`take_ready`."""
        self.take_ready(bool(wait([self.channel], self._start_seconds)))

    def take_ready(self, replied: bool) -> None:
        """Takes the message that it has loaded the graders.

        Raises:
            UserError: it has not.
        """
        why = f"are not loaded after {self._start_seconds:g} seconds"
        if replied:
            try:
                message = json.loads(self.channel.recv_bytes(_LONGEST_REPLY))
            except (EOFError, OSError):
                why = f"ended their process while they were loaded: {self._end()}"
            else:
                if "refused" in message:
                    raise UserError(**message["refused"])
                self.ready = True
                return
        raise UserError(
            f"The graders {why}.",
            remedy="Load the grader's file by hand; what it does when it is imported must end soon.",
            reason="GRADER_BROKEN",
            field=self._at,
        )

    def kill(self) -> None:
        """Ends it and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.channel.close()

    def _send(self, message: dict[str, Any]) -> None:
        # It is gone already: reading says so next.
        with suppress(OSError):
            # A row may hold what JSON has no form for: a date is its text.
            self.channel.send_bytes(json.dumps(message, default=str).encode())

    def _end(self) -> str:
        """How its process ended, in words."""
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it closed its channel"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
