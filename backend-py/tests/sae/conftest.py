"""Small SAEs, small experiments and data with a known sparse structure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qscope.sae.topk import TopKSae, initialise
from qscope.v1 import sae_pb2


def _config(**changes: object) -> sae_pb2.TrainSae:
    config = sae_pb2.TrainSae(
        tokens=64 * 40,
        batch_tokens=64,
        sae={"d_sae": 96, "k": 6},
        aux_k={"coefficient": 1 / 32, "token_share": 0.5, "dead_after_tokens": 256},
        optimizer={
            "learning_rate": 3e-3,
            "warmup_share": 0.05,
            "decay_share": 0.2,
            "beta1": 0.9,
            "beta2": 0.999,
            "epsilon": 6.25e-10,
            "clip_norm": 1.0,
        },
        kernel=sae_pb2.SAE_KERNEL_SPARSE,
    )
    config.MergeFrom(sae_pb2.TrainSae(**changes))
    return config


@pytest.fixture
def make_config() -> Callable[..., sae_pb2.TrainSae]:
    """An experiment of 40 steps of 64 tokens with every default filled in; arguments change fields."""
    return _config


@pytest.fixture
def make_batches() -> Callable[..., list[Tensor]]:
    """Batches of sums of a few fixed directions, with a mean far from zero."""

    def batches(count: int, rows: int = 64, d_in: int = 24, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        directions_ND = torch.randn(80, d_in, generator=generator)
        made = []
        for _ in range(count):
            strengths_BN = torch.rand(rows, 80, generator=generator)
            active_BN = torch.rand(rows, 80, generator=generator) < 0.05
            made.append((strengths_BN * active_BN) @ directions_ND * 3 + 5)
        return made

    return batches


@pytest.fixture
def make_sae() -> Callable[..., TopKSae]:
    """An SAE whose four tensors are all random, so that no term can hide behind a zero."""

    def sae(d_in: int = 24, d_sae: int = 96, k: int = 6, dtype: torch.dtype = torch.float64, seed: int = 0) -> TopKSae:
        generator = torch.Generator().manual_seed(seed)
        made = initialise(d_in, d_sae, k, torch.randn(16, d_in, generator=generator), generator, dtype=dtype)
        made.b_enc_F += 0.3 * torch.randn(d_sae, generator=generator, dtype=dtype)
        made.W_enc_FD += 0.1 * torch.randn(d_sae, d_in, generator=generator, dtype=dtype)
        return made

    return sae
