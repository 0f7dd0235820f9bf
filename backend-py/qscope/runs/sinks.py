"""Where metrics go besides the journal: TensorBoard and Weights & Biases, both optional packages."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from google.protobuf import json_format

from qscope.errors import UserError
from qscope.runs.folder import RunFolder
from qscope.v1.run_event_pb2 import MetricsBatch
from qscope.v1.sae_pb2 import MetricSinks


class Sink(Protocol):
    """Takes every metrics event of a run."""

    def write(self, batch: MetricsBatch) -> None: ...

    def close(self) -> None: ...


def open_sinks(folder: RunFolder, settings: MetricSinks) -> list[Sink]:
    """The sinks that `settings` ask for.

    Raises:
        UserError: PACKAGE_MISSING, with the pip command.
    """
    sinks: list[Sink] = []
    if settings.tensorboard:
        sinks.append(TensorBoard(folder.path / "tensorboard"))
    if settings.wandb_project:
        sinks.append(Wandb(folder, settings.wandb_project))
    return sinks


class TensorBoard:
    """Event files under the run folder: ``layer3/fvu`` per layer, ``run/loss`` for the run."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard", "metrics.tensorboard") from error
        self._writer = SummaryWriter(str(folder))

    def write(self, batch: MetricsBatch) -> None:
        for name, value, step in _flat(batch):
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A Weights & Biases run with the run's id, which a resumed run goes on with."""

    def __init__(self, folder: RunFolder, project: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb", "metrics.wandb_project") from error
        self._run = wandb.init(
            project=project,
            id=folder.run_id,
            name=folder.run_id,
            resume="allow",
            dir=str(folder.path),
            config=json_format.MessageToDict(folder.experiment, preserving_proto_field_name=True),
        )

    def write(self, batch: MetricsBatch) -> None:
        values = {name: value for name, value, _ in _flat(batch)}
        if batch.entries:
            self._run.log(values, step=batch.entries[0].step)

    def close(self) -> None:
        self._run.finish()


def _flat(batch: MetricsBatch) -> list[tuple[str, float, int]]:
    return [
        (f"{'run' if entry.layer < 0 else f'layer{entry.layer}'}/{name}", value, entry.step)
        for entry in batch.entries
        for name, value in sorted(entry.values.items())
    ]


def _missing(package: str, setting: str) -> UserError:
    return UserError(
        f"The Python package {package} is not installed.",
        remedy=f"Install it with `pip install {package}` in the worker's environment, or leave {setting} out.",
        reason="PACKAGE_MISSING",
        field=f"train_sae.{setting}",
    )
