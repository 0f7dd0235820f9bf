"""What several recipes do alike."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qscope.data import TokenStream, open_text
from qscope.data.hub import SourceFields, SourceName, commit_of
from qscope.data.source import EMBEDDED
from qscope.errors import UserError
from qscope.features.files import NAME as FEATURES
from qscope.models import LoadedModel
from qscope.runs import RunContext, find_run, run_folders
from qscope.runs.files import read_json, write_json
from qscope.sae.evaluation import evaluate
from qscope.sae.identity import check_pair
from qscope.sae.store import read_facts
from qscope.sae.topk import TopKSae
from qscope.v1 import sae_pb2, steering_pb2, text_pb2
from qscope.v1.experiment_pb2 import Experiment

_PLACES = "places.json"


def open_tokens(source: text_pb2.TextSource, loaded: LoadedModel, *, seed: int, at: str) -> TokenStream:
    """The token sequences of one text source for one model; ``at`` is the source's field in the experiment."""
    reader = open_text(source, at=at, seed=seed)
    return TokenStream(reader, loaded.tokenizer, context=source.context, pack=source.pack, repeat=source.repeat, at=at)


def evaluate_into(
    context: RunContext,
    loaded: LoadedModel,
    saes: dict[int, TopKSae],
    tokens: TokenStream,
    *,
    count: int,
    batch_tokens: int,
    filter: sae_pb2.ActivationFilter,
    step: int = 0,
) -> None:
    """Evaluates SAEs, reports metrics ``eval_*`` of ``step`` and writes ``artifacts/evaluation.json``."""
    report = evaluate(
        loaded,
        saes,
        tokens,
        count=count,
        batch_tokens=batch_tokens,
        filter=filter,
        on_progress=lambda done: context.progress("evaluating", done, count, "tokens"),
        should_stop=lambda: context.stop_requested,
    )
    if report is None:
        context.stop(step)
    context.metrics(
        step, {layer: {f"eval_{name}": value for name, value in row.items()} for layer, row in report.per_layer.items()}
    )
    path = context.artifacts / "evaluation.json"
    path.write_text(json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n")
    context.artifact(path, kind="evaluation", description=f"{len(saes)} layers, {report.tokens:,} held-out tokens")


def warn_of_misfit(context: RunContext, place: Path | str, layers: list[int], loaded: LoadedModel, *, at: str) -> None:
    """Refuses SAEs of another model, and warns of those that were trained on another kind of it."""
    known = read_facts(place, layers, offline=context.experiment.model_options.offline)
    for warning in check_pair(known, loaded.facts, field=at):
        context.warning(warning)


def place_of_saes(name: str, runs: Path, *, at: str) -> Path | str:
    """What to load: a path or hub id as it is; a run folder, its id or ``latest`` becomes the folder of its SAEs.

    Args:
        name: what the experiment says.
        runs: folder of the runs.
        at: the field that says it, for errors.
    """
    path = Path(name).expanduser()
    if path.exists():
        saes = path / "artifacts" / "sae"
        return saes if saes.is_dir() else path
    if "/" in name or name.startswith("SAE-Res-"):
        return name
    if name != "latest":
        return find_run(runs, name).artifacts / "sae"
    # The newest run of all is the one that asks; the newest with SAEs is meant.
    for folder in run_folders(runs):
        if (folder.artifacts / "sae").is_dir():
            return folder.artifacts / "sae"
    raise UserError(
        f"No run in {runs} has SAEs yet.",
        remedy="Train some first, for example: qscope train-sae configs/embedded/train-sae.yaml",
        reason="SAE_NOT_FOUND",
        field=at,
    )


def run_or_path(name: str, runs: Path, holds: str, *, verb: str = "", at: str = "") -> Path:
    """A path as it is; what is none is a run's id, its beginning, or ``latest`` for the newest that ``holds`` it.

    Args:
        name: as the experiment has it.
        runs: folder of runs.
        holds: artifact that ``latest`` must have.
        verb: where several verbs write that artifact, the one whose runs ``latest`` means, such as "features language".
        at: the experiment field that holds the name, for an error.

    Raises:
        UserError: no such run, or several (RUN_NOT_FOUND, RUN_AMBIGUOUS).
    """
    path = Path(name).expanduser()
    if path.exists() or "/" in name:
        return path
    if name == "latest":
        for folder in run_folders(runs):
            if (folder.artifacts / holds).exists() and (not verb or _is_of(folder.path, verb)):
                return folder.path
        if verb:
            raise UserError(
                f"There is no run of `qscope {verb}` in {runs}.",
                remedy=f"Start one with `qscope {verb}`, or name the run or its file.",
                reason="RUN_NOT_FOUND",
                field=at,
            )
    return find_run(runs, name).path


def _is_of(folder: Path, verb: str) -> bool:
    """Whether a run is of a verb "features KIND", whose field is called the other way round."""
    return "_".join(reversed(verb.split())) in (read_json(folder / "experiment.json") or {})


def pinned(context: RunContext, at: str, find: Callable[[], Path | str]) -> Path | str:
    """What a name such as ``latest`` means in a run: looked up once, by the first attempt that asks.

    Other runs end between two attempts; a resumed run whose names meant something new would mix two sets of SAEs. The
    answers stand in ``artifacts/places.json``, those inside the folder of runs relative to it, so that it may be moved.
    Of several ranks the first looks; every rank has to ask.

    Args:
        context: the run.
        at: the experiment field that holds the name.
        find: looks the name up.

    Returns:
        What ``find`` returned the first time: a path, or the name of a repository.

    Raises:
        UserError: what ``find`` raises; nothing is written then. What it found is no longer there (PINNED_GONE).
    """
    return context.ranks.first(lambda: _pinned(context, at, find))


def _pinned(context: RunContext, at: str, find: Callable[[], Path | str]) -> Path | str:
    known = _pins(context)
    if at not in known:
        place, runs = find(), context.folder.parent.resolve()
        if not isinstance(place, Path):
            known[at] = {"name": place}
        elif place.resolve().is_relative_to(runs):
            known[at] = {"run": str(place.resolve().relative_to(runs))}
        else:
            known[at] = {"path": str(place)}
        write_json(context.artifacts / _PLACES, known)
    return _pinned_place(context, at, known[at])


def as_begun(context: RunContext) -> Experiment:
    """The experiment of a run with every name that :func:`pinned` has looked up replaced by what it meant then.

    What a resumed run is admitted by: ``latest`` may by now be of another model, or wider than memory.

    Raises:
        UserError: what a name meant is no longer there (PINNED_GONE).
    """
    experiment = Experiment()
    experiment.CopyFrom(context.experiment)
    for at, entry in _pins(context).items():
        *folders, name = re.findall(r"[^.\[\]]+", at)
        message: Any = experiment
        for folder in folders:
            message = message[int(folder)] if folder.isdigit() else getattr(message, folder)
        setattr(message, name, str(_pinned_place(context, at, entry)))
    return experiment


def _pins(context: RunContext) -> dict[str, dict[str, str]]:
    path = context.artifacts / _PLACES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _pinned_place(context: RunContext, at: str, entry: dict[str, str]) -> Path | str:
    if "name" in entry:
        return entry["name"]
    place = context.folder.parent.resolve() / entry["run"] if "run" in entry else Path(entry["path"])
    if not place.exists():
        raise UserError(
            f"This run began with {place}, which is no longer there.",
            remedy="Put it back, or start a new run: this one cannot go on with anything else.",
            reason="PINNED_GONE",
            field=at,
        )
    return place


def pin_revision(context: RunContext, fields: SourceFields, at: str) -> None:
    """Gives a source that is a data set of the hub the commit that the run began with, in place.

    Args:
        context: the run.
        fields: the source; anything else than a data set is left alone.
        at: its experiment field.

    Raises:
        UserError: see :func:`qscope.data.hub.find_commit`.
    """
    name = SourceName.of(fields, at)
    if name.source and name.source not in EMBEDDED and name.is_hub:
        fields.revision = str(pinned(context, f"{at}.revision", lambda: commit_of(name)))


def pin_feature_files(context: RunContext, spec: steering_pb2.SteeringSpec, *, at: str) -> None:
    """As :func:`place_feature_files`, with what the first attempt of the run found; ``at`` is the spec's field."""
    runs = context.folder.parent
    for index, edit in enumerate(spec.edits):
        if edit.feature_file:
            find = partial(run_or_path, edit.feature_file, runs, FEATURES)
            edit.feature_file = str(pinned(context, f"{at}.edits[{index}].feature_file", find))


def place_feature_files(spec: steering_pb2.SteeringSpec, runs: Path) -> None:
    """Turns the runs that a spec names as feature files into their folders, in place."""
    for edit in spec.edits:
        if edit.feature_file:
            edit.feature_file = str(run_or_path(edit.feature_file, runs, FEATURES))
