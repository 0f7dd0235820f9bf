"""A valid experiment and a run folder of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format

from qscope.runs import RunFolder
from qscope.v1.experiment_pb2 import Experiment


@pytest.fixture
def experiment() -> Experiment:
    return json_format.Parse(Path(__file__).with_name("experiment.json").read_text(), Experiment())


@pytest.fixture
def run(tmp_path: Path, experiment: Experiment) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", experiment, "request-1", "name: small\n")
