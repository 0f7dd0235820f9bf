"""Two gloo ranks learn as one process does: the same rollouts, whoever writes them, and the same gradient of all.

Products of fewer rows round otherwise, and the trainer's output layer is float32, so numbers are close and not equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.posttraining.rank_pair import RANKS, together
from tests.posttraining.reinforced import KEPT, reinforce

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
]
STEPS = 4
SHARED = {"steps": STEPS, "prompts": 4, "iterations": 2, "micro_rows": 4, "learning_rate": 1e-4, "double": True}


def train(folder: Path, **spec: Any) -> list[dict[str, Any]]:
    """What two ranks say of a training in ``folder``, which may hold the checkpoints of an earlier one."""
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_text(json.dumps({**SHARED, "stop_at": -1, **spec}))
    together("tests.posttraining.reinforced_ranks", folder)
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("divided", [False, True], ids=["ddp", "fsdp2"])
def test_two_ranks_ask_the_same_prompts_and_learn_as_one_process(divided, tiny_folder, tmp_path) -> None:
    one = reinforce(tiny_folder, tmp_path / "one", rare=KEPT, **SHARED)
    assert one.trainer.train_run() == STEPS
    alone = {
        f"{made.number} {group.asked.draw}": [list(member.rollout.ids) for member in group.members]
        for made in one.made
        for group in made.groups
    }
    # Rollouts are made before steps 1 and 3: stopped between two updates on the same ones.
    spec = {"model": str(tiny_folder), "divided": divided}
    stopped = train(tmp_path / "two", **spec, stop_at=1)
    assert [(rank["step"], rank["stopped"]) for rank in stopped] == [(1, True)] * RANKS, "one rank was asked"
    ended = train(tmp_path / "two", **spec)
    assert [(rank["step"], rank["stopped"]) for rank in ended] == [(STEPS, False)] * RANKS
    assert {rank["wrapped"] for rank in ended} == {"FSDPQwen3ForCausalLM" if divided else "DistributedDataParallel"}

    written = [rank["rollouts"] for rank in (*stopped, *ended)]
    assert [len(rows) for rows in written] == [2, 2, 2, 2]
    assert {name: rows for part in written for name, rows in part.items()} == alone
    for name in ("reward", "entropy", "grad_norm", "tokens"):
        # Every number that is logged is of both ranks, and told by both alike.
        seen = {**stopped[0]["series"][name], **ended[0]["series"][name]}
        assert seen == {**stopped[1]["series"][name], **ended[1]["series"][name]}
        assert seen == pytest.approx({str(s): v for s, v in one.context.series(name).items()}, rel=1e-4), name
