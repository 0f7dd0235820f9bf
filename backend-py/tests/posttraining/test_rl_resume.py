"""A run of reinforcement learning that was killed at any step ends with the very weights of one that was not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qscope.posttraining.rl_step import StepSettings
from qscope.runs import RunStopped
from tests.posttraining.reinforced import KEPT, reinforce
from tests.posttraining.tuned import LORA, Killed

STEPS = 5

CASES: dict[str, dict[str, Any]] = {
    "rare negatives": {"rare": KEPT},
    # Updates 2, 3 and 5 learn from rollouts that were made before.
    "several updates": {"rare": KEPT, "iterations": 3},
    "dynamic sampling": {"settings": StepSettings(3, rounds=3)},
    "adapters": {"rare": KEPT, "trainable": LORA, "iterations": 2},
}


@pytest.fixture(scope="module", params=list(CASES))
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return CASES[request.param]


@pytest.fixture(scope="module")
def whole(options, tiny_folder, tmp_path_factory):
    made = reinforce(tiny_folder, tmp_path_factory.mktemp("whole"), steps=STEPS, checkpoint_every=2, **options)
    assert made.trainer.train_run() == STEPS
    return made


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_at_a_step_it_goes_on_from_the_checkpoint_before(step, options, whole, tiny_folder, tmp_path):
    with pytest.raises(Killed):
        reinforce(tiny_folder, tmp_path, steps=STEPS, checkpoint_every=2, kill_at=step, **options).trainer.train_run()
    # Noise of another process: what is resumed must not hang on it.
    torch.manual_seed(99)
    torch.rand(7)
    made = reinforce(tiny_folder, tmp_path, steps=STEPS, checkpoint_every=2, **options)
    assert made.trainer.train_run() == STEPS
    kept = (step - 1) // 2 * 2
    assert made.context.said == ([f"resumed at step {kept}"] if kept else [])
    assert made.weights() == whole.weights()
    assert made.trainer.extra_state()[1] == whole.trainer.extra_state()[1]
    for name in ("reward", "entropy", "loss", "grad_norm"):
        later = {at: value for at, value in whole.context.series(name).items() if at > kept}
        assert made.context.series(name) == later


def test_stopped_again_and_again_it_ends_with_the_same_weights(options, whole, tiny_folder, tmp_path):
    for at, reached in ((0, 0), (1, 1), (1, 2), (4, 4)):
        made = reinforce(tiny_folder, tmp_path, steps=STEPS, stop_at=at, **options)
        with pytest.raises(RunStopped) as stopped:
            made.trainer.train_run()
        assert stopped.value.step == reached
    made = reinforce(tiny_folder, tmp_path, steps=STEPS, **options)
    assert made.trainer.train_run() == STEPS
    assert made.weights() == whole.weights()


def test_training_changes_the_weights(whole, tiny_folder, tmp_path):
    untrained = reinforce(tiny_folder, tmp_path, trainable=whole.trainable).weights()
    assert any(part != untrained[name] for name, part in whole.weights().items())
