"""A run that was killed at any step ends with the very weights of one that was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qscope.errors import UserError
from qscope.runs import RunStopped
from qscope.v1.posttraining_pb2 import TRAIN_METHOD_FULL, Trainable
from tests.posttraining.tuned import FULL, LORA, Killed, examples, tune

#: 10 rows, 4 a step, 2 passes: passes end in the middle of steps 3 and 5.
STEPS = 5


@pytest.fixture(scope="module", params=["full", "lora", "layers"])
def trainable(request: pytest.FixtureRequest) -> Trainable:
    some = Trainable(method=TRAIN_METHOD_FULL, layers=[1, 3])
    return {"full": FULL, "lora": LORA, "layers": some}[request.param]


@pytest.fixture(scope="module")
def whole(trainable, tiny_folder, tmp_path_factory) -> dict[str, bytes]:
    """The weights of a run that nothing happened to."""
    tuned = tune(tiny_folder, tmp_path_factory.mktemp("whole"), trainable=trainable, checkpoint_every=2)
    assert tuned.trainer.train_run() == STEPS
    return tuned.weights()


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_at_a_step_it_goes_on_from_the_checkpoint_before(
    step: int, trainable, whole, tiny_folder, tmp_path
) -> None:
    with pytest.raises(Killed):
        tune(tiny_folder, tmp_path, trainable=trainable, checkpoint_every=2, kill_at=step).trainer.train_run()
    # Noise of another process: what is resumed must not hang on it.
    torch.manual_seed(99)
    torch.rand(7)
    tuned = tune(tiny_folder, tmp_path, trainable=trainable, checkpoint_every=2)
    assert tuned.trainer.train_run() == STEPS
    kept = (step - 1) // 2 * 2
    assert tuned.context.said == ([f"resumed at step {kept}"] if kept else [])
    assert tuned.weights() == whole


def test_stopped_again_and_again_it_ends_with_the_same_weights(trainable, whole, tiny_folder, tmp_path) -> None:
    for at, reached in ((0, 0), (1, 1), (1, 2), (4, 4)):
        tuned = tune(tiny_folder, tmp_path, trainable=trainable, stop_at=at)
        with pytest.raises(RunStopped) as stopped:
            tuned.trainer.train_run()
        assert stopped.value.step == reached
    assert tune(tiny_folder, tmp_path, trainable=trainable).trainer.train_run() == STEPS
    # Killed behind its last step, nothing is left to train.
    again = tune(tiny_folder, tmp_path, trainable=trainable)
    assert again.trainer.train_run() == STEPS
    assert again.weights() == whole
    assert again.context.metrics_seen == []


def test_a_checkpoint_holds_what_is_trained_and_no_pickle(trainable, tiny_folder, tmp_path) -> None:
    tuned = tune(tiny_folder, tmp_path, trainable=trainable, checkpoint_every=2, kill_at=3)
    with pytest.raises(Killed):
        tuned.trainer.train_run()
    [folder] = (tmp_path / "checkpoints").iterdir()
    assert {path.name for path in folder.iterdir()} == {"tensors.safetensors", "state.json", "manifest.json"}
    tensors = load_file(folder / "tensors.safetensors")
    trained = {name for name, p in tuned.model.named_parameters() if p.requires_grad}
    assert {name.removeprefix("model.") for name in tensors if name.startswith("model.")} == trained
    moments = {name.split(".", 2)[2] for name in tensors if name.startswith("optimizer.exp_avg.")}
    assert moments == trained
    state = json.loads((folder / "state.json").read_text())
    assert state["trainer"]["global_step"] == 2
    assert state["trainer"]["log_history"] == []
    # Nothing else was written.
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints"}


def test_what_was_trained_before_and_the_data_must_be_the_same(tiny_folder, tmp_path) -> None:
    with pytest.raises(RunStopped):
        tune(tiny_folder, tmp_path, trainable=LORA, stop_at=1, facts={"data": "a"}).trainer.train_run()
    with pytest.raises(UserError, match="The data is another") as error:
        tune(tiny_folder, tmp_path, trainable=LORA, facts={"data": "b"}).trainer.train_run()
    assert error.value.reason == "CHECKPOINT_MISMATCH"
    with pytest.raises(UserError, match="which is trained now") as error:
        tune(tiny_folder, tmp_path, facts={"data": "a"}).trainer.train_run()
    assert error.value.reason == "CHECKPOINT_MISMATCH"


def test_rows_come_in_the_order_of_the_seed_for_any_batch(tiny_folder, tmp_path) -> None:
    def read(folder: Path, batch: int, accumulate: int) -> list[list[tuple[int, ...]]]:
        tuned = tune(tiny_folder, folder, batch=batch, accumulate=accumulate)
        seen = []
        for part in tuned.trainer.get_train_dataloader():
            sizes = part["attention_mask"].sum(1).tolist()
            seen += [tuple(row[:size].tolist()) for row, size in zip(part["input_ids"], sizes, strict=True)]
        per_step = batch * accumulate
        return [sorted(seen[at : at + per_step]) for at in range(0, len(seen), per_step)]

    steps = read(tmp_path / "a", 4, 1)
    assert steps == read(tmp_path / "b", 1, 4)
    assert len(steps) == STEPS
    ids = sorted(row.ids for row in examples())
    flat = [row for step in steps for row in step]
    assert all(flat.count(row) == 2 for row in ids)
