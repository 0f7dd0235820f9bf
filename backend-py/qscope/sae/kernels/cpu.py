"""The fast step on a CPU: the encoder product in cache-sized blocks, and compiled loops for everything sparse.

Threads take tokens (product, selection, decode), then features (weight gradients), then rows (update). One pool serves
both the product and the loops: two pools, one of the matrix library and one of the loops, would wake each other up
many times a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from qscope.sae.kernels import loops
from qscope.sae.kernels.base import AdamRates, AdamState, Forward, Gradients
from qscope.sae.topk import TopKSae

_SCORES_AT_ONCE = 1 << 21
"""Scores per block: 8 MiB in float32, so the selection finds them in the last cache level."""

_SHARES = 16
"""Shares that features and rows are cut into."""


def encode(sae: TopKSae, x_BD: Tensor) -> tuple[Tensor, Tensor]:
    """:meth:`TopKSae.encode` with the product in cache-sized blocks and the compiled selection; no gradients.

    Takes finite activations in the SAE's own precision, float32 or float64, on the CPU.
    """
    B, K, F = x_BD.shape[0], sae.k, sae.d_sae
    x_BD = x_BD.detach().contiguous()
    values_BK, indices_BK = x_BD.new_empty(B, K), torch.empty(B, K, dtype=torch.int64)
    values, indices = values_BK.numpy(), indices_BK.numpy()
    W_enc_DF, b_enc = sae.W_enc_FD.detach().t(), sae.b_enc_F.detach().contiguous().numpy()
    rows = max(1, _SCORES_AT_ONCE // F)
    parts = [slice(low, min(B, low + rows)) for low in range(0, B, rows)]

    def tokens(mine: Iterator[slice]) -> None:
        scores_bF = x_BD.new_empty(min(rows, B), F)
        scratch = _scratch(F, values.dtype)
        for part in mine:
            part_bF = torch.mm(x_BD[part], W_enc_DF, out=scores_bF[: part.stop - part.start])
            loops.select_rows(part_bF.numpy(), b_enc, values[part], indices[part], *scratch)
            loops.sort_rows(values[part], indices[part])

    _threads().run(tokens, parts)
    return values_BK, indices_BK


def _scratch(F: int, kind: np.dtype) -> list[np.ndarray]:
    """What ``select_rows`` writes on besides its results."""
    return [np.empty(n, of) for n in (F // loops.BLOCK, F + 1) for of in (kind, np.int64)]


class CpuKernel:
    """See ``Kernel``. Takes float32 or float64 parameters on the CPU and as many threads as torch has."""

    name = "sparse-cpu"

    def gradients(self, sae: TopKSae, x_BD: Tensor, loss_scale: float, out: Gradients) -> Forward:
        B, K, F = x_BD.shape[0], sae.k, sae.d_sae
        x_BD = x_BD.contiguous()
        values_BK, slopes_BK = x_BD.new_empty(B, K), x_BD.new_empty(B, K)
        indices_BK = torch.empty(B, K, dtype=torch.int64)
        residual_BD = torch.empty_like(x_BD)
        scale = _number(2.0 * loss_scale, sae)
        rows = max(1, _SCORES_AT_ONCE // F)
        parts = [slice(low, min(B, low + rows)) for low in range(0, B, rows)]
        x, values, indices = x_BD.numpy(), values_BK.numpy(), indices_BK.numpy()
        residual, slopes = residual_BD.numpy(), slopes_BK.numpy()
        W_dec, b_dec, b_enc = sae.W_dec_FD.numpy(), sae.b_dec_D.numpy(), sae.b_enc_F.numpy()
        W_enc_DF = sae.W_enc_FD.t()

        def tokens(mine: Iterator[slice]) -> None:
            scores_bF = x_BD.new_empty(min(rows, B), F)
            scratch = _scratch(F, x.dtype)
            for part in mine:
                part_bF = torch.mm(x_BD[part], W_enc_DF, out=scores_bF[: part.stop - part.start])
                loops.select_rows(part_bF.numpy(), b_enc, values[part], indices[part], *scratch)
                loops.decode_rows(
                    x[part], values[part], indices[part], W_dec, b_dec, scale, residual[part], slopes[part]
                )

        threads = _threads()
        threads.run(tokens, parts)

        hits, ends, order = np.empty(F, np.int64), np.empty(F, np.int64), np.empty(B * K, np.int64)
        loops.index_by_feature(values, indices, hits, ends, order)
        enc, b_enc_grad, dec = out.W_enc_FD.numpy(), out.b_enc_F.numpy(), out.W_dec_FD.numpy()

        def features(ranges: Iterator[tuple[int, int]]) -> None:
            for low, high in ranges:
                loops.feature_gradients(
                    low, high, x, residual, values, slopes, hits, ends, order, scale, enc, b_enc_grad, dec
                )

        threads.run(features, _ranges(F))
        torch.sum(residual_BD, 0, out=out.b_dec_D)
        out.b_dec_D.mul_(2.0 * loss_scale)
        return Forward(values_BK, indices_BK, residual_BD, torch.from_numpy(hits))

    def update(self, sae: TopKSae, grads: Gradients, adam: AdamState, rates: AdamRates) -> Tensor:
        F = sae.d_sae
        adam.steps += 1
        squares = np.empty(F)
        enc, dec, b_enc = grads.W_enc_FD.numpy(), grads.W_dec_FD.numpy(), grads.b_enc_F.numpy()
        W_dec = sae.W_dec_FD.numpy()
        threads = _threads()

        def radial(ranges: Iterator[tuple[int, int]]) -> None:
            for low, high in ranges:
                loops.remove_radial(low, high, W_dec, dec, enc, b_enc, squares)

        threads.run(radial, _ranges(F))
        norm = math.sqrt(squares.sum() + grads.b_dec_D.double().square().sum().item())
        clip = rates.clip_norm / norm if rates.clip_norm > 0 and norm > rates.clip_norm else 1.0
        numbers = [
            _number(value, sae)
            for value in (
                clip,
                rates.beta1,
                rates.beta2,
                rates.learning_rate / (1 - rates.beta1**adam.steps),
                math.sqrt(1 - rates.beta2**adam.steps),
                rates.epsilon,
            )
        ]
        tensors = zip(sae.tensors().values(), grads.tensors(), adam.first.tensors(), adam.second.tensors(), strict=True)
        W_enc_set, b_enc_set, W_dec_set, b_dec_set = [
            [tensor.view(-1, tensor.shape[-1]).numpy() for tensor in group] for group in tensors
        ]

        def rows(ranges: Iterator[tuple[int, int]]) -> None:
            for low, high in ranges:
                loops.adam_rows(low, high, *W_enc_set, *numbers, False)
                loops.adam_rows(low, high, *W_dec_set, *numbers, True)

        threads.run(rows, _ranges(F))
        loops.adam_rows(0, 1, *b_enc_set, *numbers, False)
        loops.adam_rows(0, 1, *b_dec_set, *numbers, False)
        return torch.tensor(norm, dtype=sae.dtype)


class _Threads:
    """Threads that pull shares of the work from one list; which thread takes which share never shows in the result."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            # The setting is the thread's own: products inside a worker must not call for threads of their own.
            self._pool = ThreadPoolExecutor(count - 1, "qscope-sae", initializer=torch.set_num_threads, initargs=(1,))

    def run(self, work: Callable[[Iterator], None], shares: Iterable) -> None:
        """Calls ``work`` once a thread with an iterator over the shares that are left."""
        left = iter(shares)
        if self._pool is None:
            work(left)
            return
        torch.set_num_threads(1)
        try:
            waiting = [self._pool.submit(work, left) for _ in range(self._count - 1)]
            work(left)
            for future in waiting:
                future.result()
        finally:
            torch.set_num_threads(self._count)


@cache
def _threads_of(count: int) -> _Threads:
    return _Threads(count)


def _threads() -> _Threads:
    return _threads_of(torch.get_num_threads())


def _ranges(rows: int) -> list[tuple[int, int]]:
    """Shares of the rows, small enough that threads finish together."""
    size = max(64, -(-rows // _SHARES))
    return [(low, min(rows, low + size)) for low in range(0, rows, size)]


def _number(value: float, sae: TopKSae) -> np.floating:
    return np.float32(value) if sae.dtype == torch.float32 else np.float64(value)
