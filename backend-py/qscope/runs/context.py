"""The one door through which a recipe speaks: what it was asked, what it reports, what it keeps."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from google.protobuf import json_format

from qscope.runs.checkpoints import Checkpoints, SharedCheckpoints
from qscope.runs.files import replacing
from qscope.runs.folder import RunFolder
from qscope.runs.journal import Journal
from qscope.runs.ranks import Ranks
from qscope.runs.sinks import Sink, open_sinks
from qscope.runs.violations import violations
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.report_pb2 import Report
from qscope.v1.run_event_pb2 import (
    LOG_LEVEL_INFO,
    LOG_LEVEL_WARNING,
    RUN_STATE_CANCELLING,
    Artifact,
    CheckpointWritten,
    Log,
    Metrics,
    MetricsBatch,
    Progress,
    StateChanged,
)
from qscope.v1.sae_pb2 import MetricSinks

_PROGRESS_SECONDS = 0.25
_RATE_SECONDS = 10.0


class RunStopped(BaseException):
    """The recipe left because it was asked to; its checkpoint is written.

    Not an `Exception`, so that no recipe's error handling swallows it.

    Attributes:
        step: steps done.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


def seed_of(seed: int, name: str) -> int:
    """The seed (63 bits) of the generator called `name` in an experiment of this seed."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class RunContext:
    """Given to every recipe. All methods may be called from any thread.

    Args:
        run: the run folder, locked by this process.
        journal: the folder's journal.
        is_stopping: True once the process was asked to stop.
        ranks: the processes of the run; by default this one alone. Those after the first are given a
            :class:`~qscope.runs.follower.FollowerContext`.

    Raises:
        UserError: PACKAGE_MISSING when a metrics sink was asked for that is not installed.
    """

    def __init__(
        self,
        run: RunFolder,
        journal: Journal,
        is_stopping: Callable[[], bool] = lambda: False,
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ) -> None:
        self.run = run
        self.ranks = ranks
        self.experiment: Experiment = run.experiment
        self._journal = journal
        self._is_stopping = is_stopping
        self._said_stopping = False
        self._rate = _Rate()
        task_name = self.experiment.WhichOneof("task")
        task = getattr(self.experiment, task_name) if task_name else None
        settings = task.DESCRIPTOR.fields_by_name if task is not None else {}
        self.checkpoints = self._open_checkpoints(max(1, task.checkpoint.keep) if "checkpoint" in settings else 2)
        self._sinks: list[Sink] = self._open_sinks(task.metrics) if "metrics" in settings else []

    def _open_checkpoints(self, keep: int) -> Checkpoints | SharedCheckpoints:
        own = Checkpoints(self.run.checkpoints, keep, self._checkpoint_written, self.warning)
        return own if self.ranks.count == 1 else SharedCheckpoints(self.run.checkpoints, self.ranks, own)

    def _open_sinks(self, settings: MetricSinks) -> list[Sink]:
        return open_sinks(self.run, settings)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.path

    @property
    def artifacts(self) -> Path:
        """Where results go."""
        return self.run.artifacts

    def seed_for(self, name: str) -> int:
        """The seed (63 bits) of the generator called `name`: from the experiment's seed and the name, nothing else."""
        return seed_of(self.experiment.seed, name)

    # -- reports -------------------------------------------------------------------------------------------------

    def progress(self, phase: str, current: float, total: float, unit: str) -> None:
        """How far `phase` is, in `unit`. Call it as often as is handy: about four a second are written."""
        now = time.monotonic()
        rate = self._rate.update(phase, current, total, now)
        if rate is None:
            return
        eta = max(0.0, total - current) / rate if rate > 0 else -1.0
        self._journal.append(
            progress=Progress(phase=phase, current=current, total=total, unit=unit, rate=rate, eta_seconds=eta)
        )

    def metrics(self, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        """Numbers at `step` by layer (-1: the whole run) and name; to the journal and every sink."""
        batch = MetricsBatch(entries=[Metrics(step=step, layer=layer, values=named) for layer, named in values.items()])
        self._journal.append(metrics=batch)
        for sink in self._sinks:
            sink.write(batch)

    def info(self, text: str) -> None:
        """A line for people."""
        print(text, file=sys.stderr, flush=True)
        self._journal.append(log=Log(level=LOG_LEVEL_INFO, text=text))

    def warning(self, text: str) -> None:
        """Something the user should know."""
        print(f"warning: {text}", file=sys.stderr, flush=True)
        self._journal.append(log=Log(level=LOG_LEVEL_WARNING, text=text))

    def artifact(self, path: Path | str, kind: str, description: str = "") -> None:
        """A result is complete: `path` inside the run folder (absolute or relative to it)."""
        inside = (self.folder / path).resolve().relative_to(self.folder.resolve())
        assert (self.folder / inside).exists(), f"artifact {inside} was announced before it was written"
        self._journal.append(durable=True, artifact=Artifact(path=str(inside), kind=kind, description=description))

    def report(self, report: Report) -> None:
        """What the run found, for `qscope report`: ``artifacts/report.json``, in the place of an earlier one.

        Text is shown as it is, never as markup. Tokens that end inside a character need decoding with ``"replace"``:
        protobuf takes whole characters only.
        """
        faults = violations(report)
        assert not faults, f"the report breaks its contract: {faults}"
        path = self.artifacts / "report.json"
        with replacing(path) as temporary:
            text = json_format.MessageToJson(report, preserving_proto_field_name=True, indent=None, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
        self.artifact(path, kind="report", description=report.title)

    def _checkpoint_written(self, path: Path, step: int, size: int) -> None:
        written = CheckpointWritten(path=str(path.relative_to(self.run.path)), step=step, bytes=size)
        self._journal.append(checkpoint=written)

    # -- stopping ------------------------------------------------------------------------------------------------

    @property
    def stop_requested(self) -> bool:
        """True once the run was asked to stop: finish the step, save a checkpoint, call `stop`.

        With several ranks it is collective: true on all after the same step when one was asked. Each has to look
        equally often.
        """
        if not self._said_stopping and self.ranks.any(self._is_stopping()):
            self._said_stopping = True
            request = self.run.cancel_request()
            why = request.reason if request else "stopped by the system"
            self._journal.append(
                state_changed=StateChanged(state=RUN_STATE_CANCELLING, message=why or "stopped on request")
            )
        return self._said_stopping

    def stop(self, step: int) -> NoReturn:
        """Leaves the recipe after `step`; the checkpoint is already saved."""
        raise RunStopped(step)

    def close(self) -> None:
        """Flushes the sinks; the journal stays with its owner."""
        for sink in self._sinks:
            sink.close()
        self._sinks = []


class _Rate:
    """Smooths a phase's rate over about ten seconds, and says when a progress event is due."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._current = self._time = self._rate = 0.0

    def update(self, phase: str, current: float, total: float, now: float) -> float | None:
        """Units per second, 0 while unknown; None when the last event is too young."""
        if phase != self._phase or current < self._current:
            self._phase, self._current, self._time, self._rate = phase, current, now, 0.0
            return 0.0
        elapsed = now - self._time
        done = current >= total and current > self._current
        if elapsed < _PROGRESS_SECONDS and not done:
            return None
        if elapsed > 0:
            measured = (current - self._current) / elapsed
            weight = 1.0 if self._rate == 0.0 else 1 - math.exp(-elapsed / _RATE_SECONDS)
            self._rate += weight * (measured - self._rate)
        self._current, self._time = current, now
        return self._rate
