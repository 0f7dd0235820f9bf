"""``qscope classify``: features that tell a labelled attribute, as rules, beside baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qscope import __version__
from qscope.classification.baselines import ITERATIONS
from qscope.classification.files import place_of, save_classifier
from qscope.classification.labelled import Labelled, Side, alike_as_read
from qscope.classification.pooled import Pooler, Pools, pool_to_disk, texts_as_read
from qscope.classification.results import ALL, Found, GroupResult, Settings
from qscope.classification.study import Study
from qscope.features.encoders import model_record, sae_record
from qscope.recipes.admission import admit
from qscope.recipes.classify_files import write_candidates, write_tables
from qscope.recipes.classify_parts import CLASSIFY as AT
from qscope.recipes.classify_parts import DIVISION, read_data, spread
from qscope.recipes.classify_report import classify_report, group_lines, title_of
from qscope.recipes.extract_features import reading_record
from qscope.recipes.feature_parts import Opened, as_json, open_model, warn_not_finite
from qscope.recipes.shared import pin_revision
from qscope.runs import RunContext
from qscope.v1.classify_pb2 import (
    Classifier,
    ClassifierFeature,
    Classify,
    OperatingPoint,
)


def run(context: RunContext) -> None:
    """Reads and divides the texts, runs each once, and studies layer by layer; a resumed run goes on after a shard."""
    admit(context)
    task: Classify = context.experiment.classify
    for index, source in enumerate(task.data):
        pin_revision(context, source, f"{AT}.data[{index}]")
    data = read_data(task, context.seed_for(DIVISION))
    tell_of(context, data)
    opened = open_model(context, task, at=AT)
    layers = list(opened.saes)
    settings = Settings(
        counts=sorted(task.features),
        compose=sorted(task.compose),
        rates=sorted(task.false_positive_rates),
        curve=sorted(task.curve),
        draws=task.draws,
        bootstrap=task.bootstrap,
        probe_layers=spread(layers, task.probe_layers),
        seed=context.seed_for,
    )
    pools = _pool(context, task, opened, data, settings.probe_layers)
    if pools.cut:
        context.warning(f"{pools.cut:,} of {len(data.texts):,} texts were cut at {task.context} tokens ({AT}.context).")
    if pools.silent:
        context.warning(f"{pools.silent:,} texts have no token that counts: nothing fires in them.")
    warn_not_finite(context, pools.not_finite)
    # Words beyond the context are nothing the model has seen: no baseline may read them either.
    read = texts_as_read(opened.loaded.tokenizer, [text.text for text in data.texts], task.context)
    if alike := alike_as_read(data.texts, read):
        context.warning(
            f"{alike:,} evaluation texts begin as a text of another side does and are cut where they would differ: a "
            f"leak. A larger {AT}.context tells them apart."
        )
    study = Study([replace(text, text=part) for text, part in zip(data.texts, read, strict=True)], settings)
    if study.too_few:
        others = len(study.too_few) - 8
        names = ", ".join(name[:24] for name in study.too_few[:8]) + (f" and {others:,} more" if others > 0 else "")
        context.warning(f"{names}: too few texts of each class to study the language by itself; they count among all.")
    widths = {layer: sae.d_sae for layer, sae in opened.saes.items()}
    for index, layer in enumerate(layers):
        if context.stop_requested:
            context.stop(0)
        study.add_layer(layer, pools.layer(layer), widths[layer])
        context.progress("studying", index + 1, len(layers), "layers")
    found = study.finish(pools, widths, lambda done, groups: context.progress("measuring", done, groups, "groups"))
    for result in found.groups:
        _warn_of_unfinished_fits(context, result)
    _warn_of_fine_rates(context, found, settings.rates)
    write_tables(context, task, opened, data, pools, found, settings)
    write_candidates(context, task, opened, found)
    for result in found.groups:
        _save(context, task, opened, data, result)
    context.report(classify_report(context.experiment.name, task, data, found))
    context.info("\n\n".join("\n".join(group_lines(result, settings.rates)) for result in found.groups))


def tell_of(context: RunContext, data: Labelled) -> None:
    """Says what was read and what was left out."""
    counts = ", ".join(f"{side} {one['positive']:,} + {one['negative']:,}" for side, one in data.counts().items())
    context.info(f"{len(data.texts):,} texts (with + without the attribute): {counts}")
    if data.faults:
        fault = data.faults[0]
        context.warning(
            f"{len(data.faults):,} rows left out, listed in artifacts/faults.csv; "
            f"the first: {fault.place}: {fault.why}."
        )
    if data.contradictory:
        context.warning(f"{data.contradictory:,} rows left out: their text stands with both labels.")
    if data.leaks:
        context.warning(
            f"{data.leaks:,} rows for discovery left out: their text is one of a source for evaluation (a leak)."
        )
    if data.repeated:
        context.info(f"{data.repeated:,} rows repeat a text and are left out, so none stands on two sides")
    if data.other_labels:
        names = ", ".join(f"{label} ({count:,})" for label, count in data.other_labels.most_common(8))
        context.info(f"{sum(data.other_labels.values()):,} rows have neither label: {names}")
    if data.thinned:
        context.info(f"{data.thinned:,} texts left out by balance and per_class")


def _warn_of_unfinished_fits(context: RunContext, result: GroupResult) -> None:
    names = [one.name for one in result.methods if not one.converged]
    if names:
        context.warning(
            f"{title_of(result.name)}: the fit of {', '.join(names)} did not come to its end ({ITERATIONS:,} steps at "
            "most): a better one may be there."
        )


def _warn_of_fine_rates(context: RunContext, found: Found, rates: Sequence[float]) -> None:
    for rate in rates:
        # A share of 1/n, rounded, is still one text of n.
        few = [one for one in found.groups if rate * one.counts[Side.CALIBRATION][1] < 1 - 1e-9]
        if few:
            context.warning(
                f"{', '.join(title_of(one.name) for one in few)}: {rate:.3g} of the calibration texts without the "
                "attribute is less than one text; the threshold for it is the highest score among them."
            )


def _pool(context: RunContext, task: Classify, opened: Opened, data: Labelled, probe_layers: Sequence[int]) -> Pools:
    pooler = Pooler(
        opened.loaded,
        opened.saes,
        context=task.context,
        rendering=task.rendering,
        masks=task.masks,
        batch_tokens=task.model_batch_tokens,
        residuals=probe_layers,
        at=AT,
    )
    total = len(data.texts)
    pools = pool_to_disk(
        pooler,
        [text.text for text in data.texts],
        context.artifacts / "activations",
        identity={
            "model": as_json(model_record(opened.loaded.facts)),
            "saes": [as_json(sae_record(sae)) for sae in opened.saes.values()],
            "digest": data.digest(),
            "context": task.context,
            "rendering": as_json(task.rendering),
            "masks": as_json(task.masks),
            "residuals": list(probe_layers),
            "batch_tokens": task.model_batch_tokens,
            **reading_record(opened.loaded, task.rendering),
        },
        shard_texts=task.shard_texts,
        on_progress=lambda done: context.progress("reading", done, total, "texts"),
        should_stop=lambda: context.stop_requested,
    )
    if pools is None:
        context.stop(0)
    return pools


def _save(context: RunContext, task: Classify, opened: Opened, data: Labelled, result: GroupResult) -> None:
    rule = result.method(result.chosen)
    if not rule.features:
        context.warning(f"{title_of(result.name)}: no feature favours the attribute; there is no classifier to save.")
        return
    path = context.artifacts / place_of(result.name)
    discovery = [text for text in data.texts if text.side == Side.DISCOVERY and result.name in (ALL, text.language)]
    classifier = Classifier(
        attribute=task.attribute,
        language=result.name,
        model=model_record(opened.loaded.facts),
        sae=opened.place,
        saes=[sae_record(opened.saes[layer]) for layer in sorted({one.layer for one in rule.features})],
        features=[
            ClassifierFeature(
                layer=one.layer,
                feature=one.feature,
                rate_positive=one.rate_positive,
                rate_negative=one.rate_negative,
            )
            for one in rule.features
        ],
        points=[
            OperatingPoint(
                false_positive_rate=rate,
                level=level,
                thresholds=[one.tail.threshold(level) for one in rule.features],
                calibrated_rate=calibrated,
                n_negative=result.counts[Side.CALIBRATION][1],
            )
            for rate, level, calibrated in rule.points
        ],
        rendering=task.rendering,
        masks=task.masks,
        context=task.context,
        n_positive=result.counts[Side.DISCOVERY][0],
        n_negative=result.counts[Side.DISCOVERY][1],
        discovery_digest=Labelled(texts=discovery).digest(),
        qscope_version=__version__,
    )
    save_classifier(classifier, path)
    context.artifact(path, kind="classifier", description=f"{title_of(result.name)}: {rule.name}")
