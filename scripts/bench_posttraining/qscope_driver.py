"""The recipe of `qscope sft` or `qscope rl`, run as the worker runs it: ``qscope_driver.py VERB EXPERIMENT RESULT``."""

from __future__ import annotations

import sys
import tempfile
from functools import wraps
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from measured import Clock
from qscope import execute
from qscope.posttraining.run_trainer import RunTrainer
from qscope.runs import RunFolder
from qscope.v1.experiment_pb2 import Experiment


def _timed(clock: Clock, owner: Any, method: str, name: str) -> None:
    inner = getattr(owner, method)

    @wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        with clock.part(name):
            return inner(*args, **kwargs)

    setattr(owner, method, outer)


def main(verb: str, experiment: str, result: str) -> None:
    """Runs the experiment and writes the result."""
    clock = Clock()
    if verb == "rl":
        from qscope.posttraining.rewards import Rewards
        from qscope.posttraining.rollouts import Sampler

        _timed(clock, Sampler, "__call__", "rollouts")
        _timed(clock, Rewards, "__call__", "grading")
    seen = []
    count = RunTrainer.count_tokens
    RunTrainer.count_tokens = lambda self, tokens: (
        seen.append(tokens),
        count(self, tokens),
    )[1]
    with tempfile.TemporaryDirectory() as folder:
        frozen = json_format.Parse(Path(experiment).read_text(), Experiment())
        run = RunFolder.create(Path(folder) / "runs", frozen, "bench")
        code = execute.main(str(run.path))
        if code:
            print((run.path / "events.jsonl").read_text()[-3000:], file=sys.stderr)
            sys.exit(code)
    clock.write(result, tokens=sum(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
