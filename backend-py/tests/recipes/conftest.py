"""Random SAEs of the embedded model, and a way to run a recipe in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qscope.models import capture_residuals, load_model
from qscope.recipes import RECIPES
from qscope.runs import Journal, RunContext, RunFolder
from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.model_pb2 import ModelOptions

D, F, K, LAYERS = 128, 256, 8, [1, 4]


@pytest.fixture(scope="session")
def sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAEs whose features are differences of residuals of real text: random, but not all alike."""
    loaded = load_model("embedded", ModelOptions())
    ids_BT = torch.randint(0, 8000, (8, 32), generator=torch.Generator().manual_seed(0))
    captured = capture_residuals(loaded, LAYERS, ids_BT)
    saes = {}
    for layer in LAYERS:
        x_ND = captured[layer][:, 1:].reshape(-1, D)[:F].float()
        x_FD = x_ND[torch.arange(F) % len(x_ND)] - x_ND.mean(0)
        W_FD = x_FD / x_FD.norm(dim=1, keepdim=True)
        saes[layer] = TopKSae(W_FD, -(W_FD @ x_ND.mean(0)), W_FD.clone(), torch.zeros(D), k=K, layer=layer)
    folder = tmp_path_factory.mktemp("saes") / "sae"
    formats.save(saes, folder, ["native", "qwen_scope"], {})
    return folder


@pytest.fixture
def run(tmp_path) -> Callable[..., RunFolder]:
    """Runs an experiment's recipe in this process; ``run(experiment, folder)`` goes on in an earlier run's folder."""
    count = 0

    def go(given: Experiment, folder: RunFolder | None = None, is_stopping: Callable[[], bool] = bool) -> RunFolder:
        nonlocal count
        count += 1
        folder = folder or RunFolder.create(tmp_path / "runs", given, f"request-{count}")
        module, _, function = RECIPES[given.WhichOneof("task")].partition(":")
        recipe = getattr(__import__(module, fromlist=[function]), function)
        with Journal(folder.events) as journal:
            context = RunContext(folder, journal, is_stopping)
            recipe(context)
            context.close()
        return folder

    return go
