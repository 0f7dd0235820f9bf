"""The newest state of a training run on disk, in safetensors: weights, optimiser moments, counters."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from transformers import PreTrainedModel

_WEIGHTS, _OPTIMISER = "model.", "optimiser."


def save_state(path: Path, model: PreTrainedModel, optimisers: list[Optimizer], counters: dict) -> None:
    """Written whole, then renamed: a kill leaves the state before."""
    tensors = {_WEIGHTS + name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    for number, optimiser in enumerate(optimisers):
        for index, moments in optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                tensors[f"{_OPTIMISER}{number}.{index}.{key}"] = torch.as_tensor(value)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"counters": json.dumps(counters)})
    os.replace(partial, path)


def load_state(path: Path, model: PreTrainedModel, optimisers: list[Optimizer]) -> dict | None:
    """The counters of the state at `path`, which is put into model and optimisers; None if there is none."""
    if not path.exists():
        return None
    tensors = load_file(path)
    weights = {name.removeprefix(_WEIGHTS): value for name, value in tensors.items() if name.startswith(_WEIGHTS)}
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    for number, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"{_OPTIMISER}{number}."):
                _, _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["counters"])
