"""qscope: the recipe of `qscope train-sae`, run as the worker runs it, on the text itself."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from settings import Settings, read_settings, write_result

settings = read_settings()

from google.protobuf import json_format  # noqa: E402

from qscope import __version__, execute  # noqa: E402
from qscope.runs import RunFolder  # noqa: E402
from qscope.v1.experiment_pb2 import Experiment  # noqa: E402

_WARM_SHARE = 0.2


def experiment(settings: Settings) -> Experiment:
    """The frozen experiment; every field is given, as the command line would have filled it in."""
    text = {"source": settings.text, "field": "text", "split": "train", "context": settings.context}
    optimizer = {
        "learning_rate": settings.learning_rate,
        "warmup_share": settings.warmup_steps / settings.steps,
        "decay_share": settings.decay_steps / settings.steps,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 6.25e-10,
        "clip_norm": 1.0,
    }
    train_sae = {
        "text": {**text, "pack": True, "repeat": True},
        "layers": settings.layers,
        "sae": {"expansion": 1, "d_sae": settings.d_sae, "k": settings.k},
        "tokens": settings.tokens_in_all,
        "batch_tokens": settings.batch_tokens,
        "aux_k": {
            "coefficient": settings.aux_k,
            "dead_after_tokens": settings.dead_after_tokens,
            "token_share": 0.125,
        },
        "optimizer": optimizer,
        "filter": {"drop_first_token": True, "max_norm_ratio": 10},
        "buffer": {"tokens": settings.buffer_tokens, "model_batch_tokens": settings.model_batch_tokens},
        "checkpoint": {"every_steps": 0, "keep": 1},
        "metrics": {"every_steps": max(1, settings.steps // 50)},
        "formats": ["SAE_FORMAT_NATIVE"],
        "kernel": "SAE_KERNEL_AUTO",
    }
    return json_format.ParseDict(
        {
            "name": "bench",
            "seed": settings.seed,
            "model": settings.model,
            "model_options": {"precision": "PRECISION_FLOAT32", "offline": True},
            "compute": {"device": "DEVICE_CPU", "threads": settings.threads},
            "train_sae": train_sae,
        },
        Experiment(),
    )


def steady_seconds(events: Path, settings: Settings) -> float:
    """Time of the whole training at the rate between the metrics after its first fifth and the last ones."""
    marks = []
    for line in events.read_text().splitlines():
        event = json.loads(line)
        if "metrics" in event:
            step = int(event["metrics"]["entries"][0]["step"])
            marks.append((step, datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()))
    warm = [mark for mark in marks if mark[0] >= settings.steps * _WARM_SHARE]
    if len(warm) < 2:
        raise SystemExit("bench-peers: too few steps to time; raise --steps.")
    (first, start), (last, end) = warm[0], warm[-1]
    return (end - start) / (last - first) * settings.steps


output = Path(settings.output)
run = RunFolder.create(output / "runs", experiment(settings), "bench")
code = execute.main(str(run.path))
if code != 0:
    sys.exit(code)
(output / "saes").symlink_to(run.artifacts / "sae" / "native")

import torch  # noqa: E402

write_result(
    settings,
    steady_seconds=steady_seconds(run.events, settings),
    versions={"qscope": __version__, "torch": torch.__version__},
    notes={"first token": "left out", "norm filter": "10 x median", "tokenising": "part of the run"},
)
