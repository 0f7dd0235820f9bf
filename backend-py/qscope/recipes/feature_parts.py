"""What the recipes of ``qscope features`` do alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from google.protobuf import json_format
from google.protobuf.message import Message

from qscope import __version__
from qscope.data import open_text
from qscope.errors import UserError
from qscope.features.contrast import Found
from qscope.features.documents import DocumentReader
from qscope.features.encoders import load_encoders, model_record, sae_record
from qscope.features.files import NAME, load_features, refuse_other_sae, save_features
from qscope.features.shards import MANIFEST
from qscope.models import LoadedModel, check_hooks, choose_device, load_model, select_layers
from qscope.recipes.shared import pinned, place_of_saes, run_or_path, warn_of_misfit
from qscope.runs import RunContext
from qscope.runs.files import write_json
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet, Rendering, SaeRecord, TokenMasks
from qscope.v1.text_pb2 import TextSource

#: What a run of ``features extract`` holds when it is done.
EXTRACT = f"activations/{MANIFEST}"


class FeatureTask(Protocol):
    """The fields every task of ``qscope features`` has."""

    sae: str
    layers: Sequence[int]
    rendering: Rendering
    masks: TokenMasks
    model_batch_tokens: int


class OfLayers:
    """A task that names features, with their layers: what decides the SAEs to load."""

    def __init__(self, task: Any, layers: Sequence[int]) -> None:
        self.layers, self.sae = list(layers), task.sae
        self.rendering, self.masks, self.model_batch_tokens = task.rendering, task.masks, task.model_batch_tokens


class NamesFeatures(Protocol):
    """The fields of a task that is given features."""

    features: Sequence[str]
    feature_set: str


def feature_set_of(task: NamesFeatures, runs: Path, *, at: str) -> FeatureSet | None:
    """The feature set a task names; None when it names none. Read once: ``latest`` may be another a minute later."""
    if not task.feature_set:
        return None
    return load_features(run_or_path(task.feature_set, runs, NAME), field=f"{at}.feature_set")


def language_run(name: str, runs: Path, *, at: str) -> Path:
    """The run of ``qscope features language`` that a field names, or its file.

    Raises:
        UserError: see :func:`~qscope.recipes.shared.run_or_path`.
    """
    return run_or_path(name, runs, NAME, verb="features language", at=at)


def pinned_features(context: RunContext, task: NamesFeatures, *, at: str) -> FeatureSet | None:
    """As :func:`feature_set_of`, with the set that the first attempt of the run found."""
    if not task.feature_set:
        return None
    field = f"{at}.feature_set"
    find = partial(run_or_path, task.feature_set, context.folder.parent, NAME)
    return load_features(Path(pinned(context, field, find)), field=field)


def wanted_features(task: NamesFeatures, found: FeatureSet | None, *, at: str) -> dict[int, dict[int, str]]:
    """Label by layer and feature, those of the feature set first.

    Raises:
        UserError: there is none (FEATURES_EMPTY), as in the set of a contrast that found nothing.
    """
    wanted: dict[int, dict[int, str]] = {}
    for entry in found.entries if found else ():
        wanted.setdefault(entry.layer, {})[entry.feature] = entry.label
    for text in task.features:
        layer, _, feature = text.partition("/")
        wanted.setdefault(int(layer), {}).setdefault(int(feature), "")
    if not wanted:
        # No layers would be read as every layer.
        raise UserError(
            f"{task.feature_set} holds no feature.",
            remedy="Name a feature set whose run found something, or features.",
            reason="FEATURES_EMPTY",
            field=f"{at}.feature_set",
        )
    return dict(sorted(wanted.items()))


def refuse_unknown(
    task: NamesFeatures,
    found: FeatureSet | None,
    wanted: Mapping[int, Mapping[int, str]],
    saes: Sequence[SaeRecord],
    *,
    at: str,
) -> None:
    """Refuses features that no SAE has, and those of a feature set that belong to other SAEs.

    Args:
        task: what names the features.
        found: its feature set.
        wanted: features by layer.
        saes: the SAEs in use.
        at: experiment field of the task, for errors.
    """
    widths = {sae.layer: sae.d_sae for sae in saes}
    for layer, features in wanted.items():
        if layer not in widths:
            raise UserError(
                f"There is no SAE of layer {layer}.",
                remedy=f"Layers are {', '.join(map(str, widths))}.",
                reason="SAE_LAYER_MISSING",
                field=f"{at}.features",
            )
        for feature in features:
            if feature >= widths[layer]:
                raise UserError(
                    f"There is no feature {layer}/{feature}: the SAE of layer {layer} has {widths[layer]:,} features.",
                    remedy=f"Features are numbered from 0 to {widths[layer] - 1}.",
                    reason="FEATURE_OUT_OF_RANGE",
                    field=f"{at}.features",
                )
    for sae in saes if found else ():
        refuse_other_sae(found, sae.layer, sae.fingerprint, path=task.feature_set, field=f"{at}.feature_set")


@dataclass(frozen=True)
class Opened:
    """The model and its SAEs, ready to read.

    Attributes:
        loaded: the model.
        saes: encoders by layer.
        place: where they came from.
    """

    loaded: LoadedModel
    saes: dict[int, TopKSae]
    place: str


def open_model(context: RunContext, task: FeatureTask, *, at: str) -> Opened:
    """Loads model and encoders, refuses a pair that does not belong together, and checks the hooks."""
    experiment = context.experiment
    device = choose_device(experiment.compute.device)
    loaded = load_model(experiment.model, experiment.model_options, device)
    select_layers(task.layers, loaded.facts.n_layers, at=f"{at}.layers")
    field = f"{at}.sae"
    place = pinned(context, field, lambda: place_of_saes(task.sae, context.folder.parent, at=field))
    saes = load_encoders(
        place,
        task.layers,
        loaded.facts,
        device=device,
        offline=experiment.model_options.offline,
        field=field,
    )
    warn_of_misfit(context, place, list(saes), loaded, at=field)
    context.info(f"SAEs of {place}, layers {', '.join(map(str, saes))}")
    check_hooks(loaded)
    return Opened(loaded, saes, str(place))


def open_documents(
    context: RunContext, task: FeatureTask, source: TextSource, loaded: LoadedModel, *, at: str, name: str, **label: str
) -> DocumentReader:
    """The documents of one text source; ``name`` is its field in the task ``at``."""
    place = f"{at}.{name}"
    return DocumentReader(
        open_text(source, at=place, seed=context.seed_for(name), **label),
        loaded.tokenizer,
        context=source.context,
        rendering=task.rendering,
        masks=task.masks,
        at=place,
        rendering_at=f"{at}.rendering",
        masks_at=f"{at}.masks",
    )


def tokens_text(task: FeatureTask) -> str:
    """Which tokens count, in words, as results record it."""
    masks, rendering = task.masks, task.rendering
    left_out = ["padding"]
    left_out += ["first tokens"] if masks.skip_first_token else []
    left_out += ["special tokens"] if masks.skip_special_tokens else []
    left_out += ["template tokens"] if masks.skip_special_tokens and rendering.chat else []
    left_out += ["thinking"] if masks.skip_thinking else []
    template = f"chat template, thinking {'on' if rendering.thinking else 'off'}" if rendering.chat else "no template"
    return f"without {', '.join(left_out)}; {template}"


def write_features(
    context: RunContext,
    task: FeatureTask,
    opened: Opened,
    entries: Sequence[FeatureEntry],
    *,
    kind: str,
    score: str,
    report: dict[str, Any],
) -> None:
    """Writes ``features.json`` and the report of how it came about, and announces both."""
    write_feature_set(context, task, opened, entries, kind=kind, score=score)
    path = context.artifacts / f"{kind}.json"
    write_json(path, {"kind": kind, "settings": as_json(task), **report})
    context.artifact(path, kind="summary", description="what was read and what was left out")


def write_feature_set(
    context: RunContext, task: FeatureTask, opened: Opened, entries: Sequence[FeatureEntry], *, kind: str, score: str
) -> None:
    """Writes ``features.json``, which later commands take, and announces it."""
    features = FeatureSet(
        kind=kind,
        model=opened.loaded.facts.name,
        sae=opened.place,
        entries=entries,
        model_record=model_record(opened.loaded.facts),
        sae_records=[sae_record(sae) for sae in opened.saes.values()],
        score=score,
        tokens=tokens_text(task),
        qscope_version=__version__,
    )
    path = save_features(features, context.artifacts)
    context.artifact(path, kind="features", description=f"{len(entries)} features of {len(opened.saes)} layers")


def report_layers(context: RunContext, found: Found, entries: Sequence[FeatureEntry]) -> None:
    """The best of ``entries`` of every layer, as metrics."""
    best: dict[int, FeatureEntry] = {}
    for entry in entries:
        if entry.layer not in best or entry.score > best[entry.layer].score:
            best[entry.layer] = entry
    rows = {
        layer: {
            "feature": float(entry.feature),
            "score": entry.score,
            "held_out_score": entry.held_out_score,
            "mean_positive": entry.mean_positive,
            "mean_negative": entry.mean_negative,
            "rate_positive": entry.rate_positive,
            "rate_negative": entry.rate_negative,
            "held_out_auc": entry.held_out_auc,
            "auc_low": entry.auc_low,
            "auc_high": entry.auc_high,
        }
        for layer, entry in best.items()
    }
    for layer, ambient in found.ambient.items():
        rows.setdefault(layer, {})["ambient"] = float(len(ambient))
    context.metrics(0, rows)


def warn_of_bare_layers(context: RunContext, opened: Opened, entries: Sequence[FeatureEntry], what: str) -> None:
    """Warns of the layers no feature was found at; ``what`` it would have done, as in "favours the positives"."""
    missing = sorted(set(opened.saes) - {entry.layer for entry in entries})
    if missing:
        context.warning(f"No feature {what} at layer {', '.join(map(str, missing))}.")


def as_json(message: Message) -> dict[str, Any]:
    """A message as JSON with every field, also those that are false or zero: results say what was off, too."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def watch(context: RunContext, phase: str, total: int) -> tuple[Callable[[int], None], Callable[[], bool]]:
    """``on_progress`` and ``should_stop`` for a library call over ``total`` documents."""
    return (lambda done: context.progress(phase, done, total, "documents")), (lambda: context.stop_requested)


def warn_not_finite(context: RunContext, tokens: int) -> None:
    """Warns of tokens that were left out as their activations are not finite, when there are any."""
    if tokens:
        context.warning(
            f"{tokens:,} tokens do not count: their activations are not finite at some layer."
            " Another model_options.precision may help."
        )
