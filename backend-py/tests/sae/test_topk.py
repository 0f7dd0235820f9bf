from __future__ import annotations

import pytest
import torch

from qscope.sae.select import by_blocks, by_repair, by_sorting
from qscope.sae.topk import dense_codes, fit_encoder, geometric_median, initialise, reference_loss

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


def _as_dense(values_BK, indices_BK, F):
    assert all(len(set(row)) == len(row) for row in indices_BK.tolist()), "an index was kept twice"
    return dense_codes(values_BK, indices_BK, F)


@pytest.mark.parametrize("select", [by_repair, by_blocks])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_selection_equals_a_stable_sort(select, data) -> None:
    F = data.draw(st.integers(8, 90))
    k = data.draw(st.integers(1, F // 4))
    # Few distinct values: ties inside, at and below the border, and rows with fewer than k positive scores.
    levels = data.draw(st.integers(1, 6))
    rows = data.draw(st.lists(st.lists(st.integers(-3, levels), min_size=F, max_size=F), min_size=1, max_size=4))
    u_BF = torch.tensor(rows, dtype=torch.float32) / 4
    wanted = _as_dense(*by_sorting(u_BF, k), F)
    assert torch.equal(_as_dense(*select(u_BF, k), F), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_selection_at_a_real_width(dtype) -> None:
    u_BF = torch.randn(32, 4096, generator=torch.Generator().manual_seed(0)).to(dtype)
    wanted = by_sorting(u_BF, 50)
    found = by_repair(u_BF, 50)
    assert torch.equal(dense_codes(*found, 4096), dense_codes(*wanted, 4096))
    if dtype != torch.float64:
        assert torch.equal(dense_codes(*by_blocks(u_BF, 50), 4096), dense_codes(*wanted, 4096))


def test_selection_may_keep_everything() -> None:
    u_BF = torch.tensor([[3.0, -1.0, 2.0]])
    values_BK, indices_BK = by_repair(u_BF, 3)
    assert values_BK.tolist() == [[3.0, 2.0, 0.0]]
    assert indices_BK.tolist() == [[0, 2, 1]]


def test_codes_by_hand(make_sae) -> None:
    sae = make_sae(d_in=2, d_sae=4, k=2)
    sae.W_enc_FD.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]]))
    sae.b_enc_F.copy_(torch.tensor([0.0, 0.5, 0.0, -10.0]))
    sae.W_dec_FD.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 1.0]]))
    sae.b_dec_D.copy_(torch.tensor([10.0, 20.0]))
    x_BD = torch.tensor([[2.0, 3.0], [-1.0, -1.0]], dtype=torch.float64)
    values_BK, indices_BK = sae.encode(x_BD)
    # The second token has one positive pre-activation only: the other slot is worth zero.
    assert values_BK.tolist() == [[3.5, 2.0], [1.0, 0.0]]
    assert indices_BK[0].tolist() == [1, 0]
    assert indices_BK[1, 0] == 2
    expected_BD = torch.tensor([[12.0, 23.5], [10.6, 20.8]], dtype=torch.float64)
    torch.testing.assert_close(sae.decode(values_BK, indices_BK), expected_BD)


def test_encoding_in_parts_changes_nothing(make_sae, monkeypatch) -> None:
    sae = make_sae()
    x_BD = torch.randn(50, 24, dtype=torch.float64)
    whole = sae.encode(x_BD)
    monkeypatch.setattr("qscope.sae.topk._SCORES_AT_ONCE", 7 * sae.d_sae)
    torch.testing.assert_close(sae.encode(x_BD), whole, rtol=0, atol=1e-12)


def test_reference_gradient_is_zero_off_the_support(make_sae) -> None:
    sae = make_sae()
    x_BD = torch.randn(3, 24, dtype=torch.float64)
    sae.W_enc_FD.requires_grad_()
    sae.W_dec_FD.requires_grad_()
    loss, _ = reference_loss(sae, x_BD, 1.0)
    loss.backward()
    values_BK, indices_BK = sae.encode(x_BD.detach())
    hit = set(indices_BK[values_BK > 0].tolist())
    for gradient_FD in (sae.W_enc_FD.grad, sae.W_dec_FD.grad):
        assert {f for f in range(sae.d_sae) if gradient_FD[f].any()} == hit


def test_initialise_folds_the_pre_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    sample_BD = torch.randn(200, 16, generator=generator) + 7
    sae = initialise(16, 64, 4, sample_BD, generator, layer=3, dtype=torch.float64)
    assert sae.layer == 3
    torch.testing.assert_close(sae.W_dec_FD.norm(dim=1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(sae.W_enc_FD, sae.W_dec_FD)
    x_BD = sample_BD[:5].double()
    torch.testing.assert_close(sae.pre_activations(x_BD), (x_BD - sae.b_dec_D) @ sae.W_enc_FD.t())


def test_the_encoder_starts_at_the_scale_of_least_error() -> None:
    generator = torch.Generator().manual_seed(0)
    x_BD = torch.randn(500, 16, generator=generator, dtype=torch.float64) + 3
    sae = initialise(16, 256, 12, x_BD, generator, dtype=torch.float64)
    before = sae.encode(x_BD)
    errors = {}
    for factor in (0.99, 1.0, 1.01):
        one = initialise(16, 256, 12, x_BD, torch.Generator().manual_seed(1), dtype=torch.float64)
        fitted = fit_encoder(one, x_BD)
        assert 0 < fitted < 0.6, "twelve of 256 directions in 16 dimensions reconstruct far too much"
        one.W_enc_FD.mul_(factor)
        one.b_enc_F.mul_(factor)
        errors[factor] = (one.decode(*one.encode(x_BD)) - x_BD).square().sum().item()
    assert errors[1.0] < min(errors[0.99], errors[1.01])
    assert errors[1.0] < (x_BD - x_BD.mean(0)).square().sum()
    fitted = fit_encoder(sae, x_BD)
    after = sae.encode(x_BD)
    assert torch.equal(after[1], before[1])
    torch.testing.assert_close(after[0], fitted * before[0])


def test_a_sample_without_codes_leaves_the_encoder_alone(make_sae) -> None:
    sae = make_sae(d_in=4, d_sae=8, k=2)
    sae.b_enc_F.fill_(-100)
    before = sae.W_enc_FD.clone()
    assert fit_encoder(sae, torch.randn(5, 4, dtype=sae.W_enc_FD.dtype)) == 1.0
    assert torch.equal(sae.W_enc_FD, before)


def test_geometric_median_ignores_an_outlier() -> None:
    sample_BD = torch.randn(501, 8, generator=torch.Generator().manual_seed(0)) + 2
    sample_BD[0] = 1e5
    assert (geometric_median(sample_BD) - 2).norm() < 0.5
    assert (sample_BD.mean(0) - 2).norm() > 100
