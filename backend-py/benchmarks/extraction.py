"""What reading every layer's features costs over one bare forward pass of the model, in turn.

    python benchmarks/extraction.py --sae FOLDER [--model embedded] [--rounds 9] [--threads 2]

Bare: every block and the final norm, logits of the last position only. Captured: residuals of all layers. Encoded:
their codes as well, on the device; writing them to disk comes on top (`qscope features extract`). Median of the ratios
within a round, with the 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch

from qscope.data import TokenStream, open_text
from qscope.models import capture_residuals, choose_device, load_model
from qscope.sae import formats
from qscope.sae.kernels import encode
from qscope.v1.experiment_pb2 import DEVICE_AUTO
from qscope.v1.model_pb2 import PRECISION_AUTO, ModelOptions
from qscope.v1.text_pb2 import TextSource


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", required=True)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    loaded = load_model(given.model, ModelOptions(precision=PRECISION_AUTO), choose_device(DEVICE_AUTO))
    saes = {layer: sae.to(loaded.device, loaded.dtype) for layer, sae in formats.load(given.sae).items()}
    source = TextSource(source="embedded-heldout", field="text", split="train", context=256, pack=True)
    reader = open_text(source, at="text", seed=0)
    stream = TokenStream(reader, loaded.tokenizer, context=256, pack=True, repeat=True)
    batches = [stream.next_batch(16).input_ids_BT.to(loaded.device) for _ in range(given.batches)]

    @torch.no_grad()
    def bare() -> None:
        for ids_BT in batches:
            loaded.model(input_ids=ids_BT, use_cache=False, logits_to_keep=1)

    def captured() -> None:
        for ids_BT in batches:
            capture_residuals(loaded, list(saes), ids_BT)

    @torch.no_grad()
    def encoded() -> None:
        for ids_BT in batches:
            for layer, resid_BTD in capture_residuals(loaded, list(saes), ids_BT).items():
                encode(saes[layer], resid_BTD.flatten(0, 1))

    arms: dict[str, Callable[[], None]] = {"bare": bare, "bare again": bare, "captured": captured, "encoded": encoded}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(given.rounds + 1):
        for name in random.Random(round_).sample(list(arms), len(arms)):
            began = time.perf_counter()
            arms[name]()
            if loaded.device.type == "cuda":
                torch.cuda.synchronize()
            if round_:
                times[name].append(time.perf_counter() - began)
    tokens = sum(ids_BT.numel() for ids_BT in batches)
    sae = next(iter(saes.values()))
    print(
        f"{given.model}, {len(saes)} layers, d_in {sae.d_in}, d_sae {sae.d_sae}, k {sae.k}, {tokens:,} tokens a round"
    )
    for name, values in times.items():
        ratios = sorted(value / base for value, base in zip(values, times["bare"], strict=True))
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        rate = tokens / statistics.median(values)
        print(f"  {name:<12} {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]  {rate:,.0f} tokens/s")


if __name__ == "__main__":
    main()
