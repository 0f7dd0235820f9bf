"""Two gloo ranks with unequal shares of the tokens have the gradients of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_ranks_have_the_gradients_of_one(kind, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.posttraining.two_ranks", str(rank), str(tmp_path), kind],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, (out, err) in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, err
        found = json.loads(out.splitlines()[-1])
        for term in ("sae_term", "dapo_term"):
            assert found[term]["largest"] > 1e-3
            assert found[term]["difference"] < 1e-12, term
        if kind == "fsdp2":
            assert found["spread"] == "SHARDED_RESIDUAL"
