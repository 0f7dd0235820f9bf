"""A tiny Qwen3 in float64 that can be trained, random features of it, and rows of several languages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from torch import Tensor, nn

from qscope.models.architectures import Decoder
from qscope.posttraining.sae_loss import HeldFeatures
from tests.posttraining.tiny import Rows, held_at, make_model, make_rows


@dataclass(frozen=True)
class Trained:
    model: nn.Module
    decoder: Decoder

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}


@pytest.fixture
def trained() -> Trained:
    return Trained(*make_model())


@pytest.fixture
def rows() -> Rows:
    return make_rows()


@pytest.fixture
def held() -> Callable[..., HeldFeatures]:
    return held_at
