"""One layer in the names and the size of the release, through the benchmark that docs/formats.md quotes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sae_store.py"


@pytest.mark.slow
def test_a_feature_of_a_released_layer_is_read_without_the_layer(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--layers", "1", "--reads", "50", "--folder", str(tmp_path)]
    command += ["--only", "plan", "convert", "plan_converted", "read_feature_cold", "read_feature"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=280)
    stages = json.loads(done.stdout)["stages"]
    assert stages["plan"]["facts"]["layers"] == "1 of 1, 0 of them converted"
    assert stages["plan_converted"]["facts"]["layers"] == "1 of 1, 1 of them converted"
    # How long it takes is for the benchmark to say: beside other work ten milliseconds are soon gone.
    for stage in ("read_feature", "read_feature_cold"):
        assert stages[stage]["next"]["n"] == 50
        assert stages[stage]["extra_mb"] < 50
    # The layer is 537 MB; converting it must not need that in private memory.
    assert stages["convert"]["peak_private_mb"] < 300
