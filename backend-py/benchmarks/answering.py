"""Responses a second of the embedded model, as `qscope eval` writes them, and what the draws and ended rows cost.

    python benchmarks/answering.py --rounds 5 --rows 64 256

Every arm answers the same prompts with the same random numbers, one after the other in each round; times are those of
the process, so that what else the machine does counts little. One thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from qscope.models import generation as loop
from qscope.models import load_model
from qscope.models.draws import draws, plain_draws
from qscope.posttraining import answering
from qscope.posttraining.answered import Answered
from qscope.posttraining.examples import read_prompts
from qscope.runs import seed_of
from qscope.v1.generation_pb2 import PromptFormat, Sampling
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.posttraining_pb2 import TrainRows

ROWS = Path(__file__).resolve().parents[2] / "configs" / "embedded" / "rows" / "exercises-heldout.jsonl"
WHOLE = loop.Generation
#: Draws with every logarithm; rows that have ended stay in the batch.
ARMS = {"plain": (plain_draws, False), "draws": (draws, False), "draws, ended rows leave": (draws, True)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--responses", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model("embedded", ModelOptions())
    source = TrainRows(source=str(ROWS), prompt="{question}")
    prompts = read_prompts(source, loaded.tokenizer, PromptFormat(chat=True), context=400, at="").items
    for whole in (False, True):
        sampling = Sampling(temperature=1, top_p=1, max_tokens=given.max_tokens, ignore_end=whole)
        for rows in given.rows:
            made = answering.batches(prompts, 2, rows)[: -(-given.responses // rows)]
            seconds: dict[str, list[float]] = {name: [] for name in ARMS}
            written: list[list[Answered]] = []
            for _ in range(given.rounds):
                for name, (draw, leaves) in ARMS.items():
                    answers, taken = timed(partial(respond, loaded, made, sampling, draw, leaves))
                    seconds[name].append(taken)
                    written.append(answers)
            assert all(one == written[0] for one in written), "the arms write different responses"
            tokens = sum(len(one.response.ids) for one in written[0])
            ends = "to the limit" if whole else "to their end"
            print(f"{rows} rows, {len(written[0])} responses, {tokens:,} tokens, {ends}", flush=True)
            for name, taken in seconds.items():
                rates = sorted(len(written[0]) / one for one in taken)
                ratio = statistics.median(one / other for one, other in zip(seconds["plain"], taken, strict=True))
                print(
                    f"  {name:<24} {statistics.median(rates):6.1f} responses/s ({rates[0]:.1f} to {rates[-1]:.1f}), "
                    f"{ratio:.2f} times plain"
                )


def respond(loaded, made, sampling, draw, leaves: bool) -> list[Answered]:
    """All batches, with one way to draw, and with rows that leave or stay."""
    loop.draws = draw
    answering.Generation = lambda *rest, **options: WHOLE(*rest, **{**options, "drop_ended": leaves})
    return [
        one
        for batch in made
        for one in answering.answer(
            loaded, batch, sampling, lambda asked: seed_of(0, f"{asked.prompt.row} {asked.sample}")
        )
    ]


def timed(call: Callable[[], list[Answered]]) -> tuple[list[Answered], float]:
    begun = time.process_time()
    return call(), time.process_time() - begun


if __name__ == "__main__":
    main()
