"""One of two ranks that learn from rollouts together.

The folder holds ``spec.json``: arguments of :func:`~tests.posttraining.reinforced.reinforce`. Started by
test_rl_ranks.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from qscope.runs import RunStopped, Seat
from tests.posttraining.reinforced import KEPT, reinforce


def main(folder: Path) -> None:
    seat = Seat.of(os.environ)
    assert seat is not None
    spec = json.loads((folder / "spec.json").read_text())
    # One rank is asked to stop, and not the first.
    if seat.rank == 0:
        spec["stop_at"] = -1
    made = reinforce(Path(spec.pop("model")), folder / "run", rare=KEPT, ranks=seat.join("cpu"), **spec)
    try:
        step, stopped = made.trainer.train_run(), False
    except RunStopped as stopping:
        step, stopped = stopping.step, True
    result = {
        "step": step,
        "stopped": stopped,
        "series": {name: made.context.series(name) for name in ("reward", "entropy", "grad_norm", "tokens")},
        "rollouts": {
            f"{one.number} {group.asked.draw}": [member.rollout.ids for member in group.members]
            for one in made.made
            for group in one.groups
        },
        "wrapped": type(made.trainer.model_wrapped).__name__,
    }
    (folder / f"result-{seat.rank}.json").write_text(json.dumps(result))
