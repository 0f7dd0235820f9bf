"""``qscope steer FILE``: the same prompts under every arm and strength, with proof, and what each costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from qscope.errors import UserError
from qscope.models import LoadedModel, check_hooks, choose_device, load_model
from qscope.models.generation import Generation, refuse_beyond_context
from qscope.models.kernels import implementation_facts
from qscope.models.prompts import Prompt, render_prompt
from qscope.recipes.admission import admit
from qscope.recipes.shared import open_tokens, place_feature_files, place_of_saes
from qscope.recipes.steer_report import stability_line, steering_lines, steering_report, usable_sentence
from qscope.runs import RunContext
from qscope.runs.files import write_json
from qscope.steering.baselines import class_means, diff_in_means, sdcv, with_directions
from qscope.steering.batch import SteeredBatch
from qscope.steering.calibration import measure_activity
from qscope.steering.controls import control_arm, refuse_meaningless_controls, with_factor
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.resolver import SpecResolver
from qscope.steering.saes import NoSaes, Saes, StoredSaes
from qscope.steering.scales import Scales
from qscope.steering.side_effects import compression, ends_in_loop, languages, neutral_costs, repeated_ngrams
from qscope.steering.summary import summarise, usable_range
from qscope.v1 import inference_pb2, steer_pb2


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


@dataclass(frozen=True)
class Cell:
    """One continuation to be made: arm, prompt and sample."""

    arm: Arm
    prompt: int
    sample: int

    @property
    def key(self) -> tuple[str, float, int, int]:
        return self.arm.name, self.arm.factor, self.prompt, self.sample


def run(context: RunContext) -> None:
    """Generates every arm at every strength from the same prompts and random numbers, then measures them."""
    experiment, task = context.experiment, context.experiment.steer
    if not task.steering.edits and not task.steering.abort_when:
        raise UserError(
            "The steering spec is empty: there is nothing to compare.",
            remedy="Add an edit: layers, features and a strength.",
            reason="STEERING_EMPTY",
            field="steer.steering",
        )
    admit(context)
    refuse_meaningless_controls(task.steering, list(task.controls), prompt_prefix=task.baselines.prompt_prefix)
    loaded = load_model(experiment.model, experiment.model_options, choose_device(experiment.compute.device))
    check_hooks(loaded)
    for fact in implementation_facts(loaded):
        context.info(fact)
    tools = _Tools(_open_saes(context, loaded))
    prompts = _prompts(context, loaded)
    arms = _arms(context, loaded, tools)
    context.info(f"{len(prompts)} prompts x {task.samples} samples x {len(arms)} arms")

    rows = _generate(context, loaded, prompts, arms, tools.saes)
    costs = _side_effects(context, loaded, arms, tools.saes)
    _report(context, loaded, rows, costs, tools.scales)


@dataclass
class _Tools:
    """What every arm needs: the SAEs, and what was measured about their features."""

    saes: Saes
    scales: Scales = field(default_factory=Scales)


def _open_saes(context: RunContext, loaded: LoadedModel) -> Saes:
    task, offline = context.experiment.steer, context.experiment.model_options.offline
    try:
        place = place_of_saes(task.sae, context.folder.parent, at="steer.sae")
    except UserError as error:
        return NoSaes(error)
    return StoredSaes(place, loaded, offline=offline, tell=context.info, warn=context.warning, at="steer.sae")


def _prompts(context: RunContext, loaded: LoadedModel) -> list[Asked]:
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


def _arms(context: RunContext, loaded: LoadedModel, tools: _Tools) -> list[Arm]:
    """Unsteered, steered and the controls, the last two at every factor."""
    task = context.experiment.steer
    factors = list(task.sweep) or [1.0]
    saes, resolver = tools.saes, SpecResolver(loaded, tools.saes)
    place_feature_files(task.steering, context.folder.parent)
    spec = resolver.expand(task.steering, at="steer.steering")
    steered = {
        factor: resolver.resolve(with_factor(spec, factor, at="steer.sweep"), at="steer.steering") for factor in factors
    }
    tools.scales = resolver.scales
    if tools.scales.source:
        context.info(f"strengths are measured against {tools.scales.source}")
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
    return arms


def _baseline_directions(
    context: RunContext, loaded: LoadedModel, saes: Saes, specs: list[ResolvedSpec]
) -> dict[int, dict[int, torch.Tensor]]:
    """Directions of diff-in-means and SDCV by control and layer, from one pass over the texts."""
    task = context.experiment.steer
    wanted = {steer_pb2.STEERING_CONTROL_DIFF_IN_MEANS, steer_pb2.STEERING_CONTROL_SDCV} & set(task.controls)
    if not wanted:
        return {}
    layers = sorted({edit.layer for spec in specs for edit in spec.edits})
    means = []
    for name in ("positives", "negatives"):
        at = f"steer.baselines.{name}"
        stream = open_tokens(getattr(task.baselines, name), loaded, seed=context.seed_for(name), at=at)
        means.append(class_means(loaded, stream, task.baselines.tokens, saes, layers))
    positive, negative = means
    return {
        steer_pb2.STEERING_CONTROL_DIFF_IN_MEANS: {
            layer: diff_in_means(positive[layer], negative[layer]) for layer in layers
        },
        steer_pb2.STEERING_CONTROL_SDCV: {
            layer: sdcv(positive[layer], negative[layer], saes, layer, task.baselines.latents) for layer in layers
        },
    }


def _generate(
    context: RunContext, loaded: LoadedModel, prompts: list[Asked], arms: list[Arm], saes: Saes
) -> list[dict[str, Any]]:
    """Every cell, batch by batch; what an earlier attempt of this run wrote is kept."""
    task = context.experiment.steer
    path = context.artifacts / "generations.jsonl"
    rows = _read_rows(path)
    known = {(row["arm"], row["factor"], row["prompt"], row["sample"]) for row in rows}
    cells = [Cell(arm, p, s) for arm in arms for p in range(len(prompts)) for s in range(task.samples)]
    total = len(cells)
    cells = [cell for cell in cells if cell.key not in known]
    with path.open("a", encoding="utf-8") as file:
        for arm in arms:
            mine, silent = [cell for cell in cells if cell.arm is arm], None
            for start in range(0, len(mine), task.batch_rows):
                new, silent = _batch(context, loaded, prompts, mine[start : start + task.batch_rows], saes)
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in new)
                file.flush()
                rows += new
                context.progress("generating", len(rows), total, "texts")
            # Some batches of an arm may hold nothing to change; all of them mean that it does not work.
            of_arm = [row for row in rows if (row["arm"], row["factor"]) == (arm.name, arm.factor)]
            if silent is not None and not any(row["changed_positions"] for row in of_arm):
                raise silent
    context.artifact(path, kind="generations", description=f"{len(rows):,} texts of {len(arms)} arms")
    return rows


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            # The line that was being written when the run was killed; what follows it is made again.
            break
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows


def _batch(
    context: RunContext, loaded: LoadedModel, prompts: list[Asked], cells: list[Cell], saes: Saes
) -> tuple[list[dict[str, Any]], UserError | None]:
    """The texts of one batch, and the error if steering changed nothing in it."""
    task = context.experiment.steer
    read = [prompts[cell.prompt].prompt for cell in cells]
    if cells[0].arm.prefix:
        texts = [cells[0].arm.prefix + prompt.written for prompt in read]
        read = [
            render_prompt(loaded.tokenizer, text, task.format, at="steer.baselines.prompt_prefix") for text in texts
        ]
    batch = SteeredBatch(loaded, read, [cell.arm.spec for cell in cells], saes)
    noise = [context.seed_for(f"noise {cell.prompt} {cell.sample}") for cell in cells]
    generation = Generation(
        loaded,
        [prompt.ids_T for prompt in read],
        task.sampling,
        noise,
        edits=batch.edits(),
        should_abort=batch.take_aborted,
    )
    tokens: list[list[int]] = [[] for _ in cells]
    ended: dict[int, int] = {}
    while not generation.done:
        if context.stop_requested:
            context.stop(0)
        step = generation.step()
        ended |= step.ended
        for drawn in step.drawn:
            if step.ended.get(drawn.row) != inference_pb2.END_REASON_END_TOKEN:
                tokens[drawn.row].append(drawn.token)
    texts = [loaded.tokenizer.decode(ids) for ids in tokens]
    named = languages(texts, tuple(task.languages))
    rows = []
    for index, (cell, proof) in enumerate(zip(cells, batch.row_proofs(), strict=True)):
        rows.append(
            {
                "arm": cell.arm.name,
                "factor": cell.arm.factor,
                "prompt": cell.prompt,
                "sample": cell.sample,
                "prompt_text": prompts[cell.prompt].prompt.text,
                "paraphrase": prompts[cell.prompt].paraphrase,
                "text": texts[index],
                "language": named[index],
                "tokens": len(tokens[index]),
                "ended": inference_pb2.EndReason.Name(ended[index]).removeprefix("END_REASON_").lower(),
                "repeated_3grams": repeated_ngrams(tokens[index], 3),
                "looping": ends_in_loop(tokens[index]),
                "compression": compression(texts[index]),
                "changed_positions": proof.changed,
                "relative_change": {layer: count.mean_relative for layer, count in proof.layers.items()},
                "spec": cell.arm.spec.hash,
            }
        )
    return rows, batch.nothing_happened(at="steer.steering")


def _side_effects(
    context: RunContext, loaded: LoadedModel, arms: list[Arm], saes: Saes
) -> dict[tuple[str, float], dict[str, float]]:
    settings = context.experiment.steer.side_effects
    if settings.tokens == 0:
        return {}
    stream = open_tokens(settings.text, loaded, seed=context.seed_for("neutral"), at="steer.side_effects.text")
    context.progress("measuring side effects", 0, 1, "")
    costs = neutral_costs(loaded, [arm.spec for arm in arms], stream, settings.tokens, saes)
    return {
        (arm.name, arm.factor): {
            "neutral_tokens": cost.tokens,
            "perplexity_ratio": cost.perplexity_ratio,
            "kl": cost.kl,
        }
        for arm, cost in zip(arms, costs, strict=True)
    }


def _report(
    context: RunContext,
    loaded: LoadedModel,
    rows: list[dict[str, Any]],
    costs: dict[tuple[str, float], dict[str, float]],
    scales: Scales,
) -> None:
    summary = summarise(rows, costs)
    path = context.artifacts / "steering.json"
    write_json(
        path,
        {
            "model": loaded.facts.as_dict(),
            "implementation": implementation_facts(loaded),
            "scales": {
                "source": scales.source,
                "median_norm": scales.median_norm,
                "max_activation": [[*key, value] for key, value in scales.max_activation.items()],
            },
            "arms": summary,
            "usable": [asdict(side) for side in usable_range(summary)],
        },
    )
    context.artifact(path, kind="steering", description=f"{len(summary)} arms and strengths")
    context.report(steering_report(context.experiment.name, summary, rows))
    context.info("\n".join(steering_lines(summary)))
    for side in usable_range(summary):
        context.info(usable_sentence(side))
    if wording := stability_line(summary):
        context.info(wording)
