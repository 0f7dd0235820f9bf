"""What steering costs while decoding: tokens/s steered over unsteered, same loop, same batch, token by token in turn.

    python benchmarks/steered_decoding.py [--model embedded] [--sae FOLDER] [--layer 3] [--tokens 128] [--rounds 9]

Without --sae a random TopK SAE of 16 times the width stands in: the arithmetic is the same. All arms decode side by
side, each its next token before any goes on, in another order every time: a machine that slows down for a while slows
all of them. A ratio is taken within a round; printed are the median over the rounds, the 10th and 90th percentile, and
how much later than without steering the first token comes, from the resolved spec on.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from functools import cache

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

#: First tokens of each arm in a round: one is soon there.
_FIRST_TOKENS = 8
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
    saes = LoadedSaes(cache(lambda layer: _sae(given, loaded, layer)), loaded.device)
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
        first: dict[str, list[float]] = {name: [] for name in specs}
        for round_ in range(given.rounds + 1):
            order = random.Random(round_)
            arms_of_round: dict[str, _Arm] = {}
            for _ in range(_FIRST_TOKENS):
                for name in order.sample(list(specs), len(specs)):
                    arm = _Arm(loaded, [prompt] * batch, [specs[name]] * batch, saes, given.tokens)
                    arms_of_round[name] = arm
                    if round_:
                        first[name].append(arm.first_seconds)
            for _ in range(given.tokens - 1):
                for name in order.sample(list(arms_of_round), len(arms_of_round)):
                    arms_of_round[name].step()
            for name, arm in arms_of_round.items():
                if round_:
                    rates[name].append(arm.tokens_per_second())
        base, base_first = rates["unsteered"], statistics.median(first["unsteered"])
        print(
            f"\nbatch {batch}: unsteered {statistics.median(base):,.0f} tokens/s, first token after "
            f"{1e3 * base_first:.1f} ms (n = {len(first['unsteered'])})"
        )
        print(f"  {'':<40} {'tokens/s':<22} first token, ms more")
        for name, values in rates.items():
            ratios = sorted(value / other for value, other in zip(values, base, strict=True))
            low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
            later = 1e3 * (statistics.median(first[name]) - base_first)
            print(f"  {name:<40} {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]   {later:+.2f}")


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


class _Arm:
    """One batch being decoded, and the time it took."""

    def __init__(self, loaded: object, prompts: list, specs: list, saes: LoadedSaes, tokens: int) -> None:
        began = time.perf_counter()
        self._steered = SteeredBatch(loaded, prompts, specs, saes)  # type: ignore[arg-type]
        self._run = Generation(
            loaded,  # type: ignore[arg-type]
            [prompt.ids_T for prompt in prompts],
            Sampling(temperature=0, top_p=1, max_tokens=tokens, ignore_end=True),
            list(range(len(prompts))),
            edits=self._steered.edits(),
            should_abort=self._steered.take_aborted,
        )
        self._rows, self._tokens, self._seconds = len(prompts), 0, 0.0
        # The prompt is no decoding.
        self._run.step()
        self.first_seconds = time.perf_counter() - began

    def step(self) -> None:
        began = time.perf_counter()
        self._run.step()
        self._seconds += time.perf_counter() - began
        self._tokens += self._rows

    def tokens_per_second(self) -> float:
        began = time.perf_counter()
        self._steered.row_proofs()
        return self._tokens / (self._seconds + time.perf_counter() - began)


if __name__ == "__main__":
    main()
