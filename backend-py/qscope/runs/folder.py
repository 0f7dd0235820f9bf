"""The run folder: what lies where, and who may write it.

=================  ====================================================================
config.yaml        the experiment file as it was written
experiment.json    the experiment as it runs, frozen (proto JSON)
run.json           request id, verb, time, seed, versions
events.jsonl       the journal (`journal.py`)
run.log            standard output and error of the job
rank-1.log         those of its second rank, and so on, where it has several
process.json       the process of the newest attempt (`process.py`)
cancel.json        a request to stop that process
run.lock           locked while a process works in the folder
checkpoints/       `checkpoints.py`
artifacts/         results
report.html        written by `qscope report`, for people only
=================  ====================================================================
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from qscope.errors import UserError
from qscope.runs.files import fsync_folder, read_json, write_json
from qscope.runs.process import ProcessRecord
from qscope.runs.versions import versions
from qscope.v1.experiment_pb2 import Experiment


@dataclass(frozen=True)
class CancelRequest:
    """A request to stop one attempt of a run; it means nothing to a later attempt.

    Attributes:
        pid, start_time: the process that is asked.
        mode: "graceful" (write a checkpoint first) or "immediate".
        reason: for the journal.
    """

    pid: int
    start_time: int
    mode: str
    reason: str = ""


class RunFolder:
    """One run's folder. The object holds no state but the path.

    Raises:
        UserError: NO_RUN_FOLDER when `path` is no run folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        if not (self.path / "run.json").is_file():
            raise UserError(
                f"{self.path} is not a run folder (it has no run.json).",
                remedy="Give the folder of a run, as `qscope runs list` shows it.",
                reason="NO_RUN_FOLDER",
            )

    @classmethod
    def create(
        cls, runs_folder: Path | str, experiment: Experiment, request_id: str, source_yaml: str = ""
    ) -> RunFolder:
        """The folder of the run that `request_id` asks for: made now, or found when it was made before.

        Args:
            runs_folder: holds all runs; made when absent.
            experiment: valid and complete; frozen in the folder.
            request_id: any text that the caller uses for one run only.
            source_yaml: the experiment file as it was written.

        Raises:
            UserError: REQUEST_ID_REUSED when the id belongs to another experiment.
        """
        runs = Path(runs_folder).absolute()
        digest = hashlib.sha256(request_id.encode()).hexdigest()
        try:
            runs.mkdir(parents=True, exist_ok=True)
            with _locked(runs / ".runs.lock", wait_seconds=30):
                for length in range(8, len(digest) + 1, 4):
                    short_id = digest[:length]
                    existing = [path for path in runs.glob(f"*-{short_id}") if (path / "run.json").is_file()]
                    if not existing:
                        break
                    folder = cls(existing[0])
                    if folder.info.get("request_id") == request_id:
                        return folder._unless_other(experiment, request_id)
                path = runs / f"{experiment.name}-{short_id}"
                _write_new(path, experiment, request_id, source_yaml)
                return cls(path)
        except OSError as error:
            raise UserError(
                f"The run folder cannot be made in {runs}: {error.strerror or error}.",
                remedy="Choose another folder with --runs-dir, or make room in it and make it writable.",
                reason="RUNS_FOLDER_UNUSABLE",
                field="runs_folder",
            ) from error

    def _unless_other(self, experiment: Experiment, request_id: str) -> RunFolder:
        if self.experiment != experiment:
            raise UserError(
                f"Request {request_id} already started the run {self.run_id}, with another experiment.",
                remedy="Use a new request id for each experiment.",
                reason="REQUEST_ID_REUSED",
            )
        return self

    @property
    def run_id(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def info(self) -> dict[str, Any]:
        """Content of run.json."""
        return read_json(self.path / "run.json") or {}

    @property
    def experiment(self) -> Experiment:
        """The frozen experiment.

        Raises:
            UserError: EXPERIMENT_UNREADABLE when experiment.json is missing or of another contract.
        """
        path = self.path / "experiment.json"
        try:
            return json_format.Parse(path.read_text(encoding="utf-8"), Experiment())
        except (OSError, ValueError, json_format.ParseError) as error:
            raise UserError(
                f"The frozen experiment {path} cannot be read: {error}.",
                remedy="Start the run again from its config.yaml.",
                reason="EXPERIMENT_UNREADABLE",
            ) from error

    def rank_log(self, rank: int) -> Path:
        """The log of a rank after the first, which has the run's."""
        return self.path / f"rank-{rank}.log"

    def log_tail(self, lines: int = 20, log: Path | None = None) -> list[str]:
        """The last lines of the job's log (or of another), from its last 64 KiB."""
        try:
            with open(log or self.log, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 65536))
                return file.read().decode(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    # -- the process ---------------------------------------------------------------------------------------------

    @property
    def process(self) -> ProcessRecord | None:
        """The process of the newest attempt; None before the first."""
        value = read_json(self.path / "process.json")
        return ProcessRecord.from_json(value) if value else None

    def record_process(self, record: ProcessRecord) -> None:
        write_json(self.path / "process.json", record.to_json())

    def process_lives(self) -> bool:
        """True while the newest attempt works.

        A process on another machine that shares this folder is judged by the lock it holds.
        """
        record = self.process
        if record is None or record.exit_code is not None:
            return False
        if record.is_local or record.was_rebooted:
            return record.lives
        return self.is_locked()

    # -- stopping ------------------------------------------------------------------------------------------------

    def request_cancel(self, request: CancelRequest) -> None:
        write_json(self.path / "cancel.json", {**request.__dict__, "time": datetime.now(UTC).isoformat()})

    def cancel_request(self, record: ProcessRecord | None = None) -> CancelRequest | None:
        """The request to stop `record` (left out: the newest attempt), if there is one."""
        record = record or self.process
        value = read_json(self.path / "cancel.json")
        if record is None or value is None:
            return None
        if (value.get("pid"), value.get("start_time")) != (record.pid, record.start_time):
            return None
        return CancelRequest(record.pid, record.start_time, str(value.get("mode", "")), str(value.get("reason", "")))

    # -- the lock ------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, wait_seconds: float = 1.0) -> Iterator[None]:
        """Holds the folder; only one process of all machines that see it can.

        Raises:
            UserError: RUN_ACTIVE when another process holds it for longer than `wait_seconds`.
        """
        try:
            with _locked(self.path / "run.lock", wait_seconds):
                yield
        except BlockingIOError:
            raise UserError(
                f"Another process works in the run folder {self.path}.",
                remedy=f"Wait for it, or stop it with `qscope runs cancel {self.run_id}`.",
                reason="RUN_ACTIVE",
            ) from None

    def is_locked(self) -> bool:
        """True while some process works in the folder."""
        try:
            with _locked(self.path / "run.lock", wait_seconds=0):
                return False
        except BlockingIOError:
            return True


def _write_new(path: Path, experiment: Experiment, request_id: str, source_yaml: str) -> None:
    """Fills a folder under a temporary name and renames it: a run folder is complete or absent."""
    temporary = path.with_name(f".{path.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    for folder in (temporary, temporary / "checkpoints", temporary / "artifacts"):
        folder.mkdir()
    frozen = json_format.MessageToJson(
        experiment, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    (temporary / "config.yaml").write_text(source_yaml, encoding="utf-8")
    (temporary / "experiment.json").write_text(frozen + "\n", encoding="utf-8")
    write_json(
        temporary / "run.json",
        {
            "request_id": request_id,
            "verb": (experiment.WhichOneof("task") or "").replace("_", "-"),
            "created": datetime.now(UTC).isoformat(),
            "seed": experiment.seed,
            "versions": versions(),
        },
    )
    temporary.rename(path)
    fsync_folder(path.parent)


@contextmanager
def _locked(path: Path, wait_seconds: float) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def ended(record: ProcessRecord, exit_code: int, oom_kills_now: int) -> ProcessRecord:
    """`record` after its process was reaped with `exit_code` (negative: a signal)."""
    return replace(record, exit_code=exit_code, oom_killed=0 <= record.oom_kills < oom_kills_now)
