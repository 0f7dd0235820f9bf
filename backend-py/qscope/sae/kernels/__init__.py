"""Implementations of the SAE step behind one signature, and the choice between them."""

from __future__ import annotations

import torch
from torch import Tensor

from qscope.sae.kernels.base import AdamRates, AdamState, Forward, Gradients, Kernel
from qscope.sae.kernels.dense import DenseKernel
from qscope.sae.kernels.sparse import SparseKernel
from qscope.sae.topk import TopKSae
from qscope.v1 import sae_pb2

__all__ = [
    "AdamRates",
    "AdamState",
    "DenseKernel",
    "Forward",
    "Gradients",
    "Kernel",
    "SparseKernel",
    "choose_kernel",
    "encode",
]

_WORTH_COMPILING = 1 << 21
"""Scores from which on the compiled encoder is used: loading numba takes a second."""


def choose_kernel(
    kind: sae_pb2.SaeKernel.ValueType, device: torch.device | str, compute_dtype: torch.dtype | None = None
) -> Kernel:
    """The kernel for a device.

    Args:
        kind: ``SAE_KERNEL_DENSE`` is the reference; every other value takes the fastest exact kernel of the device.
        compute_dtype: precision of the encoder product; None keeps the precision of the parameters.
    """
    if kind == sae_pb2.SAE_KERNEL_DENSE:
        return DenseKernel()
    if torch.device(device).type == "cpu" and compute_dtype in (None, torch.float32) and (found := _cpu_kernel()):
        return found
    return SparseKernel(compute_dtype)


def _cpu_kernel() -> Kernel | None:
    """The compiled kernel; None where numba is missing or finds no folder to keep compiled code in.

    Imported on demand: numba takes longer to load than everything else a command line needs.
    """
    try:
        from qscope.sae.kernels.cpu import CpuKernel
    except (ImportError, RuntimeError):
        return None
    return CpuKernel()


def encode(sae: TopKSae, x_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of finite activations as :meth:`TopKSae.encode` gives them, without gradients, the fastest exact way.

    The last bit of a value may differ with the number of tokens, as it does in any matrix product.
    """
    large = x_BD.shape[0] * sae.d_sae >= _WORTH_COMPILING
    plain = x_BD.device.type == "cpu" and x_BD.dtype == sae.dtype and sae.dtype in (torch.float32, torch.float64)
    if large and plain and _cpu_kernel():
        from qscope.sae.kernels.cpu import encode as compiled

        return compiled(sae, x_BD)
    with torch.no_grad():
        return sae.encode(x_BD)
