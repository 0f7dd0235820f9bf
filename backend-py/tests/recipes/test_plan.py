"""The plan: what it counts, what it refuses, what it advises."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from qscope.errors import UserError
from qscope.recipes import plan as module
from qscope.recipes.plan import available_memory, measure_device, plan, refuse_if_too_large
from qscope.v1 import experiment_pb2, sae_pb2

D, F, LAYERS = 32, 128, 4


@pytest.fixture
def experiment(tiny_folder) -> experiment_pb2.Experiment:
    (tiny_folder.parent / "text.txt").write_text("Some words.\n\nMore words.\n")
    made = experiment_pb2.Experiment(name="x", model=str(tiny_folder))
    made.compute.device = experiment_pb2.DEVICE_CPU
    task = made.train_sae
    task.text.source = str(tiny_folder.parent / "text.txt")
    task.text.context = 16
    task.sae.d_sae, task.sae.k = F, 4
    task.tokens, task.batch_tokens = 100_000, 512
    task.buffer.tokens, task.buffer.model_batch_tokens = 4096, 512
    task.checkpoint.keep = 2
    task.formats.extend([sae_pb2.SAE_FORMAT_NATIVE])
    return made


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "measure_device", lambda device: module.DeviceSpeed(products=1e9, bytes=1e9))


def memory(planned) -> dict[str, int]:
    return {item.name.split(" (")[0]: item.bytes for item in planned.memory}


def test_counts_the_weights_of_every_layer(experiment, quick, tmp_path) -> None:
    weights = 2 * D * F + F + D
    every = plan(experiment, str(tmp_path))
    assert memory(every)["SAE weights, float32"] == LAYERS * weights * 4
    assert memory(every)["Adam moments, float32"] == LAYERS * weights * 8
    assert every.memory_bytes == sum(item.bytes for item in every.memory)
    experiment.train_sae.layers.extend([1])
    one = plan(experiment, str(tmp_path))
    assert memory(one)["SAE weights, float32"] == weights * 4
    assert memory(one)["shuffle buffer"] == 4096 * D * 4


def test_time_grows_with_tokens_and_layers(experiment, quick, tmp_path) -> None:
    before = plan(experiment, str(tmp_path)).seconds
    experiment.train_sae.tokens *= 2
    assert plan(experiment, str(tmp_path)).seconds == pytest.approx(2 * before)
    experiment.train_sae.layers.extend([0])
    assert plan(experiment, str(tmp_path)).seconds < before


def test_a_job_spares_the_measurement(experiment, quick, tmp_path, monkeypatch) -> None:
    timed = plan(experiment, str(tmp_path))
    monkeypatch.setattr(module, "measure_device", lambda device: pytest.fail("measured"))
    untimed = plan(experiment, str(tmp_path), timed=False)
    assert timed.seconds > 0
    assert untimed.seconds == 0
    assert memory(untimed) == memory(timed)


def test_facts_say_what_would_run(experiment, quick, tmp_path) -> None:
    facts = {fact.name: fact.value for fact in plan(experiment, str(tmp_path)).facts}
    assert facts["layers"].startswith("0-3 of 4")
    assert facts["SAE"] == "d_in 32, d_sae 128, k 4"
    assert facts["steps"] == "196 of 512 tokens"
    experiment.train_sae.layers.extend([0, 1, 3])
    facts = {fact.name: fact.value for fact in plan(experiment, str(tmp_path)).facts}
    assert facts["layers"].startswith("0-1, 3 of 4")


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        (lambda task: task.layers.extend([0, 4]), "LAYER_OUT_OF_RANGE", "train_sae.layers[1]"),
        (lambda task: setattr(task.sae, "k", F + 1), "K_EXCEEDS_WIDTH", "train_sae.sae.k"),
        (lambda task: setattr(task.text, "source", "./nowhere.jsonl"), "TEXT_NOT_FOUND", "train_sae.text.source"),
    ],
)
def test_refuses_what_cannot_run(experiment, quick, tmp_path, change, reason, field) -> None:
    change(experiment.train_sae)
    with pytest.raises(UserError) as caught:
        plan(experiment, str(tmp_path))
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_refuses_what_does_not_fit_and_says_how_many_layers_would(experiment, quick, tmp_path, monkeypatch) -> None:
    needed = plan(experiment, str(tmp_path)).memory_bytes
    monkeypatch.setattr(module, "available_memory", lambda device: needed - 1)
    planned = plan(experiment, str(tmp_path))
    assert not planned.fits
    with pytest.raises(UserError, match="layers fit at a time") as caught:
        refuse_if_too_large(planned)
    assert "train_sae.layers=[0, 1, 2]" in str(caught.value)
    monkeypatch.setattr(module, "available_memory", lambda device: 1)
    assert "Not even one layer" in plan(experiment, str(tmp_path)).warnings[-1]


def test_warns_of_a_disk_too_small_and_of_few_steps(experiment, quick, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_free_disk", lambda folder: 1)
    experiment.train_sae.tokens = 1000
    warnings = " ".join(plan(experiment, str(tmp_path / "not" / "yet")).warnings)
    assert "checkpoint.keep" in warnings
    assert "2 steps are few" in warnings


def test_leaves_nothing_behind(experiment, quick, tmp_path) -> None:
    plan(experiment, str(tmp_path / "runs"))
    assert list(tmp_path.iterdir()) == []


def test_plans_an_evaluation(experiment, quick, tmp_path) -> None:
    evaluation = sae_pb2.EvalSae(sae="latest", text=experiment.train_sae.text, tokens=1000, model_batch_tokens=64)
    experiment.eval_sae.CopyFrom(evaluation)
    facts = {fact.name: fact.value for fact in plan(experiment, str(tmp_path)).facts}
    assert facts["model passes"] == str(2 + 4 * LAYERS)


def test_measures_this_machine() -> None:
    speed = measure_device(torch.device("cpu"))
    assert 1e8 < speed.products < 1e15
    assert 1e7 < speed.bytes < 1e14
    assert 1 << 20 < available_memory(torch.device("cpu")) < 1 << 50


def test_planning_leaves_out_what_only_training_needs() -> None:
    # Every run plans first, and these take seconds to import.
    slow = "{'trl', 'peft', 'datasets', 'transformers', 'accelerate'}"
    code = f"import sys, qscope.recipes.admission; print(sorted({slow} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
