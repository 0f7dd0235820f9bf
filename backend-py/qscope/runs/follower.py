"""The run context of every rank but the first: same questions, no answers to the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qscope.runs.checkpoints import SharedCheckpoints
from qscope.runs.context import RunContext
from qscope.runs.folder import RunFolder
from qscope.runs.ranks import Ranks
from qscope.runs.sinks import Sink
from qscope.v1.report_pb2 import Report
from qscope.v1.sae_pb2 import MetricSinks


class _NoJournal:
    """Takes every event and keeps none."""

    def append(self, **event: Any) -> None:
        pass


class FollowerContext(RunContext):
    """Stands where a :class:`RunContext` does on the ranks after the first, so that a recipe need not know its rank.

    It reports nothing; what it says as text goes to the rank's own log. ``stop_requested`` and ``checkpoints`` are
    agreed with the other ranks.

    Args:
        scratch: takes the place of ``artifacts``, so that what a recipe writes there is kept on rank 0 alone; made
            here, and removed by who named it.
    """

    def __init__(self, run: RunFolder, is_stopping: Callable[[], bool], ranks: Ranks, scratch: Path) -> None:
        assert not ranks.is_first
        self._scratch = scratch
        scratch.mkdir()
        super().__init__(run, _NoJournal(), is_stopping, ranks)  # type: ignore[arg-type]

    def _open_checkpoints(self, keep: int) -> SharedCheckpoints:
        return SharedCheckpoints(self.run.checkpoints, self.ranks, None)

    def _open_sinks(self, settings: MetricSinks) -> list[Sink]:
        return []

    @property
    def artifacts(self) -> Path:
        """A folder of this rank alone."""
        return self._scratch

    def progress(self, phase: str, current: float, total: float, unit: str) -> None:
        """Nothing."""

    def metrics(self, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        """Nothing."""

    def artifact(self, path: Path | str, kind: str, description: str = "") -> None:
        """Nothing."""

    def report(self, report: Report) -> None:
        """Nothing."""
