from __future__ import annotations

import sys

import pytest
import torch

from qscope.sae import kernels
from qscope.sae.kernels import AdamRates, AdamState, DenseKernel, Gradients, SparseKernel, choose_kernel
from qscope.sae.topk import TopKSae, reference_loss
from qscope.v1 import sae_pb2

FAST = ["sparse", "sparse-cpu"]
RATES = AdamRates(learning_rate=1e-2, beta1=0.9, beta2=0.999, epsilon=1e-9, clip_norm=0.5)


def _kernel(name: str):
    if name == "sparse":
        return SparseKernel()
    pytest.importorskip("numba", reason="the compiled kernel needs numba")
    from qscope.sae.kernels.cpu import CpuKernel

    return CpuKernel()


def _copy(sae: TopKSae) -> TopKSae:
    return TopKSae(**{name: tensor.clone() for name, tensor in sae.tensors().items()}, k=sae.k)


def _reference_gradients(sae: TopKSae, x_BD, scale):
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in sae.tensors().items()}
    loss, _ = reference_loss(TopKSae(**leaves, k=sae.k), x_BD, scale)
    return torch.autograd.grad(loss, list(leaves.values()))


def _x(rows, d_in=24, dtype=torch.float64, seed=1):
    return torch.randn(rows, d_in, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", [*FAST, "dense"])
# Odd sizes: k that is no power of two, d_sae that no block divides, one feature kept, nearly all kept, one token.
@pytest.mark.parametrize(
    ("rows", "d_in", "d_sae", "k"),
    [(50, 24, 96, 6), (33, 17, 101, 7), (64, 8, 1000, 3), (20, 24, 40, 1), (20, 5, 12, 11), (1, 24, 96, 6)],
)
def test_gradient_equals_dense_autograd(name, rows, d_in, d_sae, k, make_sae) -> None:
    kernel = DenseKernel() if name == "dense" else _kernel(name)
    sae, x_BD = make_sae(d_in, d_sae, k), _x(rows, d_in)
    out = Gradients.like(sae)
    for tensor in out.tensors():
        tensor.fill_(99.0)  # Buffers are reused: whatever they held must be gone.
    forward = kernel.gradients(sae, x_BD, 0.01, out)
    for found, wanted in zip(out.tensors(), _reference_gradients(sae, x_BD, 0.01), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(forward.residual_BD, sae.reconstruct(x_BD) - x_BD, rtol=1e-10, atol=1e-10)
    values_BK, indices_BK = sae.encode(x_BD)
    hits_F = torch.bincount(indices_BK[values_BK > 0], minlength=d_sae)
    assert torch.equal(forward.hits_F, hits_F)
    assert not out.W_enc_FD[hits_F == 0].any()
    assert not out.W_dec_FD[hits_F == 0].any()
    assert not out.b_enc_F[hits_F == 0].any()


@pytest.mark.parametrize("name", FAST)
def test_twenty_steps_stay_with_the_dense_kernel(name, make_sae) -> None:
    fast, slow = make_sae(), make_sae()
    fast_adam, slow_adam, grads = AdamState.like(fast), AdamState.like(slow), Gradients.like(fast)
    kernel, dense = _kernel(name), DenseKernel()
    for step in range(20):
        x_BD = _x(64, seed=step)
        kernel.gradients(fast, x_BD, 0.01, grads)
        norm = kernel.update(fast, grads, fast_adam, RATES)
        dense.gradients(slow, x_BD, 0.01, grads)
        torch.testing.assert_close(norm, dense.update(slow, grads, slow_adam, RATES), rtol=1e-7, atol=0)
    for found, wanted in zip(fast.tensors().values(), slow.tensors().values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", [*FAST, "dense"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 1e9])
def test_update_is_adam_on_the_clipped_tangent_gradient(name, clip_norm, make_sae) -> None:
    kernel = DenseKernel() if name == "dense" else _kernel(name)
    sae = make_sae()
    wanted = [tensor.clone().requires_grad_() for tensor in sae.tensors().values()]
    optimizer = torch.optim.Adam(wanted, lr=RATES.learning_rate, betas=(0.9, 0.999), eps=RATES.epsilon)
    adam, grads = AdamState.like(sae), Gradients.like(sae)
    rates = AdamRates(RATES.learning_rate, 0.9, 0.999, RATES.epsilon, clip_norm)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        raw = [torch.randn(tensor.shape, generator=generator, dtype=torch.float64) for tensor in wanted]
        for target, gradient in zip(grads.tensors(), raw, strict=True):
            target.copy_(gradient)
        norm = kernel.update(sae, grads, adam, rates)

        W_dec_FD = wanted[2].detach()
        raw[2] -= (raw[2] * W_dec_FD).sum(1, keepdim=True) * W_dec_FD
        for tensor, gradient in zip(wanted, raw, strict=True):
            tensor.grad = gradient.clone()
        expected_norm = torch.nn.utils.clip_grad_norm_(wanted, clip_norm or float("inf"), error_if_nonfinite=True)
        optimizer.step()
        with torch.no_grad():
            wanted[2] /= wanted[2].norm(dim=1, keepdim=True)
        torch.testing.assert_close(norm, expected_norm, rtol=1e-9, atol=0)
        # clip_grad_norm_ divides by the norm plus 1e-6.
        for found, expected in zip(sae.tensors().values(), wanted, strict=True):
            torch.testing.assert_close(found, expected.detach(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(sae.W_dec_FD.norm(dim=1), torch.ones(sae.d_sae, dtype=torch.float64))


@pytest.mark.parametrize("name", FAST)
def test_duplicate_rows_tie_and_the_lowest_index_wins(name, make_sae) -> None:
    sae = make_sae(dtype=torch.float32)
    # Every feature has three twins with equal scores, so k = 6 cuts through a group.
    for tensor in (sae.W_enc_FD, sae.b_enc_F):
        tensor.copy_(tensor[:24].repeat(4, *[1] * (tensor.dim() - 1)))
    x_BD = _x(40, dtype=torch.float32)
    out = Gradients.like(sae)
    forward = _kernel(name).gradients(sae, x_BD, 0.01, out)
    values_BK, indices_BK = sae.encode(x_BD)
    kept = [set(row) for row in indices_BK.tolist()]
    assert [set(row) for row in forward.indices_BK.tolist()] == kept
    torch.testing.assert_close(forward.values_BK.sum(1), values_BK.sum(1))
    for found, wanted in zip(out.tensors(), _reference_gradients(sae, x_BD, 0.01), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAST)
def test_one_feature_hit_by_all_and_others_by_none(name, make_sae) -> None:
    sae = make_sae()
    sae.b_enc_F[5] = 100.0
    sae.b_enc_F[50:] = -100.0
    x_BD = _x(200)
    out = Gradients.like(sae)
    forward = _kernel(name).gradients(sae, x_BD, 0.01, out)
    assert forward.hits_F[5] == 200
    assert not forward.hits_F[50:].any()
    for found, wanted in zip(out.tensors(), _reference_gradients(sae, x_BD, 0.01), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FAST)
def test_fewer_than_k_positive_scores(name, make_sae) -> None:
    sae = make_sae()
    sae.b_enc_F.fill_(-100.0)
    sae.b_enc_F[[3, 90]] = 50.0
    x_BD = _x(10)
    out = Gradients.like(sae)
    forward = _kernel(name).gradients(sae, x_BD, 0.01, out)
    assert forward.hits_F.nonzero().squeeze(1).tolist() == [3, 90]
    assert (forward.values_BK > 0).sum(1).tolist() == [2] * 10
    assert all(len(set(row)) == sae.k for row in forward.indices_BK.tolist())
    for found, wanted in zip(out.tensors(), _reference_gradients(sae, x_BD, 0.01), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FAST)
def test_repeats_are_equal_to_the_bit(name, make_sae) -> None:
    results = []
    for _ in range(2):
        sae = make_sae(d_in=32, d_sae=700, k=9, dtype=torch.float32)
        adam, grads, kernel = AdamState.like(sae), Gradients.like(sae), _kernel(name)
        for step in range(5):
            kernel.gradients(sae, _x(300, 32, torch.float32, step), 0.01, grads)
            kernel.update(sae, grads, adam, RATES)
        results.append(sae)
    for one, other in zip(results[0].tensors().values(), results[1].tensors().values(), strict=True):
        assert torch.equal(one, other)


def test_the_compiled_kernel_does_not_depend_on_the_number_of_threads(make_sae, monkeypatch) -> None:
    kernel = _kernel("sparse-cpu")
    monkeypatch.setattr("qscope.sae.kernels.cpu._SCORES_AT_ONCE", 1 << 14)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            sae = make_sae(d_in=32, d_sae=700, k=9, dtype=torch.float32)
            grads = Gradients.like(sae)
            forward = kernel.gradients(sae, _x(300, 32, torch.float32), 0.01, grads)
            assert torch.get_num_threads() == count
            results.append([*grads.tensors(), forward.values_BK, forward.indices_BK])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        # The bias of the decoder is summed by torch, which splits rows over its threads.
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", FAST)
def test_nan_in_an_activation_reaches_the_residual(name, make_sae) -> None:
    sae, x_BD = make_sae(dtype=torch.float32), _x(8, dtype=torch.float32)
    x_BD[3, 2] = float("nan")
    forward = _kernel(name).gradients(sae, x_BD, 0.01, Gradients.like(sae))
    assert forward.residual_BD[3].isnan().any()
    assert forward.residual_BD[:3].isfinite().all()


def test_bfloat16_product_stays_near_float32(make_sae) -> None:
    sae, x_BD = make_sae(dtype=torch.float32), _x(200, dtype=torch.float32)
    exact, rounded = Gradients.like(sae), Gradients.like(sae)
    SparseKernel().gradients(sae, x_BD, 0.01, exact)
    forward = SparseKernel(torch.bfloat16).gradients(sae, x_BD, 0.01, rounded)
    assert forward.values_BK.dtype == torch.float32
    for one, other in zip(exact.tensors(), rounded.tensors(), strict=True):
        assert other.dtype == torch.float32
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.98
        assert not torch.equal(one, other), "bfloat16 had no effect"


def test_row_products_without_a_sampled_product(make_sae, monkeypatch) -> None:
    from qscope.sae.kernels import sparse

    sae, x_BD = make_sae(), _x(50)
    _, indices_BK = sae.encode(x_BD)
    sampled = sparse._row_products(x_BD, sae.W_dec_FD, indices_BK)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    monkeypatch.setattr(sparse, "_GATHERED_AT_ONCE", 1000)
    gathered = sparse._row_products(x_BD, sae.W_dec_FD, indices_BK)
    torch.testing.assert_close(gathered, sampled, rtol=1e-12, atol=1e-12)


def test_choice_of_kernel(monkeypatch) -> None:
    assert choose_kernel(sae_pb2.SAE_KERNEL_DENSE, "cpu").name == "dense"
    assert choose_kernel(sae_pb2.SAE_KERNEL_AUTO, "cuda", torch.bfloat16).name == "sparse"
    assert choose_kernel(sae_pb2.SAE_KERNEL_AUTO, "cpu", torch.bfloat16).name == "sparse"
    pytest.importorskip("numba", reason="the compiled kernel needs numba")
    assert choose_kernel(sae_pb2.SAE_KERNEL_AUTO, "cpu").name == "sparse-cpu"
    assert choose_kernel(sae_pb2.SAE_KERNEL_SPARSE, "cpu").name == "sparse-cpu"
    # Without numba the kernel in torch takes its place.
    monkeypatch.setitem(sys.modules, "qscope.sae.kernels.cpu", None)
    monkeypatch.delattr(kernels, "cpu", raising=False)
    assert choose_kernel(sae_pb2.SAE_KERNEL_AUTO, "cpu").name == "sparse"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d_sae", "k"), [(512, 32), (511, 3), (64, 64), (9, 1)])
def test_compiled_codes_are_those_of_the_definition(make_sae, monkeypatch, dtype, d_sae, k) -> None:
    """Values and features; where fewer than k fire the rest is zero, valid and distinct, as in ``TopKSae.encode``."""
    pytest.importorskip("numba", reason="the compiled encoder needs numba")
    monkeypatch.setattr(kernels, "_WORTH_COMPILING", 0)
    monkeypatch.setattr("qscope.sae.kernels.cpu._SCORES_AT_ONCE", 3 * d_sae)
    sae = make_sae(d_sae=d_sae, k=k, dtype=dtype)
    # One token on which nothing fires, and tokens twice over, so that equal scores come from equal rows too.
    sae.W_enc_FD[1::7] = sae.W_enc_FD[0]
    sae.b_enc_F[1::7] = sae.b_enc_F[0]
    x_BD = torch.cat([_x(50, d_in=sae.d_in, dtype=dtype)] * 2)
    values_BK, indices_BK = kernels.encode(sae, x_BD)
    expected_BK, expected_indices_BK = sae.encode(x_BD)
    torch.testing.assert_close(values_BK, expected_BK)
    assert (values_BK.diff(dim=1) <= 0).all(), "largest first"
    assert (indices_BK.sort(dim=1).values.diff(dim=1) > 0).all(), "no feature twice"
    u_BF = sae.pre_activations(x_BD).relu()
    torch.testing.assert_close(values_BK, u_BF.gather(1, indices_BK))
    clear_B = expected_BK[:, -1] > 0
    ties_BK = torch.zeros_like(expected_BK, dtype=torch.bool)
    ties_BK[:, 1:] |= expected_BK.diff(dim=1).abs() < 1e-5
    ties_BK[:, :-1] |= ties_BK[:, 1:].clone()
    alike_BK = (indices_BK == expected_indices_BK) | ties_BK | (expected_BK == 0)
    assert alike_BK[clear_B].all()


def test_small_inputs_do_not_wait_for_the_compiler(make_sae, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "_cpu_kernel", lambda: pytest.fail("numba was asked for"))
    sae = make_sae()
    for mine, plain in zip(kernels.encode(sae, _x(5)), sae.encode(_x(5)), strict=True):
        assert torch.equal(mine, plain)
