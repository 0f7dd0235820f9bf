"""A tiny policy under reinforcement learning in a run that is not one: what tests of the trainer share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from qscope.models import LoadedModel, load_model
from qscope.posttraining.alarms import Alarm, AlarmBoard
from qscope.posttraining.collective import gathered
from qscope.posttraining.examples import Prompt
from qscope.posttraining.graders import Grade, Grader, Response, load
from qscope.posttraining.groups import GroupMaker, OnMiss, Source
from qscope.posttraining.loop_steering import steering_of
from qscope.posttraining.objective import Objective
from qscope.posttraining.rare_negatives import Policy, RareNegatives
from qscope.posttraining.rewards import Overlong, Rewards
from qscope.posttraining.rl_batch import micro_batch_count
from qscope.posttraining.rl_step import MadeStep, PromptOrder, StepMaker, StepSettings
from qscope.posttraining.rl_trainer import RlTrainer, grpo_config
from qscope.posttraining.rollouts import Sampler, Steered
from qscope.posttraining.trainable import prepare
from qscope.posttraining.tuning import trainer_arguments
from qscope.runs import Ranks
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.posttraining_pb2 import Trainable, TuningOptimizer
from tests.posttraining.tuned import CPU, FULL, Context
from tests.steering.conftest import SAES

PROMPTS = [
    Prompt(ids, text="", answer=str(number), language="", row=number)
    for number, ids in enumerate([(40, 41, 77), (90,), (55, 63, 200, 9), (7, 8), (30, 31, 32), (99, 5), (61,)])
]
#: Fires on some texts of the tiny model and not on others, as random as they are.
GRADERS = [Grader("letter", "regex", pattern="[a-g]"), Grader("repetition", "repetition", weight=2.0)]


class Here:
    """Graders in this process: what the pool does with those that fail has tests of its own."""

    def __init__(self, graders: Sequence[Grader], fails: Callable[[Response], bool] = lambda response: False) -> None:
        self._functions, self._fails = [load(grader) for grader in graders], fails

    def grade(self, responses: Sequence[Response], *, should_stop: Any = None) -> list[list[Grade]]:
        return [
            [Grade(None, "raised") if self._fails(one) else Grade(function(one)) for function in self._functions]
            for one in responses
        ]


@dataclass
class Reinforced:
    """A trainer and what it trains; ``made`` is every step's rollouts."""

    trainer: RlTrainer
    loaded: LoadedModel
    model: nn.Module
    context: Context
    made: list[MadeStep]
    trainable: Trainable

    def weights(self) -> dict[str, bytes]:
        return {name: p.detach().numpy().tobytes() for name, p in self.model.named_parameters()}


def reinforce(
    model_folder: Path,
    folder: Path,
    *,
    trainable: Trainable = FULL,
    steps: int = 3,
    prompts: int = 3,
    group_size: int = 4,
    micro_rows: int = 4,
    iterations: int = 1,
    rare: Policy | None = None,
    settings: StepSettings | None = None,
    objective: Objective | None = None,
    sampling: Sampling | None = None,
    learning_rate: float = 1e-2,
    alarms: list[Alarm] | None = None,
    checkpoint_every: int = 0,
    graders: Sequence[Grader] = GRADERS,
    fails: Callable[[Response], bool] = lambda response: False,
    grader_failure_share: float = 1.0,
    overlong: Overlong | None = None,
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.1,
    double: bool = False,
    asked: Sequence[Prompt] = PROMPTS,
    steer: Callable[[LoadedModel, float, int], Steered] | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    divided: bool = False,
    **context: Any,
) -> Reinforced:
    """The trainer of a tiny model in a folder that may hold the checkpoints of an earlier one."""
    loaded = load_model(str(model_folder), ModelOptions())
    if double:
        loaded.model.double()
    model = prepare(loaded, trainable, seed=4, at="rl.trainable")
    sampling = sampling or Sampling(temperature=1, top_p=1, max_tokens=10)
    rows = prompts // ranks.count * group_size
    micro = micro_batch_count(rows, micro_rows)
    arguments = trainer_arguments(
        "rl",
        TuningOptimizer(
            learning_rate=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
        ),
        trainable,
        device=CPU,
        autocast=False,
        steps=steps,
        batch=rows // micro,
        accumulate=micro,
        log_every=1,
        seed=12,
        folder=str(folder),
    )
    config = grpo_config(
        arguments,
        group_size=group_size,
        iterations=iterations,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
    )
    trainer = RlTrainer(model, loaded.tokenizer, config, prompts=prompts)
    run = Context(folder, ranks=ranks, **context)
    trainer.bind(run, AlarmBoard(alarms or [], run.warning, at="rl.alarms"), checkpoint_every=checkpoint_every)
    maker = GroupMaker(Sampler(loaded, sampling), seed=5, group_size=group_size)
    negatives = None
    if rare is not None:

        def steering_at(strength: float) -> Steered:
            if steer is not None:
                return steer(loaded, strength, rare.stop_after_loops)
            return Steered(steering_of(loaded, SAES, {1: [5]}, strength, {1: 1.0}), SAES, rare.stop_after_loops)

        negatives = RareNegatives(
            rare,
            maker,
            steering_at=steering_at,
            prompts=[one.ids for one in asked],
            gather=lambda verdicts: [one for part in gathered(verdicts) for one in part],
            warn=run.warning,
        )
    made: list[MadeStep] = []
    share = prompts // ranks.count
    settings = replace(settings or StepSettings(share), prompts=share)
    trainer.learn_from(
        StepMaker(
            asked,
            PromptOrder(len(asked), seed=3, rank=ranks.rank, ranks=ranks.count),
            maker,
            Rewards(Here(graders, fails), graders, overlong=overlong),
            negatives,
            settings,
        ),
        objective or Objective(),
        before=negatives.begin if negatives is not None else lambda: None,
        made=made.append,
        grader_failure_share=grader_failure_share,
    )
    if divided:
        trainer.divide(loaded.decoder)
    return Reinforced(trainer, loaded, model, run, made, trainable)


#: A strength that is given, and what does not loop stays: the tiny model hardly loops.
KEPT = Policy(source=Source.STEERED, on_miss=OnMiss.KEEP, strength=2.0, max_tokens=8, stop_after_loops=8)
