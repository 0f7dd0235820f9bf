"""What ``qscope steer`` compares: the prompts, and the arms that each of them is run under."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch

from qscope.errors import Stopped, UserError
from qscope.models import LoadedModel
from qscope.models.generation import refuse_beyond_context
from qscope.models.prompts import Prompt, render_prompt
from qscope.recipes.shared import open_tokens, pin_feature_files
from qscope.runs import RunContext
from qscope.steering.baselines import class_means, diff_in_means, sdcv, with_directions
from qscope.steering.calibration import measure_activity
from qscope.steering.controls import control_arm, with_factor
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.resolver import SpecResolver
from qscope.steering.saes import Saes
from qscope.steering.scales import Scales
from qscope.v1 import steer_pb2


@dataclass(frozen=True)
class Arm:
    """One way to run the prompts: ``unsteered``, ``steered`` or a control, at one factor."""

    name: str
    factor: float
    spec: ResolvedSpec
    prefix: str = ""


@dataclass(frozen=True)
class Asked:
    """A prompt, and the paraphrase it is a wording of, if any."""

    prompt: Prompt
    paraphrase: int | None


def prompts_of(context: RunContext, loaded: LoadedModel) -> list[Asked]:
    """What every arm is asked: the prompts, then each wording of each paraphrase; without either, starts of text."""
    task = context.experiment.steer
    texts = [(text, f"steer.prompts[{index}]", None) for index, text in enumerate(task.prompts)]
    texts += [
        (text, f"steer.paraphrases[{group}].prompts[{index}]", group)
        for group, paraphrase in enumerate(task.paraphrases)
        for index, text in enumerate(paraphrase.prompts)
    ]
    given = bool(texts)
    if not given:
        texts = [(text, "steer.prompt_text", None) for text in _beginnings(context, loaded)]
    asked = []
    for text, at, group in texts:
        prompt = render_prompt(loaded.tokenizer, text, task.format, at=at)
        where = at if given else "steer.sampling.max_tokens"
        refuse_beyond_context(loaded, len(prompt), task.sampling.max_tokens, at=where)
        asked.append(Asked(prompt, group))
    return asked


def refuse_long_prefix(context: RunContext, loaded: LoadedModel, prompts: list[Asked]) -> None:
    """Refuses a text before the prompts that leaves no room, before any arm is made."""
    task = context.experiment.steer
    if steer_pb2.STEERING_CONTROL_PROMPT not in task.controls:
        return
    for asked in prompts:
        prompt = prefixed(context, loaded, asked.prompt, task.baselines.prompt_prefix)
        refuse_beyond_context(loaded, len(prompt), task.sampling.max_tokens, at="steer.baselines.prompt_prefix")


def prefixed(context: RunContext, loaded: LoadedModel, prompt: Prompt, prefix: str) -> Prompt:
    """The prompt with a text before it."""
    wanted = context.experiment.steer.format
    return render_prompt(loaded.tokenizer, prefix + prompt.written, wanted, at="steer.baselines.prompt_prefix")


def _beginnings(context: RunContext, loaded: LoadedModel) -> Iterator[str]:
    """The first tokens of documents, as text."""
    from qscope.data import open_text

    wanted = context.experiment.steer.prompt_text
    reader = open_text(wanted.text, at="steer.prompt_text.text", seed=context.seed_for("prompts"))
    found = 0
    while found < wanted.prompts:
        text = reader.read()
        if text is None:
            raise UserError(
                f"The text holds {found} documents of {wanted.tokens} tokens or more, {wanted.prompts} are wanted.",
                remedy="Lower steer.prompt_text.prompts or tokens, or give more text.",
                reason="TEXT_EXHAUSTED",
                field="steer.prompt_text.prompts",
            )
        ids = loaded.tokenizer(text[: 40 * wanted.tokens], add_special_tokens=False)["input_ids"]
        if len(ids) > wanted.tokens:
            found += 1
            yield loaded.tokenizer.decode(ids[: wanted.tokens]).rstrip("\ufffd")


def arms_of(context: RunContext, loaded: LoadedModel, saes: Saes) -> tuple[list[Arm], Scales]:
    """Unsteered, steered and the controls, the last two at every factor; and what strengths are measured against."""
    task = context.experiment.steer
    factors = list(task.sweep) or [1.0]
    resolver = SpecResolver(loaded, saes)
    pin_feature_files(context, task.steering, at="steer.steering")
    spec, known = resolver.expand(task.steering, at="steer.steering")
    steered = {
        factor: resolver.resolve(with_factor(spec, factor, at="steer.sweep"), known, at="steer.steering")
        for factor in factors
    }
    scales = resolver.scales(known)
    if scales.source:
        context.info(f"strengths are measured against {scales.source}")
    empty = ResolvedSpec((), task.steering.conflict, (), "")
    arms = [Arm("unsteered", 0.0, empty)]
    arms += [Arm("steered", factor, numbers) for factor, numbers in steered.items()]
    activity_of = cache(lambda layer: measure_activity(loaded, saes.whole(layer)))
    directions = _baseline_directions(context, loaded, saes, list(steered.values()))
    for control in task.controls:
        name = steer_pb2.SteeringControl.Name(control).removeprefix("STEERING_CONTROL_").lower()
        if control == steer_pb2.STEERING_CONTROL_PROMPT:
            arms.append(Arm(name, 0.0, empty, prefix=task.baselines.prompt_prefix))
            continue
        for factor in factors if control != steer_pb2.STEERING_CONTROL_ZERO else factors[:1]:
            if control in directions:
                numbers = with_directions(steered[factor], directions[control], name)
            else:
                # The same random direction at every factor: the arm is one dose-response curve.
                generator = torch.Generator().manual_seed(context.seed_for(f"control {name}"))
                numbers = control_arm(steered[factor], control, generator, saes=saes, activity_of=activity_of)
            arms.append(Arm(name, factor, numbers))
    return arms, scales


def _baseline_directions(
    context: RunContext, loaded: LoadedModel, saes: Saes, specs: list[ResolvedSpec]
) -> dict[int, dict[int, torch.Tensor]]:
    """Directions of diff-in-means and SDCV by control and layer, from one pass over the texts."""
    task = context.experiment.steer
    wanted = {steer_pb2.STEERING_CONTROL_DIFF_IN_MEANS, steer_pb2.STEERING_CONTROL_SDCV} & set(task.controls)
    if not wanted:
        return {}
    layers = sorted({edit.layer for spec in specs for edit in spec.edits})
    # The means of residuals need no SAE, and a plain vector has none.
    read = saes if steer_pb2.STEERING_CONTROL_SDCV in wanted else None
    means = []
    for name in ("positives", "negatives"):
        at = f"steer.baselines.{name}"
        stream = open_tokens(getattr(task.baselines, name), loaded, seed=context.seed_for(name), at=at)
        try:
            found = class_means(
                loaded,
                stream,
                task.baselines.tokens,
                read,
                layers,
                on_progress=partial(_tell_tokens, context, f"reading {name}"),
                should_stop=lambda: context.stop_requested,
            )
        except Stopped:
            context.stop(0)
        means.append(found)
    positive, negative = means
    directions = {}
    if steer_pb2.STEERING_CONTROL_DIFF_IN_MEANS in wanted:
        directions[steer_pb2.STEERING_CONTROL_DIFF_IN_MEANS] = {
            layer: diff_in_means(positive[layer], negative[layer]) for layer in layers
        }
    if read is not None:
        directions[steer_pb2.STEERING_CONTROL_SDCV] = {
            layer: sdcv(positive[layer], negative[layer], read, layer, task.baselines.latents) for layer in layers
        }
    return directions


def _tell_tokens(context: RunContext, phase: str, read: int, wanted: int) -> None:
    context.progress(phase, read, wanted, "tokens")
