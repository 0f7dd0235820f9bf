from __future__ import annotations

import pytest
import torch

from qscope.sae.auxk import add_aux_gradients, aux_loss_reference
from qscope.sae.kernels import Gradients
from qscope.sae.topk import TopKSae


def _aux(sae, x_BD, dead_N, k_aux, still=None, coefficient=0.25):
    out = Gradients.like(sae)
    still = torch.ones(len(dead_N), dtype=torch.bool) if still is None else still
    residual_BD = sae.reconstruct(x_BD) - x_BD
    loss = add_aux_gradients(
        sae, x_BD, residual_BD, torch.tensor(dead_N), still, k_aux=k_aux, coefficient=coefficient, out=out
    )
    return loss, out


@pytest.mark.parametrize("k_aux", [1, 5, 12, 100])
def test_loss_and_gradient_equal_the_definition(k_aux, make_sae) -> None:
    sae = make_sae()
    x_BD = torch.randn(30, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 1
    dead_N = [1, 4, 5, 17, 30, 31, 32, 60, 61, 70, 88, 95]
    dead_F = torch.zeros(96, dtype=torch.bool)
    dead_F[dead_N] = True
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in sae.tensors().items()}
    wanted = aux_loss_reference(TopKSae(**leaves, k=6), x_BD, sae.reconstruct(x_BD), dead_F, k_aux)
    (0.25 * wanted).backward()
    loss, out = _aux(sae, x_BD, dead_N, k_aux)
    torch.testing.assert_close(loss, wanted.detach(), rtol=1e-12, atol=0)
    for found, leaf in zip(out.tensors(), leaves.values(), strict=True):
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-12)
    # Only the dead learn from it, and the decoder's bias takes no part in the reconstruction of the residual.
    assert not out.W_dec_FD[~dead_F].any()
    assert not out.W_enc_FD[~dead_F].any()
    assert not out.b_dec_D.any()


def test_the_loss_has_no_bias_in_it(make_sae) -> None:
    sae = make_sae()
    x_BD = torch.randn(30, 24, dtype=torch.float64)
    residual_BD = sae.reconstruct(x_BD) - x_BD
    arguments = (torch.tensor([3, 8]), torch.ones(2, dtype=torch.bool))
    losses = []
    for b_dec in (0.0, 100.0):
        sae.b_dec_D.fill_(b_dec)
        losses.append(
            add_aux_gradients(
                sae, x_BD, residual_BD, *arguments, k_aux=2, coefficient=1.0, out=Gradients.like(sae)
            ).item()
        )
    assert losses[0] == losses[1]


def test_gradients_are_added(make_sae) -> None:
    sae, x_BD = make_sae(), torch.randn(9, 24, dtype=torch.float64)
    _, alone = _aux(sae, x_BD, [2, 3], 2)
    out = Gradients.like(sae)
    out.W_dec_FD.fill_(1.0)
    add_aux_gradients(
        sae,
        x_BD,
        sae.reconstruct(x_BD) - x_BD,
        torch.tensor([2, 3]),
        torch.ones(2, dtype=torch.bool),
        k_aux=2,
        coefficient=0.25,
        out=out,
    )
    torch.testing.assert_close(out.W_dec_FD, alone.W_dec_FD + 1.0)


def test_a_feature_that_fired_since_takes_no_part(make_sae) -> None:
    sae, x_BD = make_sae(), torch.randn(30, 24, dtype=torch.float64)
    loss, out = _aux(sae, x_BD, [2, 3, 7], 3, still=torch.tensor([True, False, True]))
    wanted, without = _aux(sae, x_BD, [2, 7], 3)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(out.W_enc_FD, without.W_enc_FD)
    assert not out.W_enc_FD[3].any()


def test_a_single_token_has_no_spread_and_gives_zero(make_sae) -> None:
    sae, x_BD = make_sae(), torch.randn(1, 24, dtype=torch.float64)
    loss, out = _aux(sae, x_BD, [2, 3], 2)
    assert loss == 0
    assert not any(tensor.any() for tensor in out.tensors())
