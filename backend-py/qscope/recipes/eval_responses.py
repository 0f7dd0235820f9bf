"""``qscope eval repeat|codeswitch|accuracy``: what responses do, written by a model now or by anybody before."""

from __future__ import annotations

import json
import time
from pathlib import Path

from qscope.errors import Stopped, UserError
from qscope.features.encoders import model_record
from qscope.models import LoadedModel, choose_device, load_model
from qscope.models.generation import context_length
from qscope.models.kernels import implementation_facts
from qscope.posttraining.answered import Answered
from qscope.posttraining.answering import Asked, answer, batches
from qscope.posttraining.evaluating import measure, refuse_unmeasurable
from qscope.posttraining.examples import Prompts
from qscope.posttraining.findings import findings
from qscope.posttraining.saved_responses import Saved
from qscope.recipes.admission import admit
from qscope.recipes.eval_onset import Probe, around_switches, open_probe
from qscope.recipes.eval_parts import AT, RESPONSES, places_of, prompts_for, reads_saved, saved_of
from qscope.recipes.eval_report import eval_report
from qscope.recipes.eval_words import Origin, eval_lines, metrics_of, results_of
from qscope.recipes.feature_parts import as_json
from qscope.recipes.shared import pin_revision, pinned
from qscope.runs import RunContext
from qscope.runs.files import plain, write_csv, write_json, write_jsonl
from qscope.runs.ledger import key_of
from qscope.runs.stream import GrowingFiles
from qscope.v1.eval_pb2 import EvalResponses

NOTE = "progress.json"


def run(context: RunContext) -> None:
    """Gets the responses, batch by batch or from a file, then measures them; a resumed run ends with equal bytes."""
    admit(context)
    task: EvalResponses = context.experiment.eval_responses
    probe: Probe | None = None
    if reads_saved(task):
        answered, origin = _saved(context, task)
    else:
        answered, origin, probe = _written(context, task)
    places = places_of(task)
    responses = [one.response for one in answered]
    # Languages of saved responses may be told by their prompts, and then nobody has looked at them yet.
    languages, answers = [one.language for one in responses], [one.answer for one in responses]
    refuse_unmeasurable(task, languages, answers, places)
    try:
        measured = measure(
            responses,
            task,
            places,
            cut_off_known=origin.cut_off_known,
            should_stop=lambda: context.stop_requested,
        )
    except Stopped:
        context.stop(len(responses))
    found = list(findings(answered, measured))
    path = context.artifacts / "findings.jsonl"
    write_jsonl(path, found)
    context.artifact(path, kind="findings", description=f"{len(found):,} loops, switches and wrong answers")
    path = context.artifacts / "results.json"
    onset = around_switches(context, task, probe, answered, measured) if probe is not None else None
    write_json(path, results_of(task, measured, origin) | ({"onset": onset.as_dict()} if onset is not None else {}))
    context.artifact(path, kind="results", description=f"{measured.n:,} responses")
    context.metrics(0, {-1: metrics_of(measured)})
    report = eval_report(context.experiment.name, measured, origin, found)
    if onset is not None:
        report.sections.insert(1, onset.section())
    context.report(report)
    context.info("\n".join(eval_lines(measured, origin)))


def _saved(context: RunContext, task: EvalResponses) -> tuple[list[Answered], Origin]:
    field = f"{AT}.responses.source"
    saved = saved_of(task, context.folder.parent, lambda find: Path(pinned(context, field, find)))
    columns = ", ".join(f"{part}: {column}" for part, column in saved.columns.items())
    context.info(f"{len(saved.answered):,} responses of {task.responses.source} ({columns})")
    _warn_of(context, saved)
    rows = len({one.row for one in saved.answered})
    return saved.answered, Origin(
        task.responses.source, rows, saved.cut_off_known, len(saved.faults), saved.tagged, saved.steered
    )


