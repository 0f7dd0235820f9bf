"""Starts the ranks of a run, passes stops on, ends all when one fails, and says why.

The process that does this holds the run's folder and is the one that others signal; it computes nothing and imports no
torch, so that nothing of a rank can hang it. torchrun's agent is not between: it turns a rank's exit code 75 into 1,
dies of SIGUSR2 without its ranks, kills 30 s after a stop whatever a checkpoint takes, and offers in return restarts
and a rendezvous of several machines, of which a run of one machine that goes on from checkpoints needs neither.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from qscope.processes import stops_blocked
from qscope.runs.files import read_json, write_json
from qscope.runs.folder import RunFolder, ended
from qscope.runs.process import ProcessRecord, how_it_ended, oom_kills
from qscope.runs.ranks import Seat
from qscope.v1.run_event_pb2 import RUN_STATE_FAILED, Failure, StateChanged

_POLL_SECONDS = 0.05
#: What the others have to end by themselves after one has failed: those that waited for it find out at once, and what
#: they raise then is told apart from the cause by its time.
GRACE_SECONDS = 3.0
#: Every library that has threads of its own asks one of these before it is imported.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def write_outcome(seat: Seat, ending: StateChanged, code: int) -> None:
    """Leaves word of how this rank ended, for the process that started it."""
    outcome = {"time": time.monotonic(), "code": code, "ending": json_format.MessageToDict(ending)}
    write_json(seat.outcome, outcome)


@dataclass
class _Rank:
    """A rank and, once it has ended, what is known of it.

    Attributes:
        seat: its place.
        ended_at: when it was seen to have ended, of the same clock as a rank's own time.
        ending: its terminal event; None when it left no word.
        killed: it was ended here because another one had failed.
    """

    seat: Seat
    process: subprocess.Popen[bytes]
    record: ProcessRecord
    ended_at: float | None = None
    code: int = 0
    ending: StateChanged | None = None
    killed: bool = False

    def failed(self, clean: set[int]) -> bool:
        """True when it ended by itself in another way than those that are ``clean``, or without a word."""
        return self.ended_at is not None and not self.killed and (self.code not in clean or self.ending is None)

    def poll(self) -> bool:
        """True once the process has ended and is accounted for."""
        if self.ended_at is None and (code := self.process.poll()) is not None:
            self.ended_at, self.code = time.monotonic(), code
            self.record = ended(self.record, code, oom_kills())
            if told := read_json(self.seat.outcome):
                self.ended_at, self.code = told["time"], told["code"]
                self.ending = json_format.ParseDict(told["ending"], StateChanged())
        return self.ended_at is not None


def run_ranks(
    run: RunFolder, count: int, threads: int, command: Sequence[str], should_stop: Callable[[], bool], clean: set[int]
) -> tuple[StateChanged, int]:
    """Runs all ranks of a run to their end.

    A stop is passed on as SIGUSR2, which asks for the same as SIGTERM and is never taken for the second one: a signal
    to the whole group reaches the ranks twice.

    Args:
        run: the folder, held by this process; its journal is free for rank 0.
        count: ranks.
        threads: CPU threads of all together; 0 takes OMP_NUM_THREADS, else all cores.
        command: starts one rank.
        should_stop: whether this process was asked to stop.
        clean: exit codes of a rank that did not fail.

    Returns:
        The terminal event and the exit code: those of rank 0, or of the rank that failed first.
    """
    with tempfile.TemporaryDirectory(prefix="qscope-ranks-") as scratch:
        ranks: list[_Rank] = []
        try:
            for number in range(count):
                ranks.append(_start(run, number, count, _threads_each(threads, count), command, Path(scratch)))
            _watch(ranks, should_stop, clean)
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.wait()
    if failed := [rank for rank in ranks if rank.failed(clean)]:
        return _explain(run, min(failed, key=_order), failed)
    assert ranks[0].ending is not None
    return ranks[0].ending, ranks[0].code


def _start(run: RunFolder, number: int, count: int, threads: int, command: Sequence[str], scratch: Path) -> _Rank:
    seat = Seat(number, count, os.getpid(), scratch)
    # Ranks of one machine need no other way to each other, and a machine's name may not resolve.
    local = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    environment = local | dict(os.environ) | seat.variables | dict.fromkeys(_THREADS, str(threads))
    with open(run.rank_log(number) if number else os.devnull, "ab") as log, stops_blocked():
        # Rank 0 speaks for the run: its output is that of this process.
        output = log if number else None
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    return _Rank(seat, process, ProcessRecord.of(process.pid, 0))


def _threads_each(threads: int, count: int) -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    total = threads or (int(given) if given.isdigit() else len(os.sched_getaffinity(0)))
    return max(1, total // count)


def _watch(ranks: list[_Rank], should_stop: Callable[[], bool], clean: set[int]) -> None:
    """Returns when all ranks have ended."""
    told_to_stop, deadline = False, None
    while not all([rank.poll() for rank in ranks]):
        now = time.monotonic()
        if should_stop() and not told_to_stop:
            told_to_stop = True
            _signal(ranks, signal.SIGUSR2)
        if deadline is None and any(rank.failed(clean) for rank in ranks):
            deadline = now + GRACE_SECONDS
        if deadline is not None and now > deadline:
            for rank in ranks:
                rank.killed |= not rank.poll()
            _signal(ranks, signal.SIGKILL)
            deadline = None
        time.sleep(_POLL_SECONDS)


def _signal(ranks: list[_Rank], number: signal.Signals) -> None:
    for rank in ranks:
        if not rank.poll():
            # Popen signals no process that it has reaped, so none that has the id by chance.
            rank.process.send_signal(number)


def _order(rank: _Rank) -> tuple[bool, float]:
    """What failed first comes first.

    A rank that was killed left no word, and nothing that another one did had made it so; but for an abort, which a
    library ends with when it waits for another rank in vain.
    """
    return rank.ending is not None or rank.code == -signal.SIGABRT, rank.ended_at or 0.0


def _explain(run: RunFolder, cause: _Rank, failed: list[_Rank]) -> tuple[StateChanged, int]:
    """The terminal event that names the rank that failed first, and its exit code."""
    rank, count, ending = cause.seat.rank, cause.seat.count, cause.ending
    if ending is None:
        _show_log(run, rank)
        failure = Failure(
            message=f"Rank {rank} of {count} vanished ({how_it_ended(cause.record)}).",
            remedy=f"Go on from the newest checkpoint: qscope runs resume {run.run_id}",
            reason="RANK_VANISHED",
        )
        return StateChanged(state=RUN_STATE_FAILED, message="failed", failure=failure), 1
    # What every rank finds wrong is no fault of one.
    if sum(_said(other) == _said(cause) for other in failed) < count:
        ending.failure.message = f"Rank {rank} of {count}: {ending.failure.message}"
    return ending, cause.code


def _said(rank: _Rank) -> str:
    return rank.ending.failure.message if rank.ending else ""


def _show_log(run: RunFolder, rank: int) -> None:
    """Puts the end of a rank's log where the run's is read."""
    if rank:
        for line in run.log_tail(log=run.rank_log(rank)):
            print(f"rank {rank}: {line}", file=sys.stderr)
        sys.stderr.flush()
