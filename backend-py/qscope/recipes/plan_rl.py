"""The plan of ``qscope rl``: prompts are read and rendered and every interaction is asked; no model runs."""

from __future__ import annotations

from pathlib import Path

import torch

from qscope.errors import UserError
from qscope.models import ModelShape, load_tokenizer
from qscope.posttraining.advantages import refuse_small_groups
from qscope.posttraining.examples import Prompts, samples
from qscope.posttraining.graders import load as load_grader
from qscope.posttraining.interactions import check_interactions, settings_of
from qscope.posttraining.objective import EXEMPTS
from qscope.posttraining.overlong import soft_overlong_penalty
from qscope.posttraining.rewards import graders_of
from qscope.posttraining.rl_batch import micro_batch_count
from qscope.posttraining.trainable import refuse_layers
from qscope.recipes.plan_features import Estimate
from qscope.recipes.plan_sft import STEP_OVER_FORWARD, rate_words, trained_parameters, trained_words, training_memory
from qscope.recipes.rl_parts import AT, PENALTY, has_negatives, has_penalty, objective_of, overlong_of, prompts_of
from qscope.recipes.rl_report import arm_words
from qscope.v1 import run_pb2
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.rl_pb2 import RARE_NEGATIVE_SOURCE_PASTED, Rl

FLOAT32 = 4


def plan_rl(experiment: Experiment, shape: ModelShape, device: torch.device, runs: Path) -> Estimate:
    """Plans a run; every prompt is read and every setting asked, so that what cannot work is told before it starts.

    Args:
        experiment: what would run.
        shape: of the model.
        device: where it would run.
        runs: folder of the runs.

    Raises:
        UserError: the first of what is wrong; with several refusals of :mod:`~qscope.posttraining.interactions` their
            sentences are one behind the other.
    """
    task, ranks = experiment.rl, max(1, experiment.compute.processes)
    warnings = _asked(experiment, task, ranks)
    refuse_layers(task.trainable, shape.n_layers, at=f"{AT}.trainable")
    tokenizer = load_tokenizer(experiment.model, experiment.model_options)
    limit = shape.context_length
    found = prompts_of(task.prompts, task, tokenizer, limit, task.sampling.max_tokens, at=f"{AT}.prompts")
    held = _held_out(task, tokenizer, limit)
    rows = task.prompts_per_step * task.group_size // ranks
    micro = micro_batch_count(rows, task.micro_batch_rows)
    longest = max(len(prompt.ids) for prompt in found.items) + task.sampling.max_tokens
    trained = trained_parameters(task.trainable, shape)
    memory = training_memory(
        task.trainable,
        shape,
        experiment.model_options.precision,
        device,
        tokens=rows // micro * longest,
    )
    side_by_side = min(task.generation_rows or rows, rows)
    cache = side_by_side * longest * 2 * shape.n_layers * shape.d_model * shape.bytes_per_parameter
    memory.append(("cache of rollouts written side by side, at most", cache))
    memory.append(("scores of one token of those", 4 * side_by_side * shape.vocab_size * FLOAT32))
    planned = run_pb2.Plan(
        facts=[run_pb2.PlanFact(name=name, value=value) for name, value in _facts(task, found, held, shape, ranks)],
        memory=[run_pb2.MemoryItem(name=name, bytes=int(count)) for name, count in memory],
        disk_bytes=task.checkpoint.keep * trained * 3 * FLOAT32 + shape.parameters * FLOAT32,
        samples=samples(found.items, tokenizer),
        warnings=[*warnings, *_more_warnings(task, found)],
    )
    return Estimate(planned, _products(task, found, held, shape))


def _asked(experiment: Experiment, task: Rl, ranks: int) -> list[str]:
    """Warnings of the settings among one another.

    Raises:
        UserError: what cannot work, all of it at once.
    """
    found = check_interactions(settings_of(experiment), EXEMPTS)
    if found.refusals:
        first, *others = found.refusals
        raise (
            UserError(
                " ".join(one.message for one in found.refusals),
                remedy=" ".join(one.remedy for one in found.refusals),
                reason=first.reason,
                field=first.field,
            )
            if others
            else first
        )
    objective_of(task)
    refuse_small_groups(task.group_size, task.sae_penalty.rare_negative.per_group if has_negatives(task) else 0)
    if task.sampling.temperature == 0:
        raise UserError(
            "At temperature 0 all rollouts of a prompt are one, so no group has anything to compare.",
            remedy="Set rl.sampling.temperature to 1.",
            reason="GREEDY_ROLLOUTS",
            field=f"{AT}.sampling.temperature",
        )
    if task.prompts_per_step % ranks:
        raise UserError(
            f"{task.prompts_per_step} prompts of a step cannot be shared by {ranks} processes.",
            remedy=f"Set rl.prompts_per_step to a multiple of {ranks}.",
            reason="PROMPTS_NOT_DIVISIBLE",
            field=f"{AT}.prompts_per_step",
        )
    overlong = overlong_of(task)
    if overlong is not None:
        soft_overlong_penalty(torch.zeros(1), longest=overlong.longest, cache=overlong.cache)
    for number, grader in enumerate(graders_of(task.rewards)):
        if grader.kind != "python":
            # A user's file is loaded in a process of its own.
            load_grader(grader, at=f"{AT}.rewards[{number}]")
    if has_penalty(task) and not task.sae_penalty.reward.weight > 0:
        raise UserError(
            "The features cost nothing: the weight of the SAE penalty is 0.",
            remedy="Give a weight above 0, or leave sae_penalty out.",
            reason="SAE_PENALTY_WEIGHT",
            field=f"{PENALTY}.weight",
        )
    return list(found.warnings.values())


