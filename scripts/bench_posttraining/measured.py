"""What a driver writes down: the time of its steps, where it went, and its peak memory."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook

_WARM_SHARE = 0.2


class Clock:
    """When every optimiser step ended, and how long named parts between two of them took."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._parts: list[dict[str, float]] = [{}]
        register_optimizer_step_post_hook(self._step)

    def _step(self, *_: object) -> None:
        self._ends.append(time.perf_counter())
        self._parts.append({})

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds what runs inside to a part of the step under way."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._parts[-1][name] = self._parts[-1].get(name, 0.0) + time.perf_counter() - begun

    def write(self, path: str, *, tokens: int) -> None:
        """The steps after the first fifth.

        Args:
            path: of the result.
            tokens: that all steps together read, padding left out.
        """
        first = max(1, int(len(self._ends) * _WARM_SHARE))
        seconds = [end - before for before, end in zip(self._ends[first - 1 :], self._ends[first:], strict=False)]
        if len(seconds) < 2:
            sys.exit(f"{len(self._ends)} steps are too few to time; raise --steps")
        parts = self._parts[first : len(self._ends)]
        names = sorted({name for part in parts for name in part})
        shares = {
            name: statistics.fmean(part.get(name, 0.0) / whole for part, whole in zip(parts, seconds, strict=True))
            for name in names
        }
        result = {
            "seconds": seconds,
            "parts": {**shares, "rest": 1 - sum(shares.values())},
            "tokens": tokens * len(seconds) / len(self._ends),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **{name: version(name) for name in ("trl", "transformers", "torch")},
        }
        Path(path).write_text(json.dumps(result))
