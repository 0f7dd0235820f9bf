"""When the optimiser steps of a peer happened: one hook that every torch optimiser calls, whoever owns the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch.optim.optimizer import register_optimizer_step_post_hook

_WARM_SHARE = 0.2


class StepClock:
    """Collects the time of every optimiser step; loops over several layers are one segment each."""

    def __init__(self) -> None:
        self._segments: list[list[float]] = []
        register_optimizer_step_post_hook(lambda *_: self._segments[-1].append(time.perf_counter()))

    @contextmanager
    def segment(self) -> Iterator[None]:
        """Times one training loop."""
        self._segments.append([])
        yield

    def steady_seconds(self) -> float:
        """Time all loops would have taken at the rate after their first fifth: caches, buffers and allocators warm."""
        return sum(_steady(times) for times in self._segments)


def _steady(times: list[float]) -> float:
    first = int(len(times) * _WARM_SHARE)
    if len(times) - first < 2:
        raise SystemExit(f"bench-peers: {len(times)} optimiser steps are too few to time; raise --steps.")
    return (times[-1] - times[first]) / (len(times) - 1 - first) * len(times)