def _warn_of(context: RunContext, saved: Saved) -> None:
    if saved.faults:
        path = context.artifacts / "faults.csv"
        write_csv(path, ("place", "why"), ({"place": one.place, "why": one.why} for one in saved.faults))
        context.artifact(path, kind="table", description=f"{len(saved.faults):,} rows left out")
        first = saved.faults[0]
        context.warning(
            f"{len(saved.faults):,} rows left out, listed in artifacts/{path.name}. The first: {first.place}: "
            f"{first.why}."
        )
    if saved.steered:
        context.warning(f"{saved.steered:,} steered rollouts are left out: the model alone does not write like that.")


def _written(context: RunContext, task: EvalResponses) -> tuple[list[Answered], Origin, Probe | None]:
    """The model's responses, and what looks at them again; what an earlier attempt of this run wrote is kept."""
    pin_revision(context, task.prompts, f"{AT}.prompts")
    experiment = context.experiment
    loaded = load_model(experiment.model, experiment.model_options, choose_device(experiment.compute.device))
    for fact in implementation_facts(loaded):
        context.info(fact)
    prompts = prompts_for(task, loaded.tokenizer, context_length(loaded))
    context.info(f"{prompts.summary()} ({prompts.template})")
    if left_out := prompts.read - len(prompts.items):
        first = prompts.faults[0]
        context.warning(f"{left_out:,} prompts left out. The first: {first.place}: {first.why}.")
    probe = open_probe(context, task, loaded, prompts) if task.HasField("onset") else None
    answered = _answered(context, task, loaded, prompts)
    origin = Origin(
        task.prompts.source,
        len(prompts.items),
        True,
        prompts.read - len(prompts.items),
        prompts.tagged.total(),
        samples=task.samples,
        model=model_record(loaded.facts).fingerprint,
    )
    return answered, origin, probe


def _answered(context: RunContext, task: EvalResponses, loaded: LoadedModel, prompts: Prompts) -> list[Answered]:
    key = key_of({"prompts": prompts.identity, "model": as_json(model_record(loaded.facts)), "task": as_json(task)})
    files = GrowingFiles(context.artifacts, (RESPONSES,), note=NOTE)
    state = files.state or {"key": key, "batches": 0}
    if state["key"] != key:
        raise UserError(
            "Prompts or model have changed since the run began.",
            remedy="Restore them, or start a new run.",
            reason="EVAL_CHANGED",
            field=f"{AT}.prompts",
        )
    path = context.artifacts / RESPONSES
    answered = [Answered.of_row(json.loads(line)) for line in path.read_bytes().splitlines()]
    made = batches(prompts.items, task.samples, task.batch_rows)
    kept, total, begun = len(answered), sum(map(len, made)), time.monotonic()
    if kept:
        context.info(f"{kept:,} of {total:,} responses are kept from before")
    for number, asked in enumerate(made[state["batches"] :], start=state["batches"]):
        new = _batch(context, task, loaded, asked, len(answered), total)
        lines = b"".join((json.dumps(plain(one.as_row())) + "\n").encode() for one in new)
        files.append({RESPONSES: lines}, {"key": key, "batches": number + 1})
        answered += new
    context.artifact(path, kind="responses", description=f"{total:,} responses to {len(prompts.items):,} prompts")
    if total > kept:
        _tell_speed(context, answered[kept:], time.monotonic() - begun)
    return sorted(answered, key=lambda one: (one.row, one.sample))


def _batch(
    context: RunContext, task: EvalResponses, loaded: LoadedModel, asked: list[Asked], done: int, total: int
) -> list[Answered]:
    """The responses of one batch; leaves the recipe when it is asked to stop before they are complete."""
    try:
        return answer(
            loaded,
            asked,
            task.sampling,
            lambda one: context.seed_for(f"response {one.prompt.row} {one.sample}"),
            should_stop=lambda: context.stop_requested,
            on_ended=lambda count: context.progress("answering", done + count, total, "responses"),
        )
    except Stopped:
        context.stop(done)


def _tell_speed(context: RunContext, new: list[Answered], seconds: float) -> None:
    tokens = sum(len(one.response.ids) for one in new)
    context.info(
        f"wrote {len(new):,} responses of {tokens:,} tokens in {seconds:.1f} s "
        f"({len(new) / seconds:.1f} responses, {tokens / seconds:,.0f} tokens a second)"
    )
