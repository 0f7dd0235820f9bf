"""``qscope steer FILE``: the same prompts under every arm and strength, with proof, and what each costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from qscope.errors import UserError
from qscope.models import LoadedModel, check_hooks, choose_device, load_model
from qscope.models.generation import Generation, TextStream
from qscope.models.kernels import implementation_facts
from qscope.models.stop_texts import tokens_of
from qscope.recipes.admission import admit
from qscope.recipes.shared import pinned, place_of_saes
from qscope.recipes.steer_arms import Arm, Asked, arms_of, prefixed, prompts_of, refuse_long_prefix
from qscope.recipes.steer_costs import capability_of, side_effects_of
from qscope.recipes.steer_report import stability_line, steering_lines, steering_report, task_lines, usable_sentence
from qscope.runs import RunContext
from qscope.runs.files import write_json
from qscope.runs.lines import JsonLines
from qscope.steering.batch import SteeredBatch
from qscope.steering.capability import find_tasks, refuse_without_room
from qscope.steering.controls import refuse_meaningless_controls
from qscope.steering.proof import RowProof
from qscope.steering.saes import NoSaes, Saes, StoredSaes
from qscope.steering.scales import Scales
from qscope.steering.side_effects import ends_in_loop
from qscope.steering.summary import summarise, usable_range
from qscope.text.languages import languages
from qscope.text.loops import compression, repeated_ngrams
from qscope.v1 import inference_pb2
from qscope.v1.steering_pb2 import STEERING_OP_ADD, STEERING_OP_CLAMP_MIN, STEERING_OP_SCALE, SteeringSpec


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
    saes = _open_saes(context, loaded)
    prompts = prompts_of(context, loaded)
    refuse_long_prefix(context, loaded, prompts)
    arms, scales = arms_of(context, loaded, saes)
    context.info(f"{len(prompts)} prompts x {task.samples} samples x {len(arms)} arms")

    rows = _generate(context, loaded, prompts, arms, saes)
    costs = side_effects_of(context, loaded, arms, saes)
    if found is not None:
        for key, scores in capability_of(context, loaded, arms, saes, found).items():
            costs[key] = {**costs.get(key, {}), "tasks": scores}
    _report(context, loaded, rows, costs, scales)


def _open_saes(context: RunContext, loaded: LoadedModel) -> Saes:
    task, offline = context.experiment.steer, context.experiment.model_options.offline
    try:
        place = pinned(context, "steer.sae", lambda: place_of_saes(task.sae, context.folder.parent, at="steer.sae"))
    except UserError as error:
        return NoSaes(error)
    return StoredSaes(place, loaded, offline=offline, tell=context.info, warn=context.warning, at="steer.sae")


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
        read = [prefixed(context, loaded, prompt, cells[0].arm.prefix) for prompt in read]
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
