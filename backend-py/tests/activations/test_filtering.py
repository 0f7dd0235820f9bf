"""The activation filter: golden masks, the union over layers, the running median."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.data import TokenBatch
from qscope.sae.filtering import RunningMedian, TokenFilter
from qscope.v1.sae_pb2 import ActivationFilter

CPU = torch.device("cpu")


def batch_of(mask) -> TokenBatch:
    mask_BT = torch.tensor(mask, dtype=torch.bool)
    first_BT = torch.zeros_like(mask_BT)
    first_BT[:, 0] = True
    return TokenBatch(torch.ones_like(mask_BT, dtype=torch.long), mask_BT, first_BT)


def with_norms(norms) -> torch.Tensor:
    """Residuals [B, T, 3] of the given norms."""
    norms_BT = torch.tensor(norms, dtype=torch.float32)
    direction = torch.nn.functional.normalize(torch.randn(*norms_BT.shape, 3), dim=-1)
    return direction * norms_BT[..., None]


def test_padding_first_tokens_and_outliers_of_any_layer_are_dropped_and_counted():
    batch = batch_of([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    layer_3 = with_norms([[900.0, 1, 1, 50, 1], [900, 1, 1, 1e9, 1e9]])
    layer_7 = with_norms([[1.0, 2, 2, 60, 30], [2, 2, 2, 2, 2]])
    token_filter = TokenFilter(ActivationFilter(drop_first_token=True, max_norm_ratio=10), [3, 7], CPU)
    assert token_filter.keep([layer_3, layer_7], batch).tolist() == [1, 2, 6, 7]
    stats = token_filter.stats()
    assert {name: stats[name] for name in ("tokens_read", "tokens_kept", "padding", "dropped")} == {
        "tokens_read": 8,
        "tokens_kept": 4,
        "padding": 2,
        "dropped": {"first_token": 2, "any_layer": 2},
    }
    assert {layer: facts["outlier"] for layer, facts in stats["layers"].items()} == {3: 1, 7: 2}
    assert stats["layers"][3]["median_norm"] == pytest.approx(1, rel=0.05)
    assert stats["layers"][7]["median_norm"] == pytest.approx(2, rel=0.05)


def test_a_filter_switched_off_drops_only_padding_and_what_is_no_number():
    batch = batch_of([[1, 1, 1, 1, 0]])
    resid_BTD = with_norms([[1.0, 1000, 1, 1, 1]])
    resid_BTD[0, 2, 1] = float("nan")
    resid_BTD[0, 3, 1] = float("inf")
    token_filter = TokenFilter(ActivationFilter(), [0], CPU)
    assert token_filter.keep([resid_BTD], batch).tolist() == [0, 1]
    assert token_filter.stats()["layers"][0] == {
        "median_norm": pytest.approx(1, rel=0.05),
        "outlier": 0,
        "not_finite": 2,
    }


def test_a_zero_vector_is_a_token_like_any_other():
    token_filter = TokenFilter(ActivationFilter(max_norm_ratio=10), [0], CPU)
    assert token_filter.keep([with_norms([[0.0, 1, 1]])], batch_of([[1, 1, 1]])).tolist() == [0, 1, 2]


def test_the_median_runs_over_all_batches_not_the_last():
    token_filter = TokenFilter(ActivationFilter(max_norm_ratio=10), [0], CPU)
    for _ in range(5):
        token_filter.keep([with_norms([[1.0] * 20])], batch_of([[1] * 20]))
    assert len(token_filter.keep([with_norms([[50.0] * 20])], batch_of([[1] * 20]))) == 0


@settings(max_examples=60, deadline=None)
@given(
    norms=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=80),
    cuts=st.integers(1, 5),
)
def test_the_running_median_is_the_median_of_all_to_five_percent(norms, cuts):
    norms_N = torch.tensor(norms)
    running = RunningMedian(1, CPU)
    for part in norms_N.chunk(cuts):
        running.update(part[None], torch.ones(1, len(part), dtype=torch.bool))
    assert running.value_L().item() == pytest.approx(norms_N.median().item(), rel=0.05)


def test_uncounted_norms_may_be_anything():
    running = RunningMedian(1, CPU)
    norms_LN = torch.tensor([[float("nan"), float("inf"), 0.0, 4.0]])
    running.update(norms_LN, torch.tensor([[False, False, False, True]]))
    assert running.counts_LH.sum() == 1
    assert running.value_L().item() == pytest.approx(4, rel=0.05)
