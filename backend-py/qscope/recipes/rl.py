"""``qscope rl``: DAPO, with one rollout of a group steered into a loop as a rare negative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf import json_format
from torch import nn

from qscope import __version__
from qscope.errors import Stopped
from qscope.models import LoadedModel, check_hooks, choose_device, load_model
from qscope.models.generation import context_length
from qscope.models.resolve import load_config, resolve
from qscope.posttraining.alarms import AlarmBoard
from qscope.posttraining.collective import gathered
from qscope.posttraining.examples import Prompts
from qscope.posttraining.grader_pool import GraderPool
from qscope.posttraining.groups import GroupMaker, Source
from qscope.posttraining.held_out_prompts import Evaluated, HeldOutPrompts
from qscope.posttraining.rare_negatives import RareNegatives
from qscope.posttraining.rewards import Rewards, graders_of
from qscope.posttraining.rl_batch import micro_batch_count
from qscope.posttraining.rl_step import MadeStep, PromptOrder, StepMaker
from qscope.posttraining.rl_trainer import RlTrainer, grpo_config
from qscope.posttraining.rollout_log import RolloutLog
from qscope.posttraining.rollouts import Sampler
from qscope.posttraining.sae_penalty import WARNING
from qscope.posttraining.sharding import gathered as held_whole
from qscope.posttraining.sharding import whole
from qscope.posttraining.trainable import Output, count_parameters, formats_of, prepare, save_model, with_format
from qscope.posttraining.tuning import trainer_arguments
from qscope.recipes.admission import admit
from qscope.recipes.rl_parts import (
    AT,
    Steering,
    alarms_of,
    has_negatives,
    has_penalty,
    objective_of,
    overlong_of,
    penalty_of,
    policy_of,
    prompts_of,
    step_settings,
    training_prompts,
)
from qscope.recipes.rl_report import evaluation_words, rl_report
from qscope.recipes.shared import pin_revision
from qscope.runs import RunContext
from qscope.runs.files import write_json
from qscope.v1.experiment_pb2 import SHARDING_FSDP2
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.rl_pb2 import Rl

MODEL, RECORD = "model", "training.json"
ROLLOUTS, CALIBRATION, EVALUATION = "rollouts.jsonl", "calibration.json", "evaluation.json"


def run(context: RunContext) -> None:
    """Reads the prompts, finds the strength of steering, trains and evaluates; goes on exactly where it was stopped."""
    experiment, task = context.experiment, context.experiment.rl
    planned = admit(context)
    facts = {fact.name: fact.value for fact in planned.facts}
    context.info(f"loading {facts['model']} on {facts['device']}")
    pin_revision(context, task.prompts, f"{AT}.prompts")
    pin_revision(context, task.evaluate.prompts, f"{AT}.evaluate.prompts")
    if has_penalty(task):
        context.warning(WARNING)

    device = choose_device(experiment.compute.device)
    formats = formats_of(experiment.model_options.precision, device, task.trainable.method)
    options = with_format(experiment.model_options, formats)
    loaded = load_model(experiment.model, options, device)
    check_hooks(loaded)
    own_dtype = load_config(resolve(experiment.model, options)).dtype or loaded.dtype
    output = Output.of(loaded.model, own_dtype)
    prompts = training_prompts(task, loaded)
    context.info(f"{prompts.summary()}: {prompts.template}")

    graders = graders_of(task.rewards)
    limits = task.graders
    with GraderPool(graders, processes=limits.processes, seconds=limits.seconds, at=f"{AT}.rewards") as pool:
        try:
            run = _Run(context, task, loaded, prompts, pool, formats.autocast)
        except Stopped:
            context.stop(0)
        model = prepare(loaded, task.trainable, seed=context.seed_for("adapters"), at=f"{AT}.trainable")
        counts = count_parameters(model)
        context.info(f"training {counts.trained:,} of {counts.total:,} parameters for {task.steps:,} steps")
        trainer = run.trainer(model)
        if experiment.compute.sharding == SHARDING_FSDP2:
            trainer.divide(loaded.decoder)
        steps = trainer.train_run()
        run.evaluate_at_the_end(steps)
    trained = whole(model, lambda: _untrained(context, options), wanted=context.ranks.is_first)
    if trained is not None and context.ranks.is_first:
        _export(context, loaded, trained, output, run, steps)


def _untrained(context: RunContext, options: ModelOptions) -> nn.Module:
    """The model as it was before it was divided among ranks."""
    experiment = context.experiment
    loaded = load_model(experiment.model, options, "cpu")
    return prepare(loaded, experiment.rl.trainable, seed=context.seed_for("adapters"), at=f"{AT}.trainable")


class _Run:
    """What the steps of a run are made of, and what is written down beside them.

    Made before anything of the model is changed: norms, rates and thresholds are those of the model before training.
    """

    def __init__(
        self,
        context: RunContext,
        task: Rl,
        loaded: LoadedModel,
        prompts: Prompts,
        pool: GraderPool,
        autocast: bool,
    ) -> None:
        self.context, self.task, self.loaded, self.prompts = context, task, loaded, prompts
        self._autocast = autocast
        self._ranks = context.ranks
        self._seed = context.experiment.seed
        #: Whether work may be left in the middle: between steps nothing is lost by it.
        self._may_leave = True
        self.evaluated: list[Evaluated] = []
        sampler = Sampler(
            loaded, task.sampling, rows=task.generation_rows, autocast=autocast, should_stop=self._asked_to_stop
        )
        maker = GroupMaker(sampler, seed=self._seed, group_size=task.group_size)
        penalty = penalty_of(context, task, loaded, prompts.items, sampler) if has_penalty(task) else None
        self.signal: list[dict[str, object]] = penalty.record() if penalty is not None else []
        graders = graders_of(task.rewards)
        rewards = Rewards(
            pool,
            graders,
            overlong=overlong_of(task),
            penalty=penalty,
            loaded=loaded if penalty is not None else None,
            rows=task.micro_batch_rows,
        )
        self.rare = self._rare_negatives(maker) if has_negatives(task) else None
        order = PromptOrder(
            len(prompts.items), seed=context.seed_for("prompts"), rank=self._ranks.rank, ranks=self._ranks.count
        )
        self.steps = StepMaker(prompts.items, order, maker, rewards, self.rare, step_settings(task, self._ranks.count))
        self._log = RolloutLog(
            context.artifacts / ROLLOUTS,
            every=task.rollouts.every_steps,
            groups=task.rollouts.groups if self._ranks.is_first else 0,
            seed=self._seed,
        )
        self._held_out = self._open_held_out(pool)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _rare_negatives(self, maker: GroupMaker) -> RareNegatives:
        policy = policy_of(self.task)
        options = self.task.sae_penalty.rare_negative.calibrate
        rows = np.random.default_rng(self.context.seed_for("calibration prompts")).permutation(len(self.prompts.items))
        steering = Steering(self.context, self.task, self.loaded) if policy.source is not Source.PASTED else None
        if steering is not None:
            self.signal = steering.record()
        return RareNegatives(
            policy,
            maker,
            steering_at=steering.at if steering is not None else None,
            control_at=steering.control_at if steering is not None else None,
            prompts=[self.prompts.items[row].ids for row in rows[: options.prompts]],
            gather=lambda verdicts: [one for part in gathered(verdicts) for one in part],
            tell=self.context.info,
            warn=self.context.warning,
        )

    def _open_held_out(self, pool: GraderPool) -> HeldOutPrompts | None:
        task = self.task
        if not task.evaluate.prompts.source:
            return None
        sampling = task.evaluate.sampling if task.evaluate.HasField("sampling") else task.sampling
        limit = context_length(self.loaded)
        found = prompts_of(
            task.evaluate.prompts,
            task,
            self.loaded.tokenizer,
            limit,
            sampling.max_tokens,
            at=f"{AT}.evaluate.prompts",
        )
        self.context.info(f"held out: {found.summary()}")
        sampler = Sampler(
            self.loaded, sampling, rows=task.generation_rows, autocast=self._autocast, should_stop=self._asked_to_stop
        )
        return HeldOutPrompts(
            found.items[self._ranks.rank :: self._ranks.count],
            sampler,
            pool,
            graders_of(task.rewards),
            seed=self._seed,
            gather=gathered,
        )

    def trainer(self, model: nn.Module) -> RlTrainer:
        """The trainer, joined to the run."""
        task, context = self.task, self.context
        rows = task.prompts_per_step // self._ranks.count * task.group_size
        micro = micro_batch_count(rows, task.micro_batch_rows)
        arguments = trainer_arguments(
            AT,
            task.optimizer,
            task.trainable,
            device=self.loaded.device,
            autocast=self._autocast,
            steps=task.steps,
            batch=rows // micro,
            accumulate=micro,
            log_every=task.metrics.every_steps,
            seed=context.seed_for("trainer"),
            folder=str(context.artifacts),
        )
        config = grpo_config(
            arguments,
            group_size=task.group_size,
            iterations=task.iterations,
            temperature=task.sampling.temperature,
            max_tokens=task.sampling.max_tokens,
        )
        trainer = RlTrainer(model, self.loaded.tokenizer, config, prompts=task.prompts_per_step)
        # What two attempts of a run must agree on.
        facts = {
            "model": self.loaded.facts.fingerprint,
            "data": [self.prompts.identity, len(self.prompts.items)],
            "number of steps": task.steps,
        }
        board = AlarmBoard(alarms_of(task.alarms), context.warning, at=f"{AT}.alarms")
        trainer.bind(context, board, checkpoint_every=task.checkpoint.every_steps, facts=facts)
        trainer.learn_from(
            self.steps,
            objective_of(task),
            before=self._before_steps,
            made=self._made,
            after=self._after,
            grader_failure_share=task.alarms.grader_failure_share,
            state=self._state,
            load_state=self._load_state,
        )
        self._trainer = trainer
        return trainer

    # -- what happens beside the steps ---------------------------------------------------------------------------

    def _asked_to_stop(self) -> bool:
        # Ranks ask one another, and do not ask equally often in here.
        return self._may_leave and self._ranks.count == 1 and self.context.stop_requested

    def _before_steps(self) -> None:
        if self._ranks.is_first:
            # An attempt that was killed before its first checkpoint.
            self._log.keep_until(0)
        self._interruptible(self._first_measurements, 0)

    def _first_measurements(self) -> None:
        self._evaluate(0)
        if self.rare is not None:
            self.context.info("looking for the strength of steering")
            try:
                with held_whole(self._trainer.model):
                    self.rare.begin()
            finally:
                self._write_calibrations()

    def _interruptible(self, work: Callable[[], None], step: int) -> None:
        """Work between two steps, before which nothing is lost."""
        self._may_leave = True
        try:
            work()
        except Stopped:
            self.context.stop(step)
        finally:
            self._may_leave = False

    def _made(self, made: MadeStep) -> None:
        self._write_calibrations()
        self._log.write(made, self.prompts.items, strength=self.rare.strength if self.rare is not None else 0.0)

    def _after(self, step: int) -> None:
        every = self.task.evaluate.every_steps
        if every and step % every == 0 and step < self.task.steps:
            self._evaluate(step)

    def evaluate_at_the_end(self, step: int) -> None:
        """The last evaluation, of the trained model."""
        if all(one.step != step for one in self.evaluated):
            self._interruptible(lambda: self._evaluate(step), step)

    def _evaluate(self, step: int) -> None:
        if self._held_out is None:
            return
        self.context.info(f"evaluating after step {step:,}")
        with held_whole(self._trainer.model):
            found = self._held_out(step)
        self.evaluated.append(found)
        self.context.info(evaluation_words(found))
        self._trainer.report(step, found.numbers())
        self._write_evaluations()

    def _write_evaluations(self) -> None:
        if self._ranks.is_first and self.evaluated:
            path = self.context.artifacts / EVALUATION
            write_json(path, [one.as_dict() for one in self.evaluated])
            self.context.artifact(path, kind="held-out-responses", description="responses to held-out prompts, by step")

    def _write_calibrations(self) -> None:
        if self._ranks.is_first and self.rare is not None and len(self.rare.calibrations) != self._written:
            path = self.context.artifacts / CALIBRATION
            write_json(path, self.rare.calibrations)
            self._written = len(self.rare.calibrations)
            self.context.artifact(path, kind="calibration", description="loop rate by strength of steering")

    _written = 0

    @property
    def rollouts(self) -> list[dict[str, Any]]:
        """Those that were logged."""
        return self._log.rows

    def _state(self) -> dict[str, Any]:
        return {"evaluated": [one.as_dict() for one in self.evaluated]}

    def _load_state(self, state: dict[str, Any]) -> None:
        self._may_leave = False
        self.evaluated = [Evaluated.of(one) for one in state["evaluated"]]
        if self._ranks.is_first:
            self._log.keep_until(self._trainer.state.global_step)
        self._write_evaluations()
        self._write_calibrations()


def _export(context: RunContext, loaded: LoadedModel, model: nn.Module, output: Output, run: _Run, steps: int) -> None:
    """The model, and a record of all that is needed to train it again."""
    task, prompts = run.task, run.prompts
    if (context.artifacts / ROLLOUTS).exists():
        context.artifact(
            context.artifacts / ROLLOUTS, kind="rollouts", description="some groups of rollouts, normal and steered"
        )
    record = {
        "qscope_version": __version__,
        "model": loaded.facts.as_dict(),
        "experiment": json_format.MessageToDict(context.experiment, preserving_proto_field_name=True),
        "steps": steps,
        "data": {**prompts.identity, "rows": len(prompts.items), "left_out": dict(prompts.left_out)},
        "sae_signal": run.signal,
        "calibrations": run.rare.calibrations if run.rare is not None else [],
        "evaluated": [one.as_dict() for one in run.evaluated],
    }
    write_json(context.artifacts / RECORD, record)
    context.artifact(context.artifacts / RECORD, kind="training-record", description="what the model was trained on")
    folder = context.artifacts / MODEL
    merge = task.trainable.lora.merge
    save_model(model, loaded.tokenizer, folder, output, merge=merge)
    adapter = hasattr(model, "peft_config") and not merge
    context.artifact(folder, kind="adapter" if adapter else "model", description=f"after {steps:,} steps")
    context.report(rl_report(context.experiment.name, task, run.rare, run.evaluated, steps, run.rollouts))
