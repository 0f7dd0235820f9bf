"""``qscope features top``: where given features fire most, with their surroundings."""

from __future__ import annotations

from google.protobuf import json_format

from qscope import __version__
from qscope.errors import UserError
from qscope.features.contexts import TopContexts, contexts_of_shard, contexts_of_text, in_slices
from qscope.features.encoders import model_record, sae_record
from qscope.features.shards import Extract
from qscope.models import load_model
from qscope.recipes.admission import admit
from qscope.recipes.feature_parts import (
    EXTRACT,
    OfLayers,
    open_documents,
    open_model,
    pinned_features,
    refuse_unknown,
    tokens_text,
    wanted_features,
    warn_not_finite,
    watch,
)
from qscope.recipes.shared import run_or_path
from qscope.runs import RunContext
from qscope.runs.files import write_message
from qscope.v1.features_pb2 import ContextSet, FeatureContexts, FeatureSet, ModelRecord, SaeRecord, TopFeatures

AT = "top_features"
#: Documents read at a time; their tokens lie in memory.
_AT_ONCE = 2048


def run(context: RunContext) -> None:
    """Looks through text or extracted activations, and writes ``contexts.json``."""
    admit(context)
    task: TopFeatures = context.experiment.top_features
    given = pinned_features(context, task, at=AT)
    wanted = wanted_features(task, given, at=AT)
    look = _of_extract if task.activations else _of_text
    found = look(context, task, given, wanted)
    labels = {(layer, feature): label for layer, features in wanted.items() for feature, label in features.items()}
    for entry in found.features:
        entry.label = labels[entry.layer, entry.feature]
    _report(context, found)
    path = context.artifacts / "contexts.json"
    write_message(path, found)
    count = sum(len(entry.contexts) for entry in found.features)
    context.artifact(path, kind="contexts", description=f"{count} contexts of {len(found.features)} features")


def _of_text(
    context: RunContext, task: TopFeatures, given: FeatureSet | None, wanted: dict[int, dict[int, str]]
) -> ContextSet:
    opened = open_model(context, OfLayers(task, list(wanted)), at=AT)
    saes = [sae_record(sae) for sae in opened.saes.values()]
    refuse_unknown(task, given, wanted, saes, at=AT)
    tops = _accumulators(task, wanted)
    reader = open_documents(context, task, task.text, opened.loaded, at=AT, name="text")
    limit, first, not_finite = task.documents or (1 << 62), True, 0
    while reader.read < limit:
        count = min(_AT_ONCE, limit - reader.read)
        documents = reader.require(count) if first else reader.take(count)
        first = False
        if not documents:
            break
        before = reader.read - len(documents)
        on_progress, should_stop = watch(context, "reading", task.documents or reader.read)
        left_out = contexts_of_text(
            opened.loaded,
            opened.saes,
            documents,
            tops,
            batch_tokens=task.model_batch_tokens,
            on_progress=lambda done, before=before, tell=on_progress: tell(before + done),
            should_stop=should_stop,
        )
        if left_out is None:
            context.stop(0)
        not_finite += left_out
    warn_not_finite(context, not_finite)
    return ContextSet(
        model=opened.loaded.facts.name,
        sae=opened.place,
        features=_results(tops, wanted, opened.loaded.tokenizer),
        model_record=model_record(opened.loaded.facts),
        sae_records=saes,
        tokens=tokens_text(task),
        qscope_version=__version__,
    )


def _of_extract(
    context: RunContext, task: TopFeatures, given: FeatureSet | None, wanted: dict[int, dict[int, str]]
) -> ContextSet:
    extracted = Extract(run_or_path(task.activations, context.folder.parent, EXTRACT), field=f"{AT}.activations")
    manifest = extracted.manifest
    # The model's tokenizer alone would do; the model tells whether it is the one of the extract.
    loaded = load_model(context.experiment.model, context.experiment.model_options)
    record = json_format.ParseDict(manifest["model"], ModelRecord(), ignore_unknown_fields=True)
    if record.fingerprint != loaded.facts.fingerprint:
        raise UserError(
            f"The activations come from {record.name}; the experiment names {loaded.facts.name}, whose weights differ.",
            remedy="Name the model, and its precision, that the activations were extracted with.",
            reason="EXTRACT_OF_ANOTHER_MODEL",
            field="model",
        )
    saes = [json_format.ParseDict(sae, SaeRecord(), ignore_unknown_fields=True) for sae in manifest["saes"]]
    widths = {sae.layer: sae.d_sae for sae in saes}
    refuse_unknown(task, given, wanted, saes, at=AT)
    tops = _accumulators(task, wanted)
    on_progress, should_stop = watch(context, "reading", manifest["documents"])
    done = 0
    for shard in extracted.shards():
        if should_stop():
            context.stop(0)
        contexts_of_shard(shard, tops, widths, batch_tokens=task.model_batch_tokens)
        done += len(shard.number_R)
        on_progress(done)
    warn_not_finite(context, manifest.get("tokens_not_finite", 0))
    return ContextSet(
        model=record.name,
        sae=manifest["sae"],
        features=_results(tops, wanted, loaded.tokenizer),
        model_record=record,
        sae_records=saes,
        tokens=manifest["tokens_text"],
        qscope_version=__version__,
    )


def _accumulators(task: TopFeatures, wanted: dict[int, dict[int, str]]) -> dict[int, list[TopContexts]]:
    return {
        layer: [TopContexts(part, task.contexts, task.before, task.after) for part in in_slices(list(features))]
        for layer, features in wanted.items()
    }


def _results(tops: dict[int, list[TopContexts]], wanted: dict[int, dict[int, str]], tokenizer) -> list[FeatureContexts]:
    return [entry for layer in wanted for top in tops[layer] for entry in top.results(layer, tokenizer)]


def _report(context: RunContext, found: ContextSet) -> None:
    """The best contexts as lines, the silent features as a warning."""
    for entry in found.features:
        if not entry.contexts:
            context.warning(f"{entry.layer}/{entry.feature} fires nowhere in {entry.tokens:,} tokens.")
            continue
        best = entry.contexts[0]
        tokens = list(best.tokens)
        tokens[best.peak] = f"[{tokens[best.peak]}]"
        # A terminal's line: what is around the peak, without line breaks.
        line = " ".join("".join(tokens[max(0, best.peak - 10) : best.peak + 4]).split())
        label = f" {entry.label}" if entry.label else ""
        fires = f"{100 * entry.rate:.1f}%"
        context.info(f"{entry.layer}/{entry.feature}{label}: fires on {fires}, max {entry.max_activation:.3g}: {line}")
