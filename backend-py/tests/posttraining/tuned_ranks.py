"""One of two ranks that train a tiny model together.

The folder holds ``spec.json``: the arguments of :func:`~tests.posttraining.tuned.tune`. Rank 0 leaves ``result.json``
and ``weights.safetensors`` there. Started by test_sft_ranks.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors.torch import save_file

from qscope.posttraining import trainer_state
from qscope.runs import RunStopped, Seat
from tests.posttraining.tuned import FULL, LORA, STILL_LORA, tune


def main(folder: Path) -> None:
    seat = Seat.of(os.environ)
    assert seat is not None
    spec = json.loads((folder / "spec.json").read_text())
    kind, adapters = spec.pop("kind"), LORA if spec.pop("dropout", False) else STILL_LORA
    trainable = adapters if spec.pop("lora") else FULL
    # One rank is asked to stop, and not the first.
    if seat.rank == 0:
        spec["stop_at"] = -1
    ranks = seat.join("cpu")
    tuned = tune(
        Path(spec.pop("model")),
        folder / "run",
        trainable=trainable,
        ranks=ranks,
        divided=kind == "fsdp2",
        **spec,
    )
    try:
        step, stopped = tuned.trainer.train_run(), False
    except RunStopped as stopping:
        step, stopped = stopping.step, True
    weights = trainer_state.model_tensors(tuned.trainer.model_wrapped)
    if ranks.is_first:
        named = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
        save_file(named, folder / "weights.safetensors")
    losses, norms = tuned.context.series("ce"), tuned.context.series("grad_norm")
    own = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in tuned.model.parameters())
    result = {
        "step": step,
        "stopped": stopped,
        "ce": losses,
        "grad_norm": norms,
        "tokens": tuned.context.series("tokens"),
        "wrapped": type(tuned.trainer.model_wrapped).__name__,
        "held": own / sum(p.numel() for p in tuned.model.parameters()),
        "said": tuned.context.said,
    }
    (folder / f"result-{seat.rank}.json").write_text(json.dumps(result))
