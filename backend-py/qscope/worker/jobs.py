"""Job processes: begun in a group of their own, watched, stopped, and accounted for when they end.

A job belongs to its run folder, not to the worker: when the worker dies the job works on, and the next worker finds
it by the folder's process.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from qscope.errors import UserError
from qscope.processes import stops_blocked
from qscope.runs import CancelRequest, Journal, ProcessRecord, RunFolder, derive_state
from qscope.runs.folder import ended
from qscope.runs.journal import TERMINAL_STATES
from qscope.runs.process import oom_kills
from qscope.v1.run_event_pb2 import RUN_STATE_CANCELLED, StateChanged
from qscope.v1.run_pb2 import Run
from qscope.worker.spare import Spare, job_command, job_environment

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_KILL_SECONDS = 5.0


@dataclass
class Job:
    """A job that this worker began.

    Attributes:
        settled: ends once the process is reaped and the folder says how it ended.
    """

    folder: RunFolder
    process: subprocess.Popen[bytes]
    record: ProcessRecord
    detach: bool
    settled: asyncio.Task[None] | None = None


class Jobs:
    """The jobs of one worker.

    Args:
        spare: a process kept ready for the next job; left out, every job starts from nothing.
    """

    def __init__(self, spare: Spare | None = None) -> None:
        self._spare = spare or Spare()
        self._jobs: dict[Path, Job] = {}
        self._starting = asyncio.Lock()
        self._escalations: set[asyncio.Task[None]] = set()
        self.stopping = False

    @property
    def active(self) -> list[Job]:
        """Jobs whose process still works or is not yet accounted for."""
        return list(self._jobs.values())

    async def settled(self, folder: RunFolder) -> None:
        """Waits until an ended job of this worker is accounted for; returns at once for any other run."""
        job = self._jobs.get(folder.path)
        if job is not None and job.settled is not None:
            await asyncio.shield(job.settled)

    async def start(self, folder: RunFolder, detach: bool) -> None:
        """Begins the job of `folder` and waits until it holds the folder or has ended; nothing when it is active.

        Raises:
            UserError: WORKER_STOPPING, or RUN_ACTIVE when a process that this worker did not begin holds the folder.
        """
        async with self._starting:
            if self.stopping:
                raise UserError(
                    "The worker is about to end.", remedy="Try again in a moment.", reason="WORKER_STOPPING"
                )
            if folder.path in self._jobs:
                return
            # The job would find out as well, but only its log would say so.
            await asyncio.to_thread(_refuse_if_held, folder)
            process = await asyncio.to_thread(self._begin, folder)
            record = ProcessRecord.of(process.pid, derive_state(folder).last_sequence)
            job = self._jobs[folder.path] = Job(folder, process, record, detach)
            job.settled = asyncio.create_task(self._supervise(job))
            while not job.settled.done():
                holder = folder.process
                if holder is not None and holder.pid == process.pid:
                    break
                await asyncio.sleep(0.01)

    def _begin(self, folder: RunFolder) -> subprocess.Popen[bytes]:
        if _suits_spare(folder):
            return self._spare.take(folder.path) or _spawn(folder)
        self._spare.decline()
        return _spawn(folder)

    async def _supervise(self, job: Job) -> None:
        try:
            while not _has_ended(job.process.pid):
                await asyncio.sleep(_POLL_SECONDS)
            # Before the leader is reaped, so that the group's id cannot belong to anyone else yet.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(job.process.pid, signal.SIGKILL)
            exit_code = job.process.wait()
            log.info("run %s ended with %d", job.folder.run_id, exit_code)
            await asyncio.to_thread(_settle, job.folder, job.record, exit_code)
        except Exception:
            log.exception("run %s could not be accounted for", job.folder.run_id)
        finally:
            del self._jobs[job.folder.path]

    async def cancel(self, folder: RunFolder, mode: str, reason: str) -> Run:
        """Asks the run's process to stop, whoever began it; returns the run as it was then.

        Args:
            mode: "graceful": after the step, with a checkpoint; "immediate": at once, by force after 5 s.

        Raises:
            UserError: RUN_ELSEWHERE when the process works on another machine.
        """
        run = await asyncio.to_thread(derive_state, folder)
        record = folder.process
        if run.state in TERMINAL_STATES:
            return run
        if record is None:
            await asyncio.to_thread(_close_cancelled, folder, reason)
            return await asyncio.to_thread(derive_state, folder)
        if not record.is_local:
            raise UserError(
                f"The run {folder.run_id} works on the machine {record.host}.",
                remedy=f"Cancel it there, or in the scheduler that started it (process {record.pid}).",
                reason="RUN_ELSEWHERE",
            )
        earlier = folder.cancel_request(record)
        # A second SIGTERM ends the job at once: a graceful request is passed on only once.
        if earlier is not None and (mode == "graceful" or earlier.mode == "immediate"):
            return run
        folder.request_cancel(CancelRequest(record.pid, record.start_time, mode, reason))
        _send(record, signal.SIGTERM)
        if mode == "immediate":
            task = asyncio.create_task(self._escalate(folder, record))
            self._escalations.add(task)
            task.add_done_callback(self._escalations.discard)
        return run

    async def _escalate(self, folder: RunFolder, record: ProcessRecord) -> None:
        # Several times, apart: signals that arrive while one is pending are delivered as one.
        deadline = asyncio.get_running_loop().time() + _KILL_SECONDS
        while not await _gone(record, 0.25) and asyncio.get_running_loop().time() < deadline:
            _send(record, signal.SIGTERM)
        if record.lives:
            log.warning("run %s does not leave; killing it", folder.run_id)
            if record.pgid == record.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(record.pgid, signal.SIGKILL)
            _send(record, signal.SIGKILL)
            await _gone(record, _KILL_SECONDS)
        if folder.path not in self._jobs:
            await asyncio.to_thread(_close_cancelled, folder, "")

    async def drain(self, *, with_detached: bool, reason: str, abort: asyncio.Event) -> None:
        """Takes no more jobs, stops those that do not outlive the worker, and waits for them and for escalations.

        Args:
            with_detached: stops the detached ones as well.
            abort: when set, waits no longer.
        """
        self.stopping = True
        async with self._starting:
            self._spare.dismiss()
            leaving = [job for job in self.active if with_detached or not job.detach]
        waiting = [job.settled for job in leaving if job.settled is not None]
        for job in leaving:
            try:
                await self.cancel(job.folder, "graceful", reason)
            except Exception:
                log.exception("run %s could not be asked to stop", job.folder.run_id)
        everything = asyncio.gather(*waiting, *self._escalations, return_exceptions=True)
        aborted = asyncio.create_task(abort.wait())
        await asyncio.wait([everything, aborted], return_when=asyncio.FIRST_COMPLETED)
        aborted.cancel()


def _refuse_if_held(folder: RunFolder) -> None:
    with folder.lock():
        pass


def _suits_spare(folder: RunFolder) -> bool:
    """Whether a process that has imported the libraries is the right one for a run."""
    try:
        compute = folder.experiment.compute
    except UserError:
        # Unreadable: the job will say so.
        return True
    # Libraries read the number of threads as they are imported: the spare has done so with the usual one. And the
    # process that starts several ranks computes nothing: their libraries are their own.
    return compute.threads == 0 and compute.processes <= 1


def _spawn(folder: RunFolder) -> subprocess.Popen[bytes]:
    with open(folder.log, "ab") as log_file, stops_blocked():
        return subprocess.Popen(
            job_command(str(folder.path)),
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=job_environment(),
        )


def _has_ended(pid: int) -> bool:
    """True when our child `pid` has ended; leaves it to be reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _settle(folder: RunFolder, begun: ProcessRecord, exit_code: int) -> None:
    """Records how a reaped job ended, and the terminal event of one that was stopped before it could write it."""
    with contextlib.suppress(UserError), folder.lock():
        record = folder.process
        if record is None or record.pid != begun.pid:
            # It ended before it took the folder; its record says so unless another process has it.
            record = begun
        folder.record_process(ended(record, exit_code, oom_kills()))
    _close_cancelled(folder, "", only_if_asked=True)


def _close_cancelled(folder: RunFolder, reason: str, only_if_asked: bool = False) -> None:
    """Appends CANCELLED in place of a process that is gone, unless it did so itself."""
    with contextlib.suppress(UserError), folder.lock():
        request = folder.cancel_request()
        if only_if_asked and request is None:
            return
        record = folder.process
        with Journal(folder.events) as journal:
            if not journal.ended or (record is not None and journal.last_sequence == record.journal_sequence):
                reason = reason or (request.reason if request else "")
                message = "stopped at once" + (f": {reason}" if reason else "")
                journal.append(state_changed=StateChanged(state=RUN_STATE_CANCELLED, message=message))


def _send(record: ProcessRecord, number: signal.Signals) -> None:
    """Signals the process that `record` names, never one that has its id by chance."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if record.lives:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


async def _gone(record: ProcessRecord, seconds: float) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    while record.lives:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True
