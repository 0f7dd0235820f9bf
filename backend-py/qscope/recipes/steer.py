"""``qscope steer FILE``: the same prompts under every arm and strength, with proof, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any

import torch

from qscope.errors import Stopped, UserError
from qscope.models import LoadedModel, check_hooks, choose_device, load_model
from qscope.models.generation import Generation, TextStream, refuse_beyond_context
from qscope.models.kernels import implementation_facts
from qscope.models.prompts import Prompt, render_prompt
from qscope.recipes.admission import admit
from qscope.recipes.feature_parts import as_json
from qscope.recipes.shared import open_tokens, pin_feature_files, pinned, place_of_saes
from qscope.recipes.steer_report import stability_line, steering_lines, steering_report, task_lines, usable_sentence
from qscope.runs import RunContext
from qscope.runs.files import write_json
from qscope.runs.ledger import Ledger, key_of
from qscope.runs.lines import JsonLines
from qscope.steering.baselines import class_means, diff_in_means, sdcv, with_directions
from qscope.steering.batch import SteeredBatch
from qscope.steering.calibration import measure_activity
from qscope.steering.capability import FoundTasks, find_tasks, limit_of, measure_task, refuse_without_room
from qscope.steering.controls import control_arm, refuse_meaningless_controls, with_factor
from qscope.steering.proof import RowProof
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.resolver import SpecResolver
from qscope.steering.saes import NoSaes, Saes, StoredSaes
from qscope.steering.scales import Scales
from qscope.steering.side_effects import compression, ends_in_loop, languages, neutral_costs, repeated_ngrams
from qscope.steering.summary import summarise, usable_range
from qscope.v1 import inference_pb2, steer_pb2
from qscope.v1.steer_pb2 import CapabilityTasks
from qscope.v1.steering_pb2 import STEERING_OP_ADD, STEERING_OP_CLAMP_MIN, STEERING_OP_SCALE, SteeringSpec


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
    found = find_tasks(task.capability, seed=context.seed_for("tasks")) if task.capability.tasks else None
    refuse_meaningless_controls(task.steering, list(task.controls), prompt_prefix=task.baselines.prompt_prefix)
    loaded = load_model(experiment.model, experiment.model_options, choose_device(experiment.compute.device))
    check_hooks(loaded)
    if found is not None:
        refuse_without_room(loaded, found)
    for fact in implementation_facts(loaded):
        context.info(fact)
    tools = _Tools(_open_saes(context, loaded))
    prompts = _prompts(context, loaded)
    _refuse_long_prefix(context, loaded, prompts)
    arms = _arms(context, loaded, tools)
    context.info(f"{len(prompts)} prompts x {task.samples} samples x {len(arms)} arms")

    rows = _generate(context, loaded, prompts, arms, tools.saes)
    costs = _side_effects(context, loaded, arms, tools.saes)
    if found is not None:
        for key, scores in _capability(context, loaded, arms, tools.saes, found).items():
            costs[key] = {**costs.get(key, {}), "tasks": scores}
    _report(context, loaded, rows, costs, tools.scales)


@dataclass
class _Tools:
    """What every arm needs: the SAEs, and what was measured about their features."""

    saes: Saes
    scales: Scales = field(default_factory=Scales)


def _open_saes(context: RunContext, loaded: LoadedModel) -> Saes:
    task, offline = context.experiment.steer, context.experiment.model_options.offline
    try:
        place = pinned(context, "steer.sae", lambda: place_of_saes(task.sae, context.folder.parent, at="steer.sae"))
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


def _refuse_long_prefix(context: RunContext, loaded: LoadedModel, prompts: list[Asked]) -> None:
    """Refuses a text before the prompts that leaves no room, before any arm is made."""
    task = context.experiment.steer
    if steer_pb2.STEERING_CONTROL_PROMPT not in task.controls:
        return
    for asked in prompts:
        prompt = _prefixed(context, loaded, asked.prompt, task.baselines.prompt_prefix)
        refuse_beyond_context(loaded, len(prompt), task.sampling.max_tokens, at="steer.baselines.prompt_prefix")


def _prefixed(context: RunContext, loaded: LoadedModel, prompt: Prompt, prefix: str) -> Prompt:
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


def _arms(context: RunContext, loaded: LoadedModel, tools: _Tools) -> list[Arm]:
    """Unsteered, steered and the controls, the last two at every factor."""
    task = context.experiment.steer
    factors = list(task.sweep) or [1.0]
    saes, resolver = tools.saes, SpecResolver(loaded, tools.saes)
    pin_feature_files(context, task.steering, at="steer.steering")
    spec, known = resolver.expand(task.steering, at="steer.steering")
    steered = {
        factor: resolver.resolve(with_factor(spec, factor, at="steer.sweep"), known, at="steer.steering")
        for factor in factors
    }
    tools.scales = resolver.scales(known)
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


def _generate(
    context: RunContext, loaded: LoadedModel, prompts: list[Asked], arms: list[Arm], saes: Saes
) -> list[dict[str, Any]]:
    """Every cell, batch by batch; what an earlier attempt of this run wrote is kept."""
    task = context.experiment.steer
    path = context.artifacts / "generations.jsonl"
    kept = JsonLines(path)
    if kept.damaged:
        context.warning(f"{kept.damaged:,} damaged lines in {path.name} are passed over; their texts are made again.")
    specs = {(arm.name, arm.factor): arm.spec.hash for arm in arms}
    # A file may have been replaced in its place: rows of two kinds of steering must not stand in one arm.
    if foreign := kept.keep(lambda row: row["spec"] == specs.get((row["arm"], row["factor"]))):
        context.warning(
            f"{foreign:,} texts in {path.name} were made under other steering: the SAEs, feature files or vectors have "
            "changed since. They are made again."
        )
    rows = list(kept.records)
    known = {(row["arm"], row["factor"], row["prompt"], row["sample"]) for row in rows}
    cells = [Cell(arm, p, s) for arm in arms for p in range(len(prompts)) for s in range(task.samples)]
    total = len(cells)
    cells = [cell for cell in cells if cell.key not in known]
    for arm in arms:
        mine, silent = [cell for cell in cells if cell.arm is arm], None
        for start in range(0, len(mine), task.batch_rows):
            new, silent = _batch(context, loaded, prompts, mine[start : start + task.batch_rows], saes)
            kept.append(new)
            rows += new
            context.progress("generating", len(rows), total, "texts")
        _refuse_if_nothing_happened(context, arms, arm, rows, silent)
    context.artifact(path, kind="generations", description=f"{len(rows):,} texts of {len(arms)} arms")
    return rows


def _refuse_if_nothing_happened(
    context: RunContext, arms: list[Arm], arm: Arm, rows: list[dict[str, Any]], why: UserError | None
) -> None:
    """Steering that asked for a change and made none, in any text at any strength, is a failure.

    Decided from the texts themselves, whoever made them: those of an earlier attempt of this run count alike, or else a
    run that failed here would succeed when it is resumed. Some texts of an arm may hold nothing to change, and so may a
    whole arm: a weak strength of a sweep, a control whose features are silent. That is told, and the other arms go on;
    no change at any strength means that the spec does not work.

    Args:
        context: takes the warnings.
        arms: every arm, in the order they are made.
        arm: the arm whose texts are complete now.
        rows: every row so far, of all arms.
        why: what the last batch of this attempt says about itself; None when it changed something or made no text.

    Raises:
        UserError: NOTHING_STEERED.
    """
    changed = {(row["arm"], row["factor"]) for row in rows if row["changed_positions"]}
    if arm.spec.changes_nothing or (arm.name, arm.factor) in changed:
        return
    count = sum((row["arm"], row["factor"]) == (arm.name, arm.factor) for row in rows)
    error = why or UserError(
        f"None of the {count:,} texts of {arm.name} x {arm.factor:g} holds a changed position: nothing was steered.",
        remedy="Widen `where`, lower the thresholds in `when`, or choose features that fire on these prompts; then "
        "start a new run.",
        reason="NOTHING_STEERED",
        field="steer.steering",
    )
    steered = [other for other in arms if other.name == "steered" and not other.spec.changes_nothing]
    if arm in steered[-1:] and not any((other.name, other.factor) in changed for other in steered):
        raise error
    context.warning(f"{arm.name} x {arm.factor:g} changed none of its texts. {error.message}")


def _batch(
    context: RunContext, loaded: LoadedModel, prompts: list[Asked], cells: list[Cell], saes: Saes
) -> tuple[list[dict[str, Any]], UserError | None]:
    """The texts of one batch, and the error if steering changed nothing in it."""
    task = context.experiment.steer
    read = [prompts[cell.prompt].prompt for cell in cells]
    if cells[0].arm.prefix:
        read = [_prefixed(context, loaded, prompt, cells[0].arm.prefix) for prompt in read]
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
    streams = [TextStream(loaded.tokenizer, task.sampling.stop) for _ in cells]
    ended: dict[int, int] = {}
    proofs: dict[int, RowProof] = {}
    while not generation.done:
        if context.stop_requested:
            context.stop(0)
        step = generation.step()
        for drawn in step.drawn:
            if step.ended.get(drawn.row) == inference_pb2.END_REASON_END_TOKEN:
                continue
            tokens[drawn.row].append(drawn.token)
            streams[drawn.row].push(drawn.token)
            if streams[drawn.row].stopped:
                step.ended[drawn.row] = inference_pb2.END_REASON_STOP_TEXT
                generation.end(drawn.row)
        # Read where a row ends: a batch may go on for the others, and feed this one its last token once more.
        at_end = batch.row_proofs() if step.ended else []
        for row in step.ended:
            proofs[row] = at_end[row]
            streams[row].finish()
        ended |= step.ended
    texts = [stream.text for stream in streams]
    # What repeats is measured on the text, and the stop text is no part of it.
    tokens = [
        tokens_of(loaded.tokenizer, ids, stream.text) if stream.stopped else ids
        for ids, stream in zip(tokens, streams, strict=True)
    ]
    named = languages(texts, tuple(task.languages))
    rows = []
    for index, cell in enumerate(cells):
        proof = proofs[index]
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


def tokens_of(tokenizer: Any, ids: list[int], text: str) -> list[int]:
    """The shortest beginning of ``ids`` whose decoding holds ``text``, which is a beginning of what all of them say."""

    def holds(count: int) -> bool:
        told = tokenizer.decode(ids[:count], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return told.startswith(text)

    count = len(ids)
    while count and holds(count - 1):
        count -= 1
    return ids[:count]


def _side_effects(
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


def _capability(
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


def _report(
    context: RunContext,
    loaded: LoadedModel,
    rows: list[dict[str, Any]],
    costs: dict[tuple[str, float], dict[str, Any]],
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
    from_unsteered = _begins_unsteered(context.experiment.steer.steering)
    context.report(steering_report(context.experiment.name, summary, rows, from_unsteered=from_unsteered))
    context.info("\n".join(steering_lines(summary)))
    for side in usable_range(summary):
        context.info(usable_sentence(side))
    if wording := stability_line(summary):
        context.info(wording)
    if tasks := task_lines(summary):
        context.info("\n".join(tasks))


def _begins_unsteered(spec: SteeringSpec) -> bool:
    """Whether a spec at factor 0 is no steering: a feature set to 0 is silenced, and a text may still be ended."""
    harmless = (STEERING_OP_ADD, STEERING_OP_SCALE, STEERING_OP_CLAMP_MIN)
    return not spec.abort_when and all(edit.op in harmless for edit in spec.edits)
