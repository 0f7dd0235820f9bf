"""``qscope classify``: features that tell a labelled attribute, as rules, beside baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qscope import __version__
from qscope.classification.files import NAME, save_classifier
from qscope.classification.labelled import Labelled, Side
from qscope.classification.pooled import Pooler, Pools, pool_to_disk
from qscope.classification.scores import Interval
from qscope.classification.study import ALL, Found, GroupResult, Method, Settings, Study
from qscope.features.encoders import model_record, sae_record
from qscope.recipes.admission import admit
from qscope.recipes.classify_parts import CLASSIFY as AT
from qscope.recipes.classify_parts import read_data, spread
from qscope.recipes.classify_report import classify_report, group_lines, title_of
from qscope.recipes.extract_features import reading_record
from qscope.recipes.feature_parts import Opened, as_json, open_model, warn_not_finite
from qscope.recipes.shared import pin_revision
from qscope.runs import RunContext
from qscope.runs.files import replacing, write_csv, write_json
from qscope.v1.classify_pb2 import (
    Classifier,
    ClassifierFeature,
    Classify,
    OperatingPoint,
)

_LAYER_COLUMNS = ("group", "layer", "top1_diff", "feature", "chosen")
_FEATURE_COLUMNS = ("group", "method", "rank", "layer", "feature", "rate_positive", "rate_negative", "delta")
_CURVE_COLUMNS = ("group", "share", "texts", "draw", "layer", "rule_f1", "probe_f1", "overlap")


def run(context: RunContext) -> None:
    """Reads and divides the texts, runs each once, and studies layer by layer; a resumed run goes on after a shard."""
    admit(context)
    task: Classify = context.experiment.classify
    for index, source in enumerate(task.data):
        pin_revision(context, source, f"{AT}.data[{index}]")
    data = read_data(task, context.seed_for("division"))
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
    study = Study(data.texts, settings)
    for name in study.too_few:
        context.warning(f"{name}: too few texts of each class to study it by itself; they count among all.")
    widths = {layer: sae.d_sae for layer, sae in opened.saes.items()}
    for index, layer in enumerate(layers):
        if context.stop_requested:
            context.stop(0)
        study.add_layer(layer, pools.layer(layer), widths[layer])
        context.progress("studying", index + 1, len(layers), "layers")
    found = study.finish(pools, widths, lambda done, groups: context.progress("measuring", done, groups, "groups"))
    _write(context, task, opened, data, pools, found, settings)
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
    path = context.artifacts / (NAME if result.name == ALL else f"classifiers/{result.name}.json")
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


def _write(
    context: RunContext,
    task: Classify,
    opened: Opened,
    data: Labelled,
    pools: Pools,
    found: Found,
    settings: Settings,
) -> None:
    folder = context.artifacts
    methods = [_method_row(result, one) for result in found.groups for one in result.methods]
    tables = {
        "methods.csv": ("every way of telling, every language", list(methods[0]), methods),
        "layers.csv": (
            "every layer; F1 is for looking at, layers are chosen by top1_diff",
            _LAYER_COLUMNS + tuple(f"f1_k{count}" for count in found.groups[0].layers[0].f1),
            [
                {
                    "group": title_of(result.name),
                    "layer": row.layer,
                    "top1_diff": row.top1_diff,
                    "feature": "" if row.feature is None else row.feature,
                    "chosen": row.layer == result.layer,
                    **{f"f1_k{count}": value for count, value in row.f1.items()},
                }
                for result in found.groups
                for row in result.layers
            ],
        ),
        "features.csv": (
            "the features of every rule",
            _FEATURE_COLUMNS,
            [
                {
                    "group": title_of(result.name),
                    "method": one.name,
                    "rank": rank,
                    "layer": feature.layer,
                    "feature": feature.feature,
                    "rate_positive": feature.rate_positive,
                    "rate_negative": feature.rate_negative,
                    "delta": feature.delta,
                }
                for result in found.groups
                for one in result.methods
                for rank, feature in enumerate(one.features, start=1)
            ],
        ),
        "curve.csv": (
            "data efficiency, every draw",
            _CURVE_COLUMNS,
            [
                {
                    "group": title_of(result.name),
                    "share": point.share,
                    "texts": point.texts,
                    "draw": draw,
                    "layer": point.layers[draw],
                    "rule_f1": f1,
                    "probe_f1": point.probe[draw] if point.probe else "",
                    "overlap": point.overlap[draw],
                }
                for result in found.groups
                for point in result.curve
                for draw, f1 in enumerate(point.rule)
            ],
        ),
        "transfer.csv": (
            "found in one language, measured on another",
            ("method", "found_in", "measured_on", "f1", "f1_low", "f1_high"),
            [
                {"method": name, "found_in": one, "measured_on": other, **_flat("f1", value)}
                for name, matrix in found.transfer.items()
                for one, row in matrix.items()
                for other, value in row.items()
            ],
        ),
        "overlap.csv": (
            "Jaccard of the ten best features of two languages",
            ("layer", "one", "other", "jaccard"),
            [
                {"layer": layer, "one": one, "other": other, "jaccard": value}
                for layer, matrix in found.overlap.items()
                for one, row in matrix.items()
                for other, value in row.items()
                if one < other
            ],
        ),
        "faults.csv": (
            "rows left out",
            ("place", "why"),
            [{"place": fault.place, "why": fault.why} for fault in data.faults],
        ),
    }
    for name, (what, columns, rows) in tables.items():
        write_csv(folder / name, columns, rows)
        context.artifact(folder / name, kind="table", description=f"{what} ({len(rows):,} rows)")
    write_json(
        folder / "classification.json",
        {
            "qscope_version": __version__,
            "attribute": task.attribute,
            "model": as_json(model_record(opened.loaded.facts)),
            "saes": [as_json(sae_record(sae)) for sae in opened.saes.values()],
            "settings": as_json(task),
            "data": {
                "texts": len(data.texts),
                "rows": data.rows,
                "rows_left_out": len(data.faults),
                "repeated": data.repeated,
                "contradictory": data.contradictory,
                "leaks": data.leaks,
                "thinned": data.thinned,
                "other_labels": dict(data.other_labels),
                "cut_at_context": pools.cut,
                "silent": pools.silent,
                "tokens_not_finite": pools.not_finite,
                "sides": data.counts(),
            },
            "probe_layers": list(settings.probe_layers),
            "too_few": found.too_few,
            "groups": [_group_json(result) for result in found.groups],
        },
    )
    context.artifact(
        folder / "classification.json",
        kind="summary",
        description=f"{len(found.groups)} groups, {len(found.groups[0].methods)} ways of telling",
    )
    _write_predictions(context, data, found)


def _group_json(result: GroupResult) -> dict[str, Any]:
    best = max(result.layers, key=lambda row: row.f1[result.count])
    chosen = next(row for row in result.layers if row.layer == result.layer)
    return {
        "group": title_of(result.name),
        "texts": {side: {"positive": one, "negative": other} for side, (one, other) in result.counts.items()},
        "layer": result.layer,
        "features_of_rule": result.count,
        "chosen": result.chosen,
        "winner_by_f1": result.winner(lambda one: one.measured.f1.value).name,
        "winner_by_auc": result.winner(lambda one: one.measured.auc.value).name,
        "f1_of_all_positive": result.always,
        "f1_at_layer": chosen.f1[result.count],
        "best_f1_over_layers": best.f1[result.count],
        "best_layer_on_evaluation": best.layer,
        "methods": [_method_row(result, one) for one in result.methods],
    }


def _method_row(result: GroupResult, one: Method) -> dict[str, Any]:
    measured = one.measured
    row: dict[str, Any] = {
        "group": title_of(result.name),
        "method": one.name,
        "kind": one.kind,
        "chosen": one.name == result.chosen,
        "layers": " ".join(map(str, one.layers)),
        "features": " ".join(f"{feature.layer}/{feature.feature}" for feature in one.features),
        "detail": one.detail,
        "n": measured.f1.n,
        "n_positive": measured.recall.n,
    }
    for name in ("f1", "precision", "recall", "false_positives", "accuracy", "auc"):
        row |= _flat(name, getattr(measured, name))
    for held in measured.held:
        at = f"at_fpr_{held.target:g}"
        row[f"{at}_threshold"] = held.threshold
        row[f"{at}_calibrated"] = held.calibrated
        row |= _flat(f"{at}_recall", held.recall) | _flat(f"{at}_false_positives", held.false_positives)
    return row | _flat("f1_minus_chosen", one.gap) | {"calibration_balanced_accuracy": one.calibration}


def _flat(name: str, value: Interval) -> dict[str, float | None]:
    # JSON has no NaN, and an empty cell says the same.
    numbers = {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return {key: None if math.isnan(number) else number for key, number in numbers.items()}


def _write_predictions(context: RunContext, data: Labelled, found: Found) -> None:
    """What every method of all texts together says of each text that is not for discovery."""
    import pyarrow
    import pyarrow.parquet

    kept = [text for text in data.texts if text.side != Side.DISCOVERY]
    columns: dict[str, Any] = {
        "place": [text.place for text in kept],
        "side": [text.side.value for text in kept],
        "language": [text.language for text in kept],
        "positive": [text.positive for text in kept],
    }
    for one in found.groups[0].methods:
        columns[f"{one.name}: score"] = one.scores_N
        columns[f"{one.name}: decision"] = one.predicted_N
    path = context.artifacts / "predictions.parquet"
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary, compression="zstd")
    context.artifact(path, kind="table", description=f"scores and decisions on {len(kept):,} texts")
