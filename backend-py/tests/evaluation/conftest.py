"""Benchmarks made of random features."""

from __future__ import annotations

import numpy as np
import pytest

from qscope.features.footprints import Footprints


def random_benchmark(seed: int, items: int, pool: range, per_item: int) -> Footprints:
    noise = np.random.default_rng(seed)
    return Footprints.of([noise.choice(np.array(pool), per_item, replace=False) for _ in range(items)])


@pytest.fixture
def mixed() -> dict[str, Footprints]:
    """Three benchmarks from overlapping pools, and a fourth whose features are all in one of them."""
    suite = {f"b{n}": random_benchmark(n, 150, range(300 * n, 300 * n + 600), 8) for n in range(3)}
    return {**suite, "part": random_benchmark(9, 60, range(120), 8)}