def _held_out(task: Rl, tokenizer: object, limit: int) -> Prompts | None:
    if not task.evaluate.prompts.source:
        return None
    sampling = task.evaluate.sampling if task.evaluate.HasField("sampling") else task.sampling
    return prompts_of(task.evaluate.prompts, task, tokenizer, limit, sampling.max_tokens, at=f"{AT}.evaluate.prompts")


def _facts(task: Rl, found: Prompts, held: Prompts | None, shape: ModelShape, ranks: int) -> list[tuple[str, str]]:
    lengths = [len(prompt.ids) for prompt in found.items]
    rows = task.prompts_per_step * task.group_size
    again = f", {task.iterations} updates on each" if task.iterations > 1 else ""
    facts = [
        ("prompts", found.summary()),
        ("columns", found.template),
        ("prompt tokens", f"{min(lengths):,} to {max(lengths):,}; answers of up to {task.sampling.max_tokens:,}"),
        ("rewards", ", ".join(f"{one.name} x {one.weight:g}" for one in graders_of(task.rewards))),
        ("arm", arm_words(task)),
        ("trained", trained_words(task.trainable, shape)),
        (
            "steps",
            f"{task.steps:,} of {rows:,} rollouts ({task.prompts_per_step} prompts x {task.group_size}){again}",
        ),
        ("micro-batches", f"{micro_batch_count(rows // ranks, task.micro_batch_rows)} of a step on each process"),
        ("rollouts", f"{_rollouts(task):,} in all, of up to {_rollouts(task) * task.sampling.max_tokens:,} tokens"),
        ("learning rate", rate_words(AT, task.optimizer, task.trainable)),
    ]
    if held is not None:
        facts.append(("held out", f"{held.summary()}, answered {_evaluations(task)} times"))
    if has_negatives(task) and task.sae_penalty.rare_negative.source != RARE_NEGATIVE_SOURCE_PASTED:
        facts.append(("steering", _steering(task)))
    return facts


def _steering(task: Rl) -> str:
    rare = task.sae_penalty.rare_negative
    which = ", ".join(rare.features) or f"the best {rare.top_k} of {rare.feature_set}"
    if rare.strength:
        return f"{which}, strength {rare.strength:g}"
    tried = rare.calibrate
    return (
        f"{which}; strength found among {len(tried.strengths)} on {tried.prompts} prompts, "
        f"{tried.loop_rate:.0%} of them must loop"
    )


def _rollouts(task: Rl) -> int:
    # Without what dynamic sampling draws again, which nobody knows.
    return -(-task.steps // task.iterations) * task.prompts_per_step * task.group_size


def _evaluations(task: Rl) -> int:
    every = task.evaluate.every_steps
    return 2 + ((task.steps - 1) // every if every else 0)


def _more_warnings(task: Rl, found: Prompts) -> list[str]:
    warnings = []
    if task.sampling.top_p < 1 or task.sampling.top_k:
        warnings.append(
            "top_p and top_k cut off what the policy could have said, but the objective takes rollouts for draws of "
            "all of it: set top_p: 1 and top_k: 0."
        )
    asks = any(one.kind == "answer" for one in graders_of(task.rewards))
    without = sum(not prompt.answer.strip() for prompt in found.items)
    if asks and without:
        warnings.append(f"{without:,} of {len(found.items):,} prompts have no right answer: they cannot be graded.")
    if any(one.kind == "language" for one in graders_of(task.rewards)) and found.untagged:
        warnings.append(f"{found.untagged:,} prompts are in no known language: they cannot be graded.")
    if task.steps <= task.optimizer.warmup_steps:
        warnings.append(f"All {task.steps:,} steps are warm-up: lower {AT}.optimizer.warmup_steps.")
    return warnings


def _products(task: Rl, found: Prompts, held: Prompts | None, shape: ModelShape) -> float:
    """Floating-point operations if every rollout goes to its limit.

    A token of decoding reads all weights for a few rows, which a device does far below its speed of large products:
    each counts as so many products more.
    """
    forward = 2 * (shape.active_block_parameters + shape.vocab_size * shape.d_model)
    prompt = sum(len(one.ids) for one in found.items) / len(found.items)
    row = prompt + task.sampling.max_tokens
    rollouts = _rollouts(task)
    updates = task.iterations * (STEP_OVER_FORWARD + (1 if task.trainable.gradient_checkpointing else 0))
    again = 1 if task.iterations > 1 else 0
    calibrated = 0
    if has_negatives(task) and not task.sae_penalty.rare_negative.strength:
        tried = task.sae_penalty.rare_negative.calibrate
        calibrated = len(tried.strengths) * tried.prompts
    evaluated = len(held.items) * _evaluations(task) if held is not None else 0
    written = (rollouts + calibrated + evaluated) * task.sampling.max_tokens * _DECODING
    return forward * (written + rollouts * row * (updates + again))


#: A decoded token over the same products at the device's full speed: 5.5 to 7.1 with 32 to 64 rows of the embedded
#: model on one CPU core (3 runs), 15 to 19 with 8 rows.
_DECODING = 6
