"""A cache of the tests' own, and SAEs small enough to convert in every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from qscope.sae import formats
from qscope.sae.topk import TopKSae


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all: groups are kept apart by the paths of their sources."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QSCOPE_CACHE", str(folder))
        yield folder


def _random_sae(d_in: int = 8, d_sae: int = 24, k: int = 3, layer: int = 0, seed: int = 0) -> TopKSae:
    generator = torch.Generator().manual_seed(1000 * layer + seed)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return TopKSae(values(d_sae, d_in), values(d_sae), values(d_sae, d_in), values(d_in), k=k, layer=layer)


@pytest.fixture(scope="session")
def random_sae() -> Callable[..., TopKSae]:
    """Makes an SAE of random float32 values."""
    return _random_sae


@pytest.fixture(scope="session")
def put() -> Callable[..., Path]:
    """``put(folder, layers=(0, 3), layout="native", recipe={}, **size)``: writes SAEs, returns their folder."""

    def write(folder: Path, layers=(0, 3), layout: str = "native", recipe: dict | None = None, **size: int) -> Path:
        saes = {layer: _random_sae(layer=layer, **size) for layer in layers}
        return formats.save(saes, folder, [layout], recipe or {})[0]

    return write
