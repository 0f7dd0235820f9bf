"""What each arm of ``qscope steer`` costs: perplexity and KL on neutral text, and scores on benchmark tasks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qscope.errors import Stopped
from qscope.models import LoadedModel
from qscope.recipes.feature_parts import as_json
from qscope.recipes.shared import open_tokens
from qscope.recipes.steer_arms import Arm
from qscope.runs import RunContext
from qscope.runs.ledger import Ledger, key_of
from qscope.steering.capability import FoundTasks, limit_of, measure_task
from qscope.steering.saes import Saes
from qscope.steering.side_effects import neutral_costs
from qscope.v1.steer_pb2 import CapabilityTasks


def side_effects_of(
    context: RunContext, loaded: LoadedModel, arms: list[Arm], saes: Saes
) -> dict[tuple[str, float], dict[str, Any]]:
    """What every arm costs on neutral text, by name and factor."""
    settings = context.experiment.steer.side_effects
    if settings.tokens == 0:
        return {}
    # Neutral text is read as it is: what stands before the prompts of an arm changes nothing there.
    arms = [arm for arm in arms if not arm.prefix]
    stream = open_tokens(settings.text, loaded, seed=context.seed_for("neutral"), at="steer.side_effects.text")
    try:
        costs = neutral_costs(
            loaded,
            [arm.spec for arm in arms],
            stream,
            settings.tokens,
            saes,
            on_progress=lambda read, wanted: context.progress("measuring side effects", read, wanted, "tokens"),
            should_stop=lambda: context.stop_requested,
        )
    except Stopped:
        context.stop(0)
    for arm, cost in zip(arms, costs, strict=True):
        if not arm.spec.changes_nothing and not cost.changed_positions:
            context.warning(
                f"{arm.name} x {arm.factor:g} changed nothing in the neutral text: perplexity and KL there say nothing "
                "about what it costs. Give steer.side_effects.text text that it applies to."
            )
    return {
        (arm.name, arm.factor): {
            "neutral_tokens": cost.tokens,
            "neutral_changed_positions": cost.changed_positions,
            "perplexity_ratio": cost.perplexity_ratio,
            "kl": cost.kl,
        }
        for arm, cost in zip(arms, costs, strict=True)
    }


def capability_of(
    context: RunContext, loaded: LoadedModel, arms: list[Arm], saes: Saes, found: FoundTasks
) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Scores on benchmark tasks of every arm that changes the model; those an earlier attempt measured are kept."""
    wanted, seed = context.experiment.steer.capability, context.seed_for("tasks")
    # A benchmark poses its own prompts: a text before those of the experiment changes nothing there.
    chosen = [arm for arm in arms if not arm.prefix]
    if left_out := [arm.name for arm in arms if arm.prefix]:
        context.info(f"tasks are run in every arm but {', '.join(left_out)}")
    path = context.artifacts / "task-scores.jsonl"
    ledger = Ledger(path)
    if ledger.damaged:
        context.warning(f"{ledger.damaged:,} damaged lines in {path.name} are passed over; they are measured again.")
    scores: dict[tuple[str, float], list[dict[str, Any]]] = {(arm.name, arm.factor): [] for arm in chosen}
    cut: dict[str, int] = {}
    for arm in chosen:
        for name in wanted.tasks:
            alone = CapabilityTasks()
            alone.CopyFrom(wanted)
            alone.tasks[:] = [name]
            question = {"spec": arm.spec.hash, "tasks": as_json(alone), "seed": seed, "lm_eval": found.version}
            key = key_of(question)
            told = ledger.get(key)
            if told is None:
                told = _measure(context, loaded, arm, saes, name, found)
                ledger.put(key, told)
            scores[arm.name, arm.factor] += told
            if not arm.spec.changes_nothing and told and not told[0]["changed_positions"]:
                context.warning(
                    f"{arm.name} x {arm.factor:g} changed nothing in the requests of {name}: "
                    "these are the scores of the model as it is."
                )
            cut[name] = max(cut.get(name, 0), *(score["cut_requests"] for score in told), 0)
    for name, count in cut.items():
        if count:
            context.warning(
                f"{count:,} requests of {name} are longer than the {limit_of(loaded):,} tokens the model reads and "
                "lost their beginning. Lower steer.capability.shots."
            )
    if path.exists():
        context.artifact(path, kind="task_scores", description=f"{len(wanted.tasks)} tasks in {len(chosen)} arms")
    return scores


def _measure(
    context: RunContext, loaded: LoadedModel, arm: Arm, saes: Saes, name: str, found: FoundTasks
) -> list[dict[str, Any]]:
    """One task, or one group of tasks, under one arm."""
    task = context.experiment.steer
    phase = f"{name}, {arm.name} x {arm.factor:g}"
    try:
        scores = measure_task(
            loaded,
            arm.spec,
            saes,
            name,
            found,
            task.capability,
            batch_rows=task.batch_rows,
            # Every arm gets the same examples and shots.
            seed=context.seed_for("tasks"),
            on_progress=lambda answered, asked: context.progress(phase, answered, asked, "requests"),
            should_stop=lambda: context.stop_requested,
        )
    except Stopped:
        context.stop(0)
    return [asdict(score) for score in scores]
