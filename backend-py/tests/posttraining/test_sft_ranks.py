"""Two gloo ranks train as one process does: the same losses and weights, stopped and gone on with in the middle.

The rows of a step are the same, two micro-batches of one process or one of each of two ranks. Replicated ranks (DDP)
are equal to the last bit: a rank's loss is twice as large and gradients are averaged, and factors of two are exact.
Divided ones (FSDP2) add the squares of a gradient's norm in another order: in float64 the last bits differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qscope.runs import RunStopped
from tests.posttraining.rank_pair import RANKS, together
from tests.posttraining.tuned import FULL, LORA, STILL_LORA, tune

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
]
STEPS = 5


def train(folder: Path, **spec: Any) -> list[dict[str, Any]]:
    """What two ranks say of a training in ``folder``, which may hold the checkpoints of an earlier one."""
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_text(json.dumps({"batch": 2, "accumulate": 1, "exact": True, "stop_at": -1, **spec}))
    together("tests.posttraining.tuned_ranks", folder)
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as a rank has: sums in another order differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("kind", "trainable"), [("ddp", "full"), ("fsdp2", "full"), ("fsdp2", "lora")])
def test_two_ranks_stopped_and_gone_on_with_end_as_one_process(kind, trainable, tiny_folder, tmp_path) -> None:
    given = FULL if trainable == "full" else STILL_LORA
    one = tune(tiny_folder, tmp_path / "one", trainable=given, exact=True, keep=9, checkpoint_every=2)
    assert one.trainer.train_run() == STEPS

    two = tmp_path / "two"
    spec = {"model": str(tiny_folder), "kind": kind, "lora": trainable == "lora"}
    stopped = train(two, **spec, stop_at=2)
    assert [(rank["step"], rank["stopped"]) for rank in stopped] == [(2, True)] * RANKS, "one rank was asked"
    # Whole, by the names of one process: whatever the ranks held.
    tensors, alone = (
        load_file(folder / "checkpoints" / "step-000000002" / "tensors.safetensors")
        for folder in (two / "run", tmp_path / "one")
    )
    noise = {name for name in tensors if name.startswith("random.1.")}
    assert noise
    assert set(tensors) - noise == set(alone)
    close = {"rtol": 0, "atol": 0 if kind == "ddp" else 1e-13}
    for name in set(alone) - {name for name in alone if name.startswith("random.")}:
        torch.testing.assert_close(tensors[name], alone[name], **close)

    ended = train(two, **spec)
    assert [(rank["step"], rank["stopped"]) for rank in ended] == [(STEPS, False)] * RANKS
    assert [rank["held"] for rank in ended] == [0.5 if kind == "fsdp2" else 1.0] * RANKS
    # Every number that is logged is of both ranks, and told by both alike.
    seen = {name: {**stopped[0][name], **ended[0][name]} for name in ("ce", "grad_norm", "tokens")}
    assert seen == {name: {**stopped[1][name], **ended[1][name]} for name in seen}
    for name, values in seen.items():
        expected = {str(step): value for step, value in one.context.series(name).items()}
        assert values == (expected if kind == "ddp" else pytest.approx(expected, rel=1e-12)), name
    weights = load_file(two / "weights.safetensors")
    trained = {name: p.detach() for name, p in one.model.named_parameters() if p.requires_grad}
    assert set(weights) == set(trained)
    for name, weight in trained.items():
        torch.testing.assert_close(weights[name], weight, **close)


def test_noise_of_each_rank_goes_on_where_it_was(tiny_folder, tmp_path) -> None:
    spec = {"model": str(tiny_folder), "kind": "ddp", "lora": True, "dropout": True, "exact": False}
    train(tmp_path / "calm", **spec)
    train(tmp_path / "stopped", **spec, stop_at=3)
    ended = train(tmp_path / "stopped", **spec)
    assert ended[0]["said"] == ["resumed at step 3"]
    ours, calm = (load_file(tmp_path / name / "weights.safetensors") for name in ("stopped", "calm"))
    assert all(torch.equal(ours[name], calm[name]) for name in calm)


def test_a_checkpoint_of_another_number_of_ranks_is_refused(tiny_folder, tmp_path) -> None:
    with pytest.raises(RunStopped):
        tune(tiny_folder, tmp_path / "run", trainable=LORA, stop_at=1).trainer.train_run()
    with pytest.raises(AssertionError, match="written by 1 processes, and this run has 2"):
        train(tmp_path, model=str(tiny_folder), kind="ddp", lora=True, dropout=True, exact=False)
