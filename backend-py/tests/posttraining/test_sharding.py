"""A divided model that is held whole: run from the inside too, and trained afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from qscope.models import load_model
from qscope.posttraining.sharding import divide, gathered, is_divided
from qscope.posttraining.trainable import prepare
from qscope.v1.model_pb2 import ModelOptions
from tests.posttraining.tuned import STILL_LORA

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")


@pytest.fixture
def one_rank(tmp_path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_adapters_train_after_rollouts_of_the_model_inside_them(one_rank, tiny_folder) -> None:
    ids_BT = torch.randint(3, 300, (2, 7), generator=torch.Generator().manual_seed(1))
    alone, loaded = (load_model(str(tiny_folder), ModelOptions()) for _ in range(2))
    expected, model = (prepare(one, STILL_LORA, seed=4, at="rl.trainable") for one in (alone, loaded))
    divide(model, loaded.decoder)
    assert is_divided(model)
    for _ in range(2):
        with gathered(model), torch.no_grad():
            assert torch.equal(loaded.model(ids_BT).logits, alone.model(ids_BT).logits)
        for one in (model, expected):
            one.zero_grad()
            one(input_ids=ids_BT, labels=ids_BT).loss.backward()
    theirs = {name: p.grad for name, p in expected.named_parameters() if p.grad is not None}
    ours = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    assert any(grad.abs().max() > 0 for grad in theirs.values())
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad)
