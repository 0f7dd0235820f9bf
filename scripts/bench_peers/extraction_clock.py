"""Settings and timing that every tool of bench-extraction shares; imports nothing but numpy until it is asked to."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def read_settings() -> dict[str, Any]:
    """The settings this process was started with."""
    return json.loads(Path(sys.argv[1]).read_text())


def token_ids(settings: Mapping[str, Any]) -> np.ndarray:
    """Token ids [B, T] of a pass."""
    return np.load(Path(settings["folder"]) / "ids.npy")


def measure(
    settings: Mapping[str, Any],
    version: str,
    bare: Callable[[], object],
    codes: Callable[[], object],
    dense: Callable[[], Mapping[int, np.ndarray]],
) -> None:
    """Times bare and extracting passes in turn, and writes times and the dense codes by layer."""
    np.savez(
        settings["codes"],
        **{f"layer{layer}": values for layer, values in dense().items()},
    )
    arms = {"bare": bare, "codes": codes}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(settings["passes"] + 1):
        for name in random.Random(turn).sample(list(arms), len(arms)):
            began = time.perf_counter()
            arms[name]()
            if turn:
                times[name].append(time.perf_counter() - began)
    Path(settings["output"]).write_text(json.dumps({"version": version, **times}))
