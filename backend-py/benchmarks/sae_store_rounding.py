"""What rounding the matrices of SAEs to bfloat16 changes: the store in both number formats on held-out text.

    python benchmarks/sae_store_rounding.py --saes FOLDER [--model embedded] [--tokens 10000]

Per layer: FVU with float32 and with bfloat16 matrices (arithmetic in float32 both times), the share of kept features
that both keep, and the median and 99th percentile of the relative difference of their codes. First tokens are left out.
"""

from __future__ import annotations

import argparse

import torch

from qscope.models import capture_residuals, load_model
from qscope.recipes.shared import open_tokens
from qscope.sae import store
from qscope.sae.metrics import ReconstructionStats
from qscope.sae.topk import TopKSae, dense_codes
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.text_pb2 import TextSource


def compare(exact: TopKSae, rounded: TopKSae, x_ND: torch.Tensor) -> str:
    """The numbers of one layer."""
    fvu, dense = [], []
    for sae in (exact, rounded):
        values_NK, indices_NK = sae.encode(x_ND)
        stats = ReconstructionStats(sae.d_in)
        stats.add(x_ND, sae.decode(values_NK, indices_NK))
        fvu.append(stats.results()["fvu"])
        dense.append(dense_codes(values_NK, indices_NK, sae.d_sae))
    kept_NF, kept_too_NF = dense[0] > 0, dense[1] > 0
    both_NF = kept_NF & kept_too_NF
    change = ((dense[1] - dense[0]).abs() / dense[0])[both_NF]
    low, high = change.quantile(0.5).item(), change[: 1 << 23].quantile(0.99).item()
    shared = both_NF.sum().item() / kept_NF.sum().item()
    return f"{fvu[0]:10.5f} {fvu[1]:10.5f} {shared:10.2%} {low:10.2%} {high:10.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saes", required=True)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--text", default="embedded-heldout")
    parser.add_argument("--tokens", type=int, default=10_000)
    given = parser.parse_args()
    loaded = load_model(given.model, ModelOptions())
    source = TextSource(source=given.text, context=256, pack=True)
    batch = open_tokens(source, loaded, seed=0, at="text").next_batch(max(1, given.tokens // 256))
    with store.open_store(given.saes) as rounded, store.open_store(given.saes, dtype=torch.float32) as exact:
        resids = capture_residuals(loaded, exact.layers, batch.input_ids_BT, batch.attention_mask_BT)
        counted_BT = batch.attention_mask_BT & ~batch.first_token_BT
        print(f"{int(counted_BT.sum()):,} tokens of {given.text}")
        print(f"layer {'FVU fp32':>10} {'FVU bf16':>10} {'kept too':>10} {'median':>10} {'99 %':>10}")
        for layer in exact.layers:
            x_ND = resids[layer][counted_BT].float()
            print(f"{layer:5d} {compare(exact.sae(layer), rounded.sae(layer), x_ND)}", flush=True)


if __name__ == "__main__":
    main()
