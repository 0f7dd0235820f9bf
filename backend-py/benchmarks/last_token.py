"""What a pass that keeps the features of each prompt's last token costs over a bare forward pass of the same prompts.

    python benchmarks/last_token.py --sae FOLDER [--run RUN] [--items 250] [--rounds 5] [--threads 2]

Prompts are those of a run of ``qscope bench-redundancy``, so many of each benchmark at most; without --run, synthetic
ones of varied length. Arms, benchmark by benchmark in turn, each time in another order:

    bare         the model's forward pass on batches of like length, logits of the last position only
    bare again   what the machine does by itself
    as they come the same on batches in the order of the file, padded to their longest
    features     what the command does: tokenise, read all layers, encode, write shards, apply every rule

Printed: tokens/s (padding does not count) over those of bare, median over rounds with the smallest and largest, and by
benchmark with the 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from google.protobuf import json_format

from qscope.data.benchmarks import read_benchmarks
from qscope.data.items import Benchmark, Item
from qscope.evaluation.last_token import ItemReader, Rule, footprints_of
from qscope.features.documents import Document, batches
from qscope.features.extract import extract
from qscope.features.shards import Extract
from qscope.models import LoadedModel, choose_device, load_model
from qscope.sae import formats
from qscope.v1.experiment_pb2 import DEVICE_AUTO, Experiment
from qscope.v1.features_pb2 import Rendering
from qscope.v1.model_pb2 import PRECISION_AUTO, ModelOptions

RULES = [Rule("active"), Rule("top10", top=10), Rule("half", share=0.5)]
CONTEXT = 512
SHARD_ITEMS = 2048
_WORDS = ("the", "number", "of", "a", "red", "train", "leaves", "before", "noon", "and", "how", "many", "remain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", required=True)
    parser.add_argument("--run", type=Path, help="folder of a run whose benchmarks are read")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--items", type=int, default=250, help="of each benchmark, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine: seconds of the processor")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    loaded = load_model(given.model, ModelOptions(precision=PRECISION_AUTO), choose_device(DEVICE_AUTO))
    saes = {layer: sae.to(loaded.device, loaded.dtype) for layer, sae in formats.load(given.sae).items()}
    suite = list(_benchmarks(given))
    documents = [_reader(benchmark, loaded).take(len(benchmark.items)) for benchmark in suite]
    tokens = np.array([sum(len(document.ids_T) for document in some) for some in documents])

    @torch.no_grad()
    def bare(index: int) -> None:
        for batch in batches(documents[index], given.batch_tokens):
            mask_BT = batch.attention_mask_BT
            _forward(loaded, batch.input_ids_BT, None if bool(mask_BT.all()) else mask_BT)

    @torch.no_grad()
    def as_they_come(index: int) -> None:
        for some in _in_order(documents[index], given.batch_tokens):
            # One batch, as its longest decides how many fit.
            (batch,) = batches(some, given.batch_tokens)
            _forward(loaded, batch.input_ids_BT, batch.attention_mask_BT)

    def features(index: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract(
                loaded,
                saes,
                _reader(suite[index], loaded),
                Path(folder),
                identity={},
                facts={},
                documents=0,
                shard_documents=SHARD_ITEMS,
                layout="safetensors",
                batch_tokens=given.batch_tokens,
            )
            footprints_of(Extract(folder), list(saes), RULES)

    arms: dict[str, Callable[[int], None]] = {
        "bare": bare,
        "bare again": bare,
        "as they come": as_they_come,
        "features": features,
    }
    # By arm, round and benchmark.
    seconds = {name: np.zeros((given.rounds, len(suite))) for name in arms}
    clock = time.process_time if given.processor_time else time.perf_counter
    for name in arms:
        arms[name](0)
    for round_ in range(given.rounds):
        for index in range(len(suite)):
            for name in random.Random(f"{round_}/{index}").sample(list(arms), len(arms)):
                began = clock()
                arms[name](index)
                if loaded.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds[name][round_, index] = clock() - began
    where = torch.cuda.get_device_name() if loaded.device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    items = sum(len(some) for some in documents)
    print(
        f"{given.model} on {where}, {loaded.facts.dtype}; {len(saes)} layers, {len(RULES)} rules; {len(suite)} "
        f"benchmarks, {items:,} items, {tokens.sum():,} tokens a round, {given.rounds} rounds"
    )
    print(f"  {'':<14}{'tokens/s':>10}   over bare, by round     by benchmark")
    for name, taken in seconds.items():
        by_round = sorted(seconds["bare"].sum(1) / taken.sum(1))
        by_benchmark = sorted(np.median(seconds["bare"] / taken, axis=0))
        low, high = by_benchmark[len(suite) // 10], by_benchmark[-1 - len(suite) // 10]
        print(
            f"  {name:<14}{tokens.sum() / statistics.median(taken.sum(1)):>10,.0f}   {statistics.median(by_round):.3f} "
            f"[{by_round[0]:.3f}, {by_round[-1]:.3f}]   {statistics.median(by_benchmark):.3f} [{low:.3f}, {high:.3f}]"
        )


def _benchmarks(given: argparse.Namespace) -> Iterator[Benchmark]:
    if given.run is None:
        for number in range(4):
            noise = random.Random(number)
            lengths = [round(noise.lognormvariate(4, 0.6)) for _ in range(given.items)]
            prompts = [" ".join(noise.choices(_WORDS, k=max(1, length))) for length in lengths]
            yield Benchmark(f"synthetic-{number}", [Item("", prompt) for prompt in prompts], "")
        return
    task = json_format.Parse((given.run / "experiment.json").read_text(), Experiment()).bench_redundancy
    for found in read_benchmarks(task, "bench_redundancy"):
        # Spread over the file: some are ordered.
        step = max(1, len(found.items) // given.items)
        found.items = found.items[::step][: given.items]
        yield found


def _reader(benchmark: Benchmark, loaded: LoadedModel) -> ItemReader:
    return ItemReader(benchmark, loaded.tokenizer, context=CONTEXT, rendering=Rendering())


def _forward(loaded: LoadedModel, ids_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> None:
    mask_BT = None if mask_BT is None else mask_BT.to(loaded.device, torch.long)
    loaded.model(input_ids=ids_BT.to(loaded.device), attention_mask=mask_BT, use_cache=False, logits_to_keep=1)


def _in_order(documents: Sequence[Document], batch_tokens: int) -> Iterator[list[Document]]:
    """As many documents in a row as fit, padded to their longest."""
    some: list[Document] = []
    for document in documents:
        widest = max(len(one.ids_T) for one in [*some, document])
        if some and widest * (len(some) + 1) > batch_tokens:
            yield some
            some = []
        some.append(document)
    yield some


if __name__ == "__main__":
    main()
