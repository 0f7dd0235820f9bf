"""Twenty steps on a tiny model that loops: with rare negatives its own rollouts loop less, and end more often."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qscope.models import LoadedModel, load_model
from qscope.posttraining.examples import Prompt
from qscope.posttraining.graders import Grader
from qscope.posttraining.groups import OnMiss
from qscope.posttraining.loop_steering import steering_of
from qscope.posttraining.rare_negatives import Policy
from qscope.posttraining.repetition import repetition_of
from qscope.posttraining.rollouts import Request, Sampler, Steered
from qscope.steering.saes import LoadedSaes
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.model_pb2 import ModelOptions
from tests.posttraining.loopers import LAYER, LETTERS, looping_sae, make_looper
from tests.posttraining.reinforced import reinforce

DRAWN = Sampling(temperature=0.6, top_p=1, max_tokens=72)


def prompts(count: int, seed: int) -> list[Prompt]:
    noise = torch.Generator().manual_seed(seed)
    pairs_B2 = torch.randint(LETTERS.start, LETTERS.stop, (count, 2), generator=noise).tolist()
    return [Prompt(tuple(pair), "", "", "", row) for row, pair in enumerate(pairs_B2)]


ASKED, HELD_OUT = prompts(64, 5), prompts(128, 6)


@pytest.fixture(scope="module")
def looper(tokenizer, tmp_path_factory) -> Path:
    return make_looper(tokenizer, tmp_path_factory.mktemp("looper"))


def repeat_ratio(loaded: LoadedModel) -> float:
    made = Sampler(loaded, DRAWN)([Request(one.ids, 1000 + one.row) for one in HELD_OUT])
    return sum(repetition_of(one.answer_ids, truncated=one.truncated).endless for one in made) / len(made)


def test_with_rare_negatives_the_repeat_ratio_falls(looper, tmp_path):
    untrained = load_model(str(looper), ModelOptions())
    before, sae = repeat_ratio(untrained), looping_sae(untrained)
    saes = LoadedSaes(lambda layer: sae)

    def steer(loaded: LoadedModel, strength: float, loops: int) -> Steered:
        return Steered(steering_of(loaded, saes, {LAYER: [0]}, strength, {LAYER: 1.0}), saes, loops)

    made = reinforce(
        looper,
        tmp_path,
        steps=20,
        prompts=8,
        group_size=4,
        micro_rows=32,
        asked=ASKED,
        sampling=DRAWN,
        graders=[Grader("endless", "endless")],
        rare=Policy(on_miss=OnMiss.DROP, strengths=(0.1, 0.2, 0.4), loop_rate=0.5, max_tokens=72, stop_after_loops=0),
        steer=steer,
        learning_rate=2e-3,
    )
    made.trainer.train_run()
    assert made.context.series("steered_loop_rate")[1] > 0
    after = repeat_ratio(made.loaded)
    # 52 % to 2 % on the machine this was written on.
    assert before > 0.4
    assert after < before / 2
