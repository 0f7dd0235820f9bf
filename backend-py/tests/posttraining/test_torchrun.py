"""Both trainers under torchrun itself, two gloo ranks; runs start their ranks without it (docs/ranks.md says why)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.posttraining import test_rl_ranks as rl
from tests.posttraining import test_sft_ranks as sft
from tests.posttraining.reinforced import KEPT, reinforce
from tests.posttraining.tuned import FULL, tune

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
]
ROOT = Path(__file__).parents[2]


def torchrun(verb: str, folder: Path, spec: dict[str, object]) -> list[dict[str, object]]:
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps({**spec, "stop_at": -1}))
    module = "tests.posttraining.under_torchrun"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", module]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, verb, str(folder)], cwd=ROOT, env=environment, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(2)]


def test_sft_learns_what_one_process_learns(tiny_folder, tmp_path) -> None:
    one = tune(tiny_folder, tmp_path / "one", trainable=FULL, exact=True)
    assert one.trainer.train_run() == sft.STEPS
    spec = {"model": str(tiny_folder), "kind": "ddp", "lora": False, "batch": 2, "accumulate": 1, "exact": True}
    for rank in torchrun("sft", tmp_path / "two", spec):
        assert (rank["step"], rank["wrapped"]) == (sft.STEPS, "DistributedDataParallel")
        assert rank["ce"] == pytest.approx({str(s): v for s, v in one.context.series("ce").items()}, rel=1e-12)


def test_rl_learns_what_one_process_learns(tiny_folder, tmp_path) -> None:
    one = reinforce(tiny_folder, tmp_path / "one", rare=KEPT, **rl.SHARED)
    assert one.trainer.train_run() == rl.STEPS
    for rank in torchrun("rl", tmp_path / "two", {**rl.SHARED, "model": str(tiny_folder), "divided": False}):
        assert (rank["step"], rank["wrapped"]) == (rl.STEPS, "DistributedDataParallel")
        expected = {str(s): v for s, v in one.context.series("grad_norm").items()}
        assert rank["series"]["grad_norm"] == pytest.approx(expected, rel=1e-4)
