"""The files a run of ``classify`` leaves behind: tables, predictions, and features for later commands."""

from __future__ import annotations

import math
from typing import Any

from qscope import __version__
from qscope.classification.labelled import Labelled, Side
from qscope.classification.pooled import Pools
from qscope.classification.results import Found, GroupResult, Method, Settings
from qscope.features.encoders import model_record, sae_record
from qscope.features.intervals import NOTHING, Interval
from qscope.recipes.classify_report import title_of
from qscope.recipes.feature_parts import Opened, as_json, write_feature_set
from qscope.runs import RunContext
from qscope.runs.files import replacing, write_csv, write_json
from qscope.v1.classify_pb2 import Classify
from qscope.v1.features_pb2 import FeatureEntry

_LAYER_COLUMNS = ("group", "layer", "top1_diff", "feature", "chosen")
_FEATURE_COLUMNS = ("group", "method", "rank", "layer", "feature", "rate_positive", "rate_negative", "delta")
_CURVE_COLUMNS = ("group", "share", "texts", "draw", "layer", "rule_f1", "probe_f1", "overlap")


def write_tables(
    context: RunContext,
    task: Classify,
    opened: Opened,
    data: Labelled,
    pools: Pools,
    found: Found,
    settings: Settings,
) -> None:
    """Writes every table, the summary of all of them, and what every method says of each text."""
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
            ("method", "found_in", "measured_on", "n", *_flat("f1", NOTHING), *_flat("auc", NOTHING)),
            [
                {
                    "method": name,
                    "found_in": one,
                    "measured_on": other,
                    "n": value.f1.n,
                    **_flat("f1", value.f1),
                    **_flat("auc", value.auc),
                }
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
        "converged": one.converged,
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


def write_candidates(context: RunContext, task: Classify, opened: Opened, found: Found) -> None:
    """The best features of every layer on all texts, for commands that take features."""
    entries = [
        FeatureEntry(
            layer=one.layer,
            feature=one.feature,
            score=one.delta,
            held_out_score=one.held_out_delta,
            max_activation=one.largest,
            held_out_auc=one.auc.value,
            auc_low=one.auc.low,
            auc_high=one.auc.high,
            n_positive=found.groups[0].counts[Side.EVALUATION][0],
            n_negative=found.groups[0].counts[Side.EVALUATION][1],
            label=task.attribute,
            group=task.attribute,
        )
        for one in found.candidates
    ]
    write_feature_set(context, task, opened, entries, kind="classify", score="rate_difference per text")


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
