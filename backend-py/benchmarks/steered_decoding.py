"""What steering costs while decoding: tokens/s steered over unsteered, same loop, same batch, in turn.

    python benchmarks/steered_decoding.py [--model embedded] [--sae FOLDER] [--layer 3] [--tokens 128] [--rounds 9]

Without --sae a random TopK SAE of 16 times the width stands in: the arithmetic is the same. A ratio is taken within a
round; printed are the median over the rounds and the 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import torch

from qscope.models import choose_device, load_model
from qscope.models.generation import Generation
from qscope.models.prompts import render_prompt
from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.steering.batch import SteeredBatch
from qscope.steering.resolve import resolve
from qscope.steering.saes import LoadedSaes
from qscope.steering.scales import Scales
from qscope.v1 import steering_pb2 as pb
from qscope.v1.experiment_pb2 import DEVICE_AUTO
from qscope.v1.generation_pb2 import PromptFormat, Sampling
from qscope.v1.model_pb2 import PRECISION_AUTO, ModelOptions

PROMPT = "The installation guide describes how to"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--sae", help="SAEs; without them random ones")
    parser.add_argument("--layer", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    loaded = load_model(given.model, ModelOptions(precision=PRECISION_AUTO), choose_device(DEVICE_AUTO))
    saes = LoadedSaes(lambda layer: _sae(given, loaded, layer), loaded.device)
    prompt = render_prompt(loaded.tokenizer, PROMPT, PromptFormat())
    layers = list(range(loaded.facts.n_layers))
    arms = {
        "unsteered": [],
        # What the machine itself does to a ratio.
        "unsteered again": [],
        "add, one layer": [_edit([given.layer], pb.STEERING_OP_ADD)],
        "add, every layer": [_edit(layers, pb.STEERING_OP_ADD)] if not given.sae else [],
        "set where a feature fires, one layer": [_edit([given.layer], pb.STEERING_OP_SET, when=True)],
        "set, one layer": [_edit([given.layer], pb.STEERING_OP_SET)],
    }
    specs = {
        name: resolve(
            pb.SteeringSpec(edits=edits, conflict=pb.CONFLICT_SUM),
            n_layers=loaded.facts.n_layers,
            d_model=loaded.facts.d_model,
            saes=saes,
            scales=Scales(),
        )
        for name, edits in arms.items()
        if edits or name.startswith("unsteered")
    }
    where = torch.cuda.get_device_name() if loaded.device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(f"{given.model} on {where}, {loaded.facts.dtype}; {given.tokens} tokens, {given.rounds} rounds in turn")
    for batch in given.batch:
        rates: dict[str, list[float]] = {name: [] for name in specs}
        for round_ in range(given.rounds + 1):
            # Another order every round: who comes first meets a cooler machine.
            for name in random.Random(round_).sample(list(specs), len(specs)):
                spec = specs[name]
                rate = _tokens_per_second(loaded, [prompt] * batch, [spec] * batch, saes, given.tokens)
                if round_:
                    rates[name].append(rate)
        base = rates["unsteered"]
        print(f"\nbatch {batch}: unsteered {statistics.median(base):,.0f} tokens/s")
        for name, values in rates.items():
            ratios = sorted(value / other for value, other in zip(values, base, strict=True))
            low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
            print(f"  {name:<40} {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]")


def _edit(layers: list[int], op: int, when: bool = False) -> pb.SteeringEdit:
    # Small enough to leave the text alone: what is timed is the work, not another text.
    edit = pb.SteeringEdit(
        layers=layers,
        features=[7],
        op=op,
        strength=1e-3,
        unit=pb.STRENGTH_UNIT_RAW,
        top=1,
        where={"phase": pb.PHASE_ALL},
    )
    if when:
        edit.when.add(layer=layers[0], feature=9)
    return edit


def _sae(given: argparse.Namespace, loaded: object, layer: int) -> TopKSae:
    if given.sae:
        return formats.load(given.sae, [layer])[layer]
    d_in = loaded.facts.d_model  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(layer)
    W_FD = torch.randn(16 * d_in, d_in, generator=generator) / d_in**0.5
    sae = TopKSae(W_FD, torch.zeros(16 * d_in), W_FD.clone(), torch.zeros(d_in), k=50, layer=layer)
    return sae.to(loaded.device, loaded.dtype)  # type: ignore[attr-defined]


def _tokens_per_second(loaded: object, prompts: list, specs: list, saes: LoadedSaes, tokens: int) -> float:
    steered = SteeredBatch(loaded, prompts, specs, saes)  # type: ignore[arg-type]
    sampling = Sampling(temperature=0, top_p=1, max_tokens=tokens, ignore_end=True)
    run = Generation(
        loaded,  # type: ignore[arg-type]
        [prompt.ids_T for prompt in prompts],
        sampling,
        list(range(len(prompts))),
        edits=steered.edits(),
        should_abort=steered.take_aborted,
    )
    # The prompt is no decoding.
    run.step()
    began = time.perf_counter()
    while not run.done:
        run.step()
    steered.row_proofs()
    return len(prompts) * (tokens - 1) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
