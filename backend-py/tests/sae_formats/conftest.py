"""SAEs small enough to write in every test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from qscope.sae.topk import TopKSae


def _random_sae(d_in: int = 8, d_sae: int = 24, k: int = 3, layer: int = 0, seed: int = 0) -> TopKSae:
    generator = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return TopKSae(values(d_sae, d_in), values(d_sae), values(d_sae, d_in), values(d_in), k=k, layer=layer)


def _assert_equal(left: TopKSae, right: TopKSae) -> None:
    assert (left.k, left.layer) == (right.k, right.layer)
    for name, tensor in left.tensors().items():
        assert tensor.is_contiguous()
        assert tensor.dtype == torch.float32
        # As integers: torch.equal takes 0.0 and -0.0 for the same.
        assert torch.equal(tensor.view(torch.int32), right.tensors()[name].contiguous().view(torch.int32)), name


@pytest.fixture(scope="session")
def random_sae() -> Callable[..., TopKSae]:
    """Makes an SAE of random float32 values."""
    return _random_sae


@pytest.fixture(scope="session")
def assert_equal() -> Callable[[TopKSae, TopKSae], None]:
    """Compares two SAEs bit for bit; the left one must be plain memory."""
    return _assert_equal


@pytest.fixture(scope="session")
def recipe() -> dict:
    """A recipe as training hands it over."""
    return {"experiment": {"model": "embedded", "seed": 7}, "metrics": {"3": {"fvu": 0.25}}}
