"""What a run of ``classify`` tells its reader."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qscope.classification.labelled import Labelled, Side
from qscope.classification.results import ALL, COMPARED, Found, GroupResult, Method
from qscope.classification.scores import Measured
from qscope.features.intervals import Interval
from qscope.v1 import report_pb2 as pb
from qscope.v1.classify_pb2 import Classify

_FIXED = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=3)
_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_COUNT)
_PERCENT = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT, digits=0)
_NAME_COLUMNS = 20


def percent(rate: float) -> str:
    """A rate in percent, with as many digits as it was given: 0.5 % is neither 0 % nor 1 %."""
    return f"{100 * rate:.6g}%"


def title_of(group: str) -> str:
    """Name of a group in tables."""
    return "all" if group == ALL else group


def group_lines(result: GroupResult, rates: Sequence[float]) -> list[str]:
    """The table of a group for a terminal of 80 columns, and below it who won."""
    positive, negative = result.counts[Side.EVALUATION]
    rate = rates[-1] if rates else None
    last = f"  R@{percent(rate)}" if rate is not None else ""
    lines = [
        f"{title_of(result.name)}: {positive + negative:,} texts to evaluate on, {positive:,} with the attribute; "
        f"layer {result.layer} by top1-diff",
        f"{'method':<{_NAME_COLUMNS}}{'layer':>8}{'F1':>7}  {'95 %':<11}{'AUC':>6}{'prec.':>7}{'recall':>8}{last}",
    ]
    for one in result.methods:
        star = "*" if one.name == result.chosen else " "
        layers = ",".join(map(str, one.layers)) or "-"
        layers = layers if len(layers) < 8 else f"{layers[:6]}~"
        f1, measured = one.measured.f1, one.measured
        held = f"{measured.held[-1].recall.value:>{len(last)}.2f}" if measured.held else ""
        lines.append(
            f"{star}{one.name:<{_NAME_COLUMNS - 1}}{layers:>8}{f1.value:>7.3f}  {f1.low:.2f} - {f1.high:.2f}"
            f"{measured.auc.value:>6.2f}{_two(measured.precision):>7}{_two(measured.recall):>8}{held}"
        )
    return [*lines, f" {'(all positive)':<{_NAME_COLUMNS - 1}}{'':>8}{result.always:>7.3f}", *verdict(result)]


def verdict(result: GroupResult) -> list[str]:
    """Who won, in words: by F1, and by AUC where that is another."""
    best = result.winner(lambda one: one.measured.f1.value)
    chosen = result.method(result.chosen)
    lines = [f"* the rule that is saved, chosen on the calibration texts: {_features_text(chosen)}"]
    if chosen.measured.f1.value <= result.always:
        lines.append(f"its F1 is not above that of calling every text positive ({result.always:.3f})")
    if best.name == chosen.name:
        others = [one for one in result.methods if one.kind == "baseline"]
        rival = max(others, key=lambda one: one.measured.f1.value)
        lines.append(f"best F1: the rule; {rival.name} {_gap_text(rival)}")
    else:
        lines.append(f"best F1: {best.name}, {_gap_text(best)}")
    by_auc = result.winner(lambda one: one.measured.auc.value)
    lines.append(f"best AUC: {by_auc.name}, {by_auc.measured.auc.value:.3f} (n = {by_auc.measured.auc.n:,})")
    return lines


def _features_text(one: Method) -> str:
    names = [f"{feature.layer}/{feature.feature}" for feature in one.features]
    return (", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "no feature"


def _gap_text(one: Method) -> str:
    gap = one.gap
    sure = gap.low > 0 or gap.high < 0
    told = "" if sure else ", which is no difference on so few texts"
    return f"{gap.value:+.3f} against the rule ({gap.low:+.3f} to {gap.high:+.3f}{told})"


def _sentence(line: str) -> str:
    line = line.removeprefix("* ")
    return f"{line[0].upper()}{line[1:]}."


def _two(value: Interval) -> str:
    return "-" if math.isnan(value.value) else f"{value.value:.2f}"


def classify_report(title: str, task: Classify, data: Labelled, found: Found) -> pb.Report:
    """The report of a run."""
    first = found.groups[0]
    best = first.winner(lambda one: one.measured.f1.value)
    chosen = first.method(first.chosen)
    sections = [_data(data), _methods(first), _held(first), _layers(first)]
    if first.curve:
        sections.append(_curve(found.groups))
    if len(found.groups) > 1:
        sections.append(_languages(found.groups))
    # Without languages there is nothing to go over to.
    sections += [_transfer(name, matrix) for name, matrix in found.transfer.items() if matrix]
    if found.overlap and len(next(iter(found.overlap.values()))) > 1:
        sections += [_overlap(found, first.layer), _overlap_by_layer(found)]
    sections.append(_features(found.groups))
    winner = "the rule of features" if best.name == chosen.name else best.name
    return pb.Report(
        title=title,
        subtitle=f"{task.attribute}: best F1 {best.measured.f1.value:.3f} by {winner}; the saved rule ({chosen.name}, "
        f"layer {', '.join(map(str, chosen.layers)) or '-'}) reaches {chosen.measured.f1.value:.3f} on "
        f"{chosen.measured.f1.n:,} texts nothing else saw.",
        sections=sections,
    )


def _cell(value: float, n: int = 0) -> pb.TableCell:
    return pb.TableCell() if math.isnan(value) else pb.TableCell(number=value, n=n)


def _range(value: Interval, sign: str = "") -> pb.TableCell:
    if math.isnan(value.value):
        return pb.TableCell()
    # Without spaces it is not broken over lines.
    return pb.TableCell(text=f"{value.low:{sign}.3f}{'…' if sign else '–'}{value.high:{sign}.3f}")


def _table(caption: str, columns: Sequence[tuple], rows: Sequence[Sequence[pb.TableCell]]) -> pb.Table:
    return pb.Table(
        caption=caption,
        columns=[pb.TableColumn(name=name, description=why, format=form) for name, why, form in columns],
        rows=[pb.TableRow(cells=row) for row in rows],
    )


def _data(data: Labelled) -> pb.ReportSection:
    counts = data.counts()
    facts = [
        ("texts", f"{len(data.texts):,}"),
        *(
            (side, f"{one['positive']:,} with the attribute, {one['negative']:,} without")
            for side, one in counts.items()
        ),
        ("rows that repeat a text", f"{data.repeated:,} (left out, so that no text stands on two sides)"),
        ("rows with both labels", f"{data.contradictory:,} (left out)"),
        ("leaks", f"{data.leaks:,} rows for discovery left out, their text being one to evaluate on"),
        ("rows that cannot be used", f"{len(data.faults):,}"),
        ("rows with neither label", f"{sum(data.other_labels.values()):,}"),
        ("left out by balance and per_class", f"{data.thinned:,}"),
    ]
    return pb.ReportSection(
        heading="Texts",
        text="Features are found and baselines fitted on the discovery texts; K, thresholds and settings are chosen on "
        "the calibration texts; every number below is measured on the evaluation texts. The hash of a text decides "
        "where it stands.",
        facts=pb.Facts(facts=[pb.Fact(name=name, value=value) for name, value in facts]),
    )


def _methods(result: GroupResult) -> pb.ReportSection:
    positive, negative = result.counts[Side.EVALUATION]
    columns = [
        ("method", "the rule that is saved is marked *", None),
        ("layers", "decoder blocks it looks at", None),
        ("F1", "harmonic mean of precision and recall", _FIXED),
        ("F1, 95 %", "bootstrap over texts", None),
        ("against the rule", "its F1 minus that of the saved rule, 95 % interval over the same texts", None),
        ("AUC", "probability that a text with the attribute scores higher", _FIXED),
        ("AUC, 95 %", "DeLong", None),
        ("precision", "share of those called positive that are", _FIXED),
        ("recall", "share of the positive that are found", _FIXED),
        ("recall, 95 %", "Wilson", None),
        ("false positives", "share of the negative called positive", _FIXED),
    ]
    rows = []
    for one in result.methods:
        m = one.measured
        rows.append(
            [
                pb.TableCell(text=f"{one.name}{' *' if one.name == result.chosen else ''}"),
                pb.TableCell(text=" ".join(map(str, one.layers))),
                _cell(m.f1.value),
                _range(m.f1),
                _range(one.gap, "+"),
                _cell(m.auc.value),
                _range(m.auc),
                # The others' n are in the caption.
                _cell(m.precision.value, m.precision.n),
                _cell(m.recall.value),
                _range(m.recall),
                _cell(m.false_positives.value),
            ]
        )
    return pb.ReportSection(
        heading="Ways of telling",
        text=" ".join(
            [
                *(_sentence(line) for line in verdict(result)),
                f"Calling every text positive has F1 {result.always:.3f}.",
            ]
        ),
        table=_table(
            f"{positive + negative:,} evaluation texts: {positive:,} with the attribute, {negative:,} without",
            columns,
            rows,
        ),
    )


def _held(result: GroupResult) -> pb.ReportSection:
    positive, negative = result.counts[Side.EVALUATION]
    columns = [
        ("method", "its name", None),
        ("to hold", "rate of false positives", _PERCENT),
        ("calibrated", "rate on the calibration texts, where the threshold was chosen", _FIXED),
        ("false positives", "rate on the evaluation texts", _FIXED),
        ("95 %", "Wilson", None),
        ("recall", "share of the positive that are found", _FIXED),
        ("recall, 95 %", "Wilson", None),
    ]
    rows = [
        [
            pb.TableCell(text=one.name),
            _cell(held.target),
            _cell(held.calibrated),
            _cell(held.false_positives.value),
            _range(held.false_positives),
            _cell(held.recall.value),
            _range(held.recall),
        ]
        for one in result.methods
        for held in one.measured.held
    ]
    return pb.ReportSection(
        heading="At a fixed rate of false positives",
        text="The threshold is the lowest that holds the rate on the calibration texts; the rate on other texts varies "
        "around it.",
        table=_table(
            f"thresholds chosen on {result.counts[Side.CALIBRATION][1]:,} calibration texts without the attribute, "
            f"measured on {negative:,} evaluation texts without and {positive:,} with it",
            columns,
            rows,
        ),
    )


def _layers(result: GroupResult) -> pb.ReportSection:
    x = [float(row.layer) for row in result.layers]
    best = max(result.layers, key=lambda row: row.f1[result.count])
    chosen = next(row for row in result.layers if row.layer == result.layer)
    share = f"{chosen.f1[result.count] / best.f1[result.count]:.1%}" if best.f1[result.count] else "none"
    series = [pb.PlotSeries(name="top1-diff", x=x, y=[row.top1_diff for row in result.layers])]
    series += [
        pb.PlotSeries(name=f"F1, K={count}", x=x, y=[row.f1[count] for row in result.layers])
        for count in result.layers[0].f1
    ]
    return pb.ReportSection(
        heading="Layers",
        text=f"Layer {result.layer} has the largest top1-diff (discovery texts); its rule of K={result.count} reaches "
        f"{share} of the best F1 over all layers (layer {best.layer}, {best.f1[result.count]:.3f}). The best layer is "
        "known from the evaluation texts only, so it is no result.",
        line_plot=pb.LinePlot(
            x=pb.PlotAxis(label="layer", format=_COUNT),
            y=pb.PlotAxis(label="F1, and difference of firing rates", include=[0, 1]),
            series=series,
            markers=[pb.PlotMarker(x=float(result.layer), label="chosen")],
        ),
    )


def _curve(groups: Sequence[GroupResult]) -> pb.ReportSection:
    series = []
    for result in groups[:8]:
        for name, of in (("rule", lambda point: point.rule), ("probe", lambda point: point.probe)):
            points = [point for point in result.curve if of(point)]
            if not points or (name == "probe" and result.name != ALL):
                continue
            label = f"{title_of(result.name)}, {'residual probe' if name == 'probe' else f'rule, K={result.count}'}"
            # Eight bands over each other hide what they are to show.
            banded = result.name == ALL
            series.append(
                pb.PlotSeries(
                    name=label,
                    x=[point.share for point in points],
                    y=[float(np.mean(of(point))) for point in points],
                    low=[min(of(point)) for point in points] if banded else [],
                    high=[max(of(point)) for point in points] if banded else [],
                )
            )
    first = groups[0].curve
    return pb.ReportSection(
        heading="How many texts it takes",
        text=" ".join(
            f"{point.share:.0%} of the discovery texts ({point.texts:,}): F1 {np.mean(point.rule):.3f}, "
            f"Jaccard index of its {COMPARED} best features and those of all {np.mean(point.overlap):.2f}."
            for point in first
        )
        + " Layer and features are found anew on every subset; K is that of all texts.",
        line_plot=pb.LinePlot(
            x=pb.PlotAxis(label="share of the discovery texts", format=_PERCENT),
            y=pb.PlotAxis(label="F1", include=[0, 1]),
            series=series,
            band="smallest and largest over the random subsets, all languages together",
        ),
    )


def _languages(groups: Sequence[GroupResult]) -> pb.ReportSection:
    columns = [
        ("language", "where features were found and measured", None),
        ("texts", "to evaluate on", _COUNT),
        ("layer", "by top1-diff", _COUNT),
        ("rule", "the saved one", None),
        ("F1", "of the saved rule", _FIXED),
        ("F1, 95 %", "bootstrap over texts", None),
        ("best", "method of the best F1", None),
        ("best F1", "its F1", _FIXED),
        ("against the rule", "difference, 95 % interval", None),
        ("all positive", "F1 of calling every text positive", _FIXED),
    ]
    rows = []
    for result in groups:
        chosen = result.method(result.chosen)
        best = result.winner(lambda one: one.measured.f1.value)
        rows.append(
            [
                pb.TableCell(text=title_of(result.name)),
                _cell(sum(result.counts[Side.EVALUATION])),
                _cell(result.layer),
                pb.TableCell(text=chosen.name),
                _cell(chosen.measured.f1.value, chosen.measured.f1.n),
                _range(chosen.measured.f1),
                pb.TableCell(text=best.name),
                _cell(best.measured.f1.value, best.measured.f1.n),
                _range(best.gap, "+"),
                _cell(result.always),
            ]
        )
    return pb.ReportSection(heading="Languages", table=_table("each found and measured in itself", columns, rows))


def _transfer(name: str, matrix: dict[str, dict[str, Measured]]) -> pb.ReportSection:
    names = list(matrix)
    what = "the rule each language chose" if name == "rule" else f"the {name}"
    return pb.ReportSection(
        heading=f"From one language to another: {'rule' if name == 'rule' else name}",
        text=f"F1 of {what}, fitted in the language of the row and measured on the evaluation texts of the column. "
        "Compare within a column: what a language's classes are mixed like moves all of it.",
        matrix=pb.Matrix(
            row_title="found in",
            column_title="measured on",
            row_labels=names,
            column_labels=names,
            values=[matrix[one][other].f1.value for one in names for other in names],
            scale_title="F1",
            low=0,
            high=1,
            format=_FIXED,
        ),
    )


def _overlap(found: Found, layer: int) -> pb.ReportSection:
    matrix = found.overlap[layer]
    names = list(matrix)
    return pb.ReportSection(
        heading="Features two languages share",
        text=f"Jaccard index of the {COMPARED} best features of two languages at layer {layer}.",
        matrix=pb.Matrix(
            row_title="of",
            column_title="and",
            row_labels=names,
            column_labels=names,
            values=[math.nan if one == other else matrix[one][other] for one in names for other in names],
            scale_title="shared among all that either has",
            low=0,
            high=1,
            format=_FIXED,
        ),
    )


def _overlap_by_layer(found: Found) -> pb.ReportSection:
    layers = list(found.overlap)
    means = []
    for layer in layers:
        matrix = found.overlap[layer]
        means.append(
            float(np.mean([value for one, row in matrix.items() for other, value in row.items() if one < other]))
        )
    return pb.ReportSection(
        heading="Sharing by layer",
        text="Mean Jaccard index over all pairs of languages.",
        line_plot=pb.LinePlot(
            x=pb.PlotAxis(label="layer", format=_COUNT),
            y=pb.PlotAxis(label="Jaccard index", include=[0]),
            series=[pb.PlotSeries(name="mean over pairs", x=[float(layer) for layer in layers], y=means)],
        ),
    )


def _features(groups: Sequence[GroupResult]) -> pb.ReportSection:
    columns = [
        ("language", "where it was found", None),
        ("feature", "layer/feature", None),
        ("with", "share of the discovery texts with the attribute in which it fires", _FIXED),
        ("without", "share of the others", _FIXED),
        ("difference", "what features are ranked by", _FIXED),
    ]
    rows = [
        [
            pb.TableCell(text=title_of(result.name)),
            pb.TableCell(text=f"{one.layer}/{one.feature}"),
            _cell(one.rate_positive, result.counts[Side.DISCOVERY][0]),
            _cell(one.rate_negative, result.counts[Side.DISCOVERY][1]),
            _cell(one.delta),
        ]
        for result in groups
        for one in result.method(result.chosen).features
    ]
    return pb.ReportSection(heading="Features of the saved rules", table=_table("discovery texts", columns, rows))
