"""Activations of a few features equal those of the whole code, however they are looked up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.sae.topk import TopKSae, dense_codes
from qscope.steering.edit import activations


def integer_sae(d_in: int, d_sae: int, k: int, seed: int) -> TopKSae:
    """Small whole numbers: ties at the k-th place are the rule, not the exception."""
    generator = torch.Generator().manual_seed(seed)

    def whole(*shape: int) -> torch.Tensor:
        return torch.randint(-2, 3, shape, generator=generator).float()

    return TopKSae(whole(d_sae, d_in), whole(d_sae), whole(d_sae, d_in), whole(d_in), k=k)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), k=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_looked_up_activations_equal_the_code_with_all_its_ties(seed, count, k):
    sae = integer_sae(4, 12, k, seed)
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randint(-2, 3, (6, 4), generator=generator).float()
    features = torch.randperm(12, generator=generator)[:count]
    expected_NF = dense_codes(*sae.encode(x_ND), 12)
    assert torch.equal(activations(sae, x_ND, features), expected_NF[:, features])


@pytest.mark.parametrize("count", [1, 8, 9, 40])
def test_both_ways_agree_on_ordinary_numbers(count):
    generator = torch.Generator().manual_seed(1)
    sae = TopKSae(torch.randn(64, 16, generator=generator), torch.randn(64), torch.randn(64, 16), torch.zeros(16), k=8)
    x_ND = torch.randn(50, 16, generator=generator)
    features = torch.arange(count)
    expected_NF = dense_codes(*sae.encode(x_ND), 64)
    torch.testing.assert_close(activations(sae, x_ND, features), expected_NF[:, :count])
    assert (expected_NF[:, :count] > 0).any()


@given(seed=st.integers(0, 10_000), shift=st.floats(-6, 2), count=st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_features_that_seldom_fire_are_looked_up_the_same(seed, shift, count):
    # With low biases most tokens are left out of the ranking, as with a trained SAE; the rest are not changed by it.
    generator = torch.Generator().manual_seed(seed)
    W_FD = torch.randn(32, 8, generator=generator)
    bias_F = torch.randn(32, generator=generator) + shift
    sae = TopKSae(W_FD, bias_F, W_FD.clone(), torch.zeros(8), k=4)
    x_ND = torch.randn(20, 8, generator=generator)
    features = torch.randperm(32, generator=generator)[:count]
    expected_NF = dense_codes(*sae.encode(x_ND), 32)
    torch.testing.assert_close(activations(sae, x_ND, features), expected_NF[:, features])


def test_a_token_that_is_not_a_number_does_not_count_as_silent():
    sae = integer_sae(4, 12, 3, 0)
    x_ND = torch.tensor([[float("nan")] * 4, [0.0] * 4])
    assert activations(sae, x_ND, torch.tensor([0]))[0].isnan().all()
