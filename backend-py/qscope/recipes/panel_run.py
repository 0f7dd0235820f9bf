"""A panel of models, scored item by item: one model at a time, each benchmark kept as soon as it is whole."""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from qscope.data.items import Benchmark
from qscope.errors import Stopped, UserError
from qscope.evaluation.score_rows import COLUMNS
from qscope.evaluation.scoring import ItemScorer
from qscope.models import choose_device, load_model
from qscope.recipes.feature_parts import as_json
from qscope.runs import RunContext
from qscope.runs.files import write_csv
from qscope.runs.ledger import Ledger, key_of
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.redundancy_pb2 import BenchRedundancy, PanelModel

AT = "bench_redundancy"
#: Among the artifacts: what has been scored, and the scores, one table for each model and benchmark.
LEDGER, SCORES = "scored.jsonl", "scores"


@dataclass(frozen=True)
class Scored:
    """A model of the panel: its name in tables, and where it comes from."""

    name: str
    model: PanelModel
    at: str


def panel_models(task: BenchRedundancy) -> list[Scored]:
    """The models of the panel under their names.

    Raises:
        UserError: two have one name (NAME_TWICE).
    """
    found: dict[str, Scored] = {}
    for index, model in enumerate(task.panel.models):
        at = f"{AT}.panel.models[{index}]"
        name = model.name or _named_after(model)
        if name in found:
            raise UserError(
                f"Two models of the panel are called '{name}'.",
                remedy="Give each a name of its own: { model: FOLDER, name: early }.",
                reason="NAME_TWICE",
                field=f"{at}.name",
            )
        found[name] = Scored(name, model, at)
    return list(found.values())


def _named_after(model: PanelModel) -> str:
    last = model.model.rstrip("/").rpartition("/")[2]
    whole = f"{last}-{model.revision}" if model.revision else last
    return re.sub(r"[^A-Za-z0-9._-]", "-", whole).lstrip("._-")[:64] or "model"


def options_of(model: PanelModel, options: ModelOptions) -> ModelOptions:
    """How a model of the panel is loaded: as the experiment's own, at a revision of its own."""
    mine = ModelOptions()
    mine.CopyFrom(options)
    mine.revision = model.revision
    return mine


def score_panel(context: RunContext, task: BenchRedundancy, benchmarks: Sequence[Benchmark]) -> Path:
    """Scores every model on every benchmark; what an earlier attempt of the run has scored whole is kept.

    Returns:
        The folder of scores, in the form that ``panel.source`` reads.

    Raises:
        UserError: a model cannot be loaded, has changed since an earlier attempt (MODEL_CHANGED), or cannot be scored.
    """
    folder, ledger = context.artifacts / SCORES, Ledger(context.artifacts / LEDGER)
    models = panel_models(task)
    for number, scored in enumerate(models, start=1):
        keys = {one.name: _key(context, task, scored, one) for one in benchmarks}
        todo = [one for one in benchmarks if not _is_there(folder, scored, one, ledger, keys)]
        if todo:
            where = f"{scored.name} ({number} of {len(models)})"
            _score_model(context, task, scored, todo, ledger, keys, where)
    context.artifact(folder, kind="table", description=f"scores of {len(models)} models, item by item")
    return folder


def _score_model(
    context: RunContext,
    task: BenchRedundancy,
    scored: Scored,
    todo: Sequence[Benchmark],
    ledger: Ledger,
    keys: dict[str, str],
    where: str,
) -> None:
    experiment = context.experiment
    device = choose_device(experiment.compute.device)
    try:
        loaded = load_model(scored.model.model, options_of(scored.model, experiment.model_options), device)
    except UserError as error:
        raise at_model(error, scored) from error
    fingerprint = loaded.facts.fingerprint
    before = {known for known in map(ledger.get, keys.values()) if known is not None}
    if before - {fingerprint}:
        raise UserError(
            f"{scored.name} is not the model that this run began to score.",
            remedy="Start the run anew, or put the model back.",
            reason="MODEL_CHANGED",
            field=f"{scored.at}.model",
        )
    for benchmark in todo:
        phase = f"{scored.name}: {benchmark.name}"
        scorer = ItemScorer(
            loaded,
            task.rendering,
            batch_rows=task.panel.batch_rows,
            on_progress=lambda done, asked, phase=phase: context.progress(phase, done, asked, "answers"),
            should_stop=lambda: context.stop_requested,
            at=f"{benchmark.at}.score.max_tokens",
            rendering_at=f"{AT}.rendering",
        )
        try:
            scores_N = scorer.scores(benchmark.items, benchmark.scoring)
        except Stopped:
            context.stop(0)
        if scorer.cut:
            context.warning(f"{phase}: {scorer.cut:,} prompts lost their beginning to the model's context.")
        path = _path(context.artifacts / SCORES, scored, benchmark)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(
            path,
            COLUMNS,
            (
                {"model": scored.name, "benchmark": benchmark.name, "item": item.number, "score": float(score)}
                for item, score in zip(benchmark.items, scores_N, strict=True)
            ),
        )
        # After the table: whatever the ledger names is there and whole.
        ledger.put(keys[benchmark.name], fingerprint)
    context.info(f"scored {where}")
    # Before the next is loaded: one at a time is what the plan counts on.
    del loaded, scorer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def at_model(error: UserError, scored: Scored) -> UserError:
    """An error about a model, at its place in the panel."""
    return UserError(error.message, remedy=error.remedy, reason=error.reason, field=f"{scored.at}.model")


def _path(folder: Path, scored: Scored, benchmark: Benchmark) -> Path:
    return folder / scored.name / f"{benchmark.name}.csv"


def _is_there(folder: Path, scored: Scored, benchmark: Benchmark, ledger: Ledger, keys: dict[str, str]) -> bool:
    return ledger.get(keys[benchmark.name]) is not None and _path(folder, scored, benchmark).exists()


def _key(context: RunContext, task: BenchRedundancy, scored: Scored, benchmark: Benchmark) -> str:
    """Identity of a model's scores on a benchmark: all that decides them but the weights, which the ledger holds."""
    items = [
        [item.number, item.prompt, item.right.text, list(item.right.choices), item.right.right]
        for item in benchmark.items
        if item.right is not None
    ]
    return key_of(
        {
            "name": scored.name,
            "model": as_json(scored.model),
            "options": as_json(context.experiment.model_options),
            "benchmark": benchmark.name,
            "scoring": as_json(benchmark.scoring),
            "rendering": as_json(task.rendering),
            "batch_rows": task.panel.batch_rows,
            "items": key_of(items),
        }
    )
