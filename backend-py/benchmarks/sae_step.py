"""Time of one SAE training step against its floor, the encoder product alone.

    python benchmarks/sae_step.py [--width 256 512] [--k 32 50] [--threads 2] [--rounds 9]

Every round times the product and each kernel once, in turn, so that other work on the machine falls on all of them
alike. Printed are the product in milliseconds (median) and, for each kernel, the median of the per-round ratios with
the quartiles behind it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from qscope.sae.kernels import AdamRates, AdamState, DenseKernel, Gradients, Kernel, SparseKernel, choose_kernel
from qscope.sae.topk import initialise
from qscope.v1 import sae_pb2

RATES = AdamRates(learning_rate=1e-4, beta1=0.9, beta2=0.999, epsilon=6.25e-10, clip_norm=1.0)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(d_in: int, d_sae: int, k: int, batch: int, rounds: int, kernels: dict[str, Kernel]) -> str:
    """One line of the table."""
    generator = torch.Generator().manual_seed(0)
    x_BD = torch.randn(batch, d_in, generator=generator)
    sae = initialise(d_in, d_sae, k, x_BD[:256], generator)
    grads, adam = Gradients.like(sae), AdamState.like(sae)
    scores_BF = torch.empty(batch, d_sae)

    def step(kernel: Kernel) -> None:
        kernel.gradients(sae, x_BD, 1 / (batch * d_in), grads)
        kernel.update(sae, grads, adam, RATES)

    for kernel in kernels.values():
        step(kernel)
    products: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(rounds):
        product = _seconds(lambda: torch.mm(x_BD, sae.W_enc_FD.t(), out=scores_BF))
        products.append(product)
        for name, kernel in kernels.items():
            ratios[name].append(_seconds(lambda kernel=kernel: step(kernel)) / product)
    cells = []
    for values in ratios.values():
        low, middle, high = statistics.quantiles(values, n=4)
        cells.append(f"{middle:6.2f} [{low:.2f}, {high:.2f}]")
    return f"{d_in:5d} {d_sae:6d} {k:4d}  {statistics.median(products) * 1e3:8.1f} ms  " + "  ".join(
        f"{cell:>22s}" for cell in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--expansion", type=int, default=16)
    parser.add_argument("--k", type=int, nargs="+", default=[32, 50])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-dense", action="store_true", help="leave the dense reference out: it is slow when wide")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    kernels: dict[str, Kernel] = {} if given.no_dense else {"dense": DenseKernel()}
    kernels["sparse"] = SparseKernel()
    fastest = choose_kernel(sae_pb2.SAE_KERNEL_AUTO, "cpu")
    kernels[fastest.name] = fastest
    print(f"batch {given.batch}, {given.threads} threads, n = {given.rounds} rounds; step / encoder product alone")
    names = "  ".join(f"{name:>22s}" for name in kernels)
    print(f" d_in  d_sae    k      product  {names}")
    for d_in in given.width:
        for k in given.k:
            line = measure(d_in, given.expansion * d_in, k, given.batch, given.rounds, kernels)
            print(line, flush=True)


if __name__ == "__main__":
    main()
