"""The recipe stopped at chosen steps: what a signal at an unlucky moment must not break."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format
from safetensors.torch import load_file
from torch import Tensor

from qscope.errors import UserError
from qscope.recipes import train_sae
from qscope.runs import Journal, RunContext, RunFolder, RunStopped, tail
from qscope.sae.trainer import SaeTrainer
from qscope.v1.experiment_pb2 import Experiment

STEPS = 6


@pytest.fixture
def experiment(tiny_folder: Path, tmp_path: Path) -> Experiment:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Sentence {n}: the {n * 7919 % 1000} of them went there." for n in range(200)))
    task = {
        "text": {"source": str(text), "context": 16, "pack": True, "repeat": True},
        "layers": [1],
        "sae": {"d_sae": 64, "k": 4},
        "tokens": 64 * STEPS,
        "batch_tokens": 64,
        "optimizer": {"learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        "buffer": {"tokens": 256, "model_batch_tokens": 64},
        "filter": {"drop_first_token": True},
        "checkpoint": {"keep": 2},
        "metrics": {"every_steps": 1},
        "formats": ["SAE_FORMAT_NATIVE"],
    }
    fields = {"name": "x", "seed": 3, "model": str(tiny_folder), "compute": {"device": "DEVICE_CPU", "threads": 1}}
    return json_format.ParseDict({**fields, "train_sae": task}, Experiment())


@pytest.fixture
def attempt(monkeypatch):
    """``attempt(folder, steps)``: runs the recipe; asks it to stop once it has done that many steps."""
    done = 0
    step = SaeTrainer.step

    def counted(trainer: SaeTrainer, acts: Tensor) -> None:
        nonlocal done
        step(trainer, acts)
        done += 1

    monkeypatch.setattr(SaeTrainer, "step", counted)

    def run(folder: RunFolder, steps: int | None = None) -> None:
        nonlocal done
        done = 0
        with Journal(folder.events) as journal:
            context = RunContext(folder, journal, lambda: steps is not None and done >= steps)
            try:
                train_sae.run(context)
            finally:
                context.close()

    return run


def weights(folder: RunFolder) -> dict[str, bytes]:
    (file,) = folder.path.glob("artifacts/sae/native/**/*.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}


@pytest.mark.slow
def test_stopped_before_the_first_step_and_later_it_ends_with_the_same_weights(experiment, attempt, tmp_path) -> None:
    whole = RunFolder.create(tmp_path / "runs", experiment, "whole")
    attempt(whole)
    filled = [event.progress for event in tail(whole.events) if event.progress.phase == "filling the buffer"]
    assert (filled[0].current, filled[-1].total) == (0, 256)
    broken = RunFolder.create(tmp_path / "runs", experiment, "broken")
    for steps, reached in ((0, 0), (2, 2), (0, 2), (3, 5)):
        with pytest.raises(RunStopped) as stopped:
            attempt(broken, steps)
        assert stopped.value.step == reached
    attempt(broken)
    assert weights(broken) == weights(whole)


@pytest.mark.parametrize(
    ("text", "reason", "field", "sentence"),
    [
        (None, "TEXT_NOT_FOUND", "train_sae.text.source", "none.txt: no text file found there"),
        (
            "A few words only, and no more.\n",
            "TEXT_EXHAUSTED",
            "train_sae.text.repeat",
            "usable tokens, but 384 are wanted",
        ),
    ],
)
def test_a_text_that_does_not_do_is_told(experiment, attempt, tmp_path, text, reason, field, sentence) -> None:
    source = tmp_path / "none.txt"
    if text is not None:
        source.write_text(text)
    experiment.train_sae.text.source = str(source)
    experiment.train_sae.text.repeat = False
    with pytest.raises(UserError) as caught:
        attempt(RunFolder.create(tmp_path / "runs", experiment, "refused"))
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.remedy
