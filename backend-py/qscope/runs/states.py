"""What a run is doing, derived from its journal and its process; nothing here writes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from qscope.errors import UserError
from qscope.runs.folder import RunFolder
from qscope.runs.journal import is_terminal, newest
from qscope.runs.process import how_it_ended
from qscope.v1.run_event_pb2 import (
    RUN_STATE_CANCELLED,
    RUN_STATE_CANCELLING,
    RUN_STATE_FAILED,
    RUN_STATE_PREEMPTED,
    RUN_STATE_QUEUED,
    RUN_STATE_RUNNING,
    Failure,
    RunEvent,
)
from qscope.v1.run_pb2 import Run

_RESUMABLE = frozenset({RUN_STATE_FAILED, RUN_STATE_CANCELLED, RUN_STATE_PREEMPTED})


def derive_state(folder: RunFolder, log_lines: int = 0) -> Run:
    """The run as it is now.

    A run whose process is gone without a terminal event is FAILED with reason PROCESS_VANISHED, or CANCELLED when
    it had been asked to stop.

    Args:
        log_lines: lines of the log to add when the run failed.
    """
    info = folder.info
    run = Run(run_id=folder.run_id, verb=info.get("verb", ""), folder=str(folder.path))
    run.created.CopyFrom(_timestamp(info.get("created", "")))
    run.updated.CopyFrom(run.created)
    # Asked before the journal is read: a process that ends in between has written its last event by then.
    lives = folder.process_lives()
    record = folder.process
    last: RunEvent | None = None
    try:
        last, progress = newest(folder.events)
        if progress is not None:
            run.progress.CopyFrom(progress.progress)
    except UserError as error:
        run.failure.CopyFrom(Failure(message=error.message, remedy=error.remedy, reason=error.reason))
    if last is not None:
        run.last_sequence = last.sequence
        run.updated.CopyFrom(last.time)
    if lives and record is not None:
        run.pid = record.pid
    began = record is not None and run.last_sequence > record.journal_sequence
    if run.HasField("failure") and not lives:
        run.state = RUN_STATE_FAILED
    elif is_terminal(last) and last is not None and (began or record is None):
        run.state = last.state_changed.state
        if last.state_changed.HasField("failure"):
            run.failure.CopyFrom(last.state_changed.failure)
    elif lives:
        run.ClearField("failure")
        asked = folder.cancel_request(record) is not None or _says_cancelling(last)
        run.state = RUN_STATE_CANCELLING if asked else RUN_STATE_RUNNING if began else RUN_STATE_QUEUED
    elif record is None:
        run.state = RUN_STATE_QUEUED
    elif folder.cancel_request(record) is not None:
        run.state = RUN_STATE_CANCELLED
    else:
        run.state = RUN_STATE_FAILED
        run.failure.CopyFrom(_vanished(folder))
    run.resumable = run.state in _RESUMABLE and run.failure.reason != "EXPERIMENT_INVALID"
    if log_lines and run.state == RUN_STATE_FAILED:
        run.log_tail.extend(folder.log_tail(log_lines))
    return run


def _says_cancelling(event: RunEvent | None) -> bool:
    return event is not None and event.HasField("state_changed") and event.state_changed.state == RUN_STATE_CANCELLING


def _vanished(folder: RunFolder) -> Failure:
    record = folder.process
    how = how_it_ended(record) if record else ""
    remedy = f"Go on from the newest checkpoint: qscope runs resume {folder.run_id}"
    if "out of memory" in how:
        remedy = f"Give the run more memory or make it smaller (batch, buffer, d_sae). {remedy}"
    return Failure(
        message=f"The process vanished ({how})." if how else "The process vanished.",
        remedy=remedy,
        reason="PROCESS_VANISHED",
    )


def _timestamp(text: str) -> Timestamp:
    stamp = Timestamp()
    try:
        stamp.FromDatetime(datetime.fromisoformat(text))
    except ValueError:
        stamp.Clear()
    return stamp


def run_folders(runs_folder: Path | str) -> list[RunFolder]:
    """Every run folder in `runs_folder`, newest first; none when the folder is absent."""
    runs = Path(runs_folder)
    if not runs.is_dir():
        return []
    found = [RunFolder(path) for path in runs.iterdir() if path.name[0] != "." and (path / "run.json").is_file()]
    return sorted(found, key=lambda folder: (folder.info.get("created", ""), folder.run_id), reverse=True)


def list_runs(runs_folder: Path | str) -> list[Run]:
    """Every run in `runs_folder`, newest first."""
    return [derive_state(folder) for folder in run_folders(runs_folder)]


def find_run(runs_folder: Path | str, run_id: str) -> RunFolder:
    """The run with this id, or with this beginning of an id, or with this short id; "latest" is the newest.

    Raises:
        UserError: RUN_NOT_FOUND, or RUN_AMBIGUOUS when several runs fit.
    """
    runs = run_folders(runs_folder)
    if run_id == "latest" and runs:
        return runs[0]
    exact = [folder for folder in runs if folder.run_id == run_id]
    short = [folder for folder in runs if folder.run_id.rpartition("-")[2] == run_id]
    fitting = exact or short or [folder for folder in runs if folder.run_id.startswith(run_id)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(folder.run_id for folder in fitting[:5])
        raise UserError(
            f'"{run_id}" fits {len(fitting)} runs: {names}.',
            remedy="Give more of the id.",
            reason="RUN_AMBIGUOUS",
            field="run_id",
        )
    raise UserError(
        f'There is no run "{run_id}" in {runs_folder}.',
        remedy="`qscope runs list` shows the runs; --runs-dir chooses another folder.",
        reason="RUN_NOT_FOUND",
        field="run_id",
    )
