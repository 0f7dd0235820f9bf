from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.sae.settings import (
    aux_features_per_token,
    dead_after_tokens,
    feature_count,
    learning_rate_at,
    peak_learning_rate,
    step_count,
    warmup_steps,
)
from qscope.v1 import sae_pb2


def test_derived_numbers() -> None:
    assert feature_count(sae_pb2.SaeShape(expansion=16, k=32), 256) == 4096
    assert feature_count(sae_pb2.SaeShape(expansion=16, d_sae=100, k=32), 256) == 100
    assert peak_learning_rate(sae_pb2.SaeOptimizer(), 4 * 16384) == pytest.approx(1e-4)
    assert peak_learning_rate(sae_pb2.SaeOptimizer(learning_rate=3e-4), 16384) == 3e-4
    assert dead_after_tokens(sae_pb2.AuxK(), 5_000_000, 512) == 50_000
    assert dead_after_tokens(sae_pb2.AuxK(), 5_000_000, 4096) == 20 * 4096
    assert dead_after_tokens(sae_pb2.AuxK(), 10**12, 4096) == 10_000_000
    assert dead_after_tokens(sae_pb2.AuxK(dead_after_tokens=7), 10**12, 4096) == 7
    assert aux_features_per_token(sae_pb2.AuxK(), 256) == 128
    assert aux_features_per_token(sae_pb2.AuxK(k=9), 256) == 9
    assert step_count(sae_pb2.TrainSae(tokens=1001, batch_tokens=100)) == 11


def test_k_above_the_width_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        feature_count(sae_pb2.SaeShape(expansion=1, k=33), 32)
    assert caught.value.reason == "K_EXCEEDS_WIDTH"
    assert caught.value.field == "train_sae.sae.k"


def test_schedule_by_hand() -> None:
    optimizer = sae_pb2.SaeOptimizer(warmup_share=0.2, decay_share=0.4)
    rates = [learning_rate_at(step, 10, optimizer, 8.0) for step in range(12)]
    assert rates == [4.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 6.0, 4.0, 2.0, 0.0, 0.0]


@given(
    total=st.integers(1, 5000),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
)
def test_schedule_ends_at_the_last_step(total: int, warmup: float, decay: float) -> None:
    optimizer = sae_pb2.SaeOptimizer(warmup_share=warmup, decay_share=decay * (1 - warmup))
    rates = [learning_rate_at(step, total, optimizer, 1.0) for step in range(total)]
    assert all(0 < rate <= 1 for rate in rates)
    assert learning_rate_at(total, total, optimizer, 1.0) == 0.0
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_warmup_takes_a_thousand_steps_at_most() -> None:
    optimizer = sae_pb2.SaeOptimizer(warmup_share=0.5)
    assert warmup_steps(optimizer, 100_000) == 1000
    assert learning_rate_at(999, 100_000, optimizer, 1.0) == 1.0
    assert learning_rate_at(998, 100_000, optimizer, 1.0) < 1.0
