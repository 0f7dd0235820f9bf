"""Several processes in a plan: refused where nothing is divided, and the memory of all counted."""

from __future__ import annotations

import pytest
import torch

from qscope.errors import UserError
from qscope.recipes.plan import plan
from qscope.recipes.plan_ranks import add_ranks, refuse_processes
from qscope.v1 import run_pb2
from qscope.v1.experiment_pb2 import DEVICE_CPU, SHARDING_FSDP2, SHARDING_REPLICATED, Compute, Experiment
from qscope.v1.sft_pb2 import Sft

_TRAVEL = "gradients on their way"
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def _sft(**compute) -> Experiment:
    return Experiment(model="embedded", compute=Compute(device=DEVICE_CPU, **compute), sft=Sft())


def test_verbs_that_divide_nothing_run_in_one_process(tmp_path):
    experiment = Experiment(model="embedded", compute=Compute(device=DEVICE_CPU, processes=2))
    experiment.train_sae.tokens = 1
    with pytest.raises(UserError, match="train-sae runs in one process") as caught:
        plan(experiment, str(tmp_path))
    assert (caught.value.reason, caught.value.field) == ("ONE_PROCESS", "compute.processes")
    for processes in (0, 1):
        experiment.compute.processes = processes
        refuse_processes(experiment)
    refuse_processes(_sft(processes=2))


def test_a_model_is_shared_by_several_processes_or_not_at_all():
    with pytest.raises(UserError, match="divides a model among processes") as caught:
        refuse_processes(_sft(processes=1, sharding=SHARDING_FSDP2))
    assert caught.value.field == "compute.sharding"
    refuse_processes(_sft(processes=2, sharding=SHARDING_FSDP2))


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    experiment = _sft(processes=3)
    refuse_processes(experiment)
    experiment.compute.device = 0
    with pytest.raises(UserError, match=r"each needs a GPU of its own, and PyTorch sees 2\.") as caught:
        refuse_processes(experiment)
    assert caught.value.reason == "TOO_FEW_GPUS"
    experiment.compute.processes = 2
    refuse_processes(experiment)


@pytest.mark.parametrize(
    ("device", "sharding", "expected"),
    [
        (CPU, SHARDING_REPLICATED, {"model": 300, "gradients": 60, "model before training": 30, _TRAVEL: 60}),
        (CPU, SHARDING_FSDP2, {"model": 100, "gradients": 20, "model before training": 30}),
        (GPU, SHARDING_REPLICATED, {"model": 100, "gradients": 20, "model before training": 10, _TRAVEL: 20}),
        (GPU, SHARDING_FSDP2, {"model": 33, "gradients": 6, "model before training": 10}),
    ],
)
def test_memory_is_what_one_device_holds(device, sharding, expected):
    items = [("model", 100), ("gradients", 20), ("model before training", 10)]
    planned = run_pb2.Plan(memory=[run_pb2.MemoryItem(name=name, bytes=size) for name, size in items])
    add_ranks(planned, _sft(processes=3, sharding=sharding), device)
    assert {item.name: item.bytes for item in planned.memory} == expected
    assert [fact.name for fact in planned.facts] == ["processes"]


def test_one_process_changes_nothing():
    planned = run_pb2.Plan(memory=[run_pb2.MemoryItem(name="model", bytes=7)])
    add_ranks(planned, _sft(processes=1), CPU)
    assert [item.bytes for item in planned.memory] == [7]
    assert not planned.facts
