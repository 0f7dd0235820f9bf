"""What a search for repetition features tells its reader: the best of each layer, and its curve around the onset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from qscope.features.auc import auc
from qscope.features.onset import OnsetCurve
from qscope.runs.files import plain
from qscope.v1 import report_pb2 as pb
from qscope.v1.features_pb2 import FeatureEntry

_FIXED = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=3)
_INTEGER = pb.NumberFormat(style=pb.NUMBER_STYLE_INTEGER)


@dataclass(frozen=True)
class LayerOnset:
    """The best feature of one layer around the onset of loops, held out from the ranking.

    Attributes:
        layer, feature: which.
        matched: a feature as active on ordinary text, -1 where there is none.
        loops, ordinary: curves of the feature in loops, and in ordinary text at the same depth.
        matched_loops, matched_ordinary: the same of the matched feature; None without one.
        auc, low, high: probability that a loop has the higher mean activation from the onset on than ordinary text has
            at the same depth, ties counting half, and its 95 % interval; NaN where there is no ordinary text.
    """

    layer: int
    feature: int
    matched: int
    loops: OnsetCurve
    ordinary: OnsetCurve | None
    matched_loops: OnsetCurve | None
    matched_ordinary: OnsetCurve | None
    auc: float
    low: float
    high: float

    @classmethod
    def of(cls, layer: int, features: Sequence[int], curves: Sequence[OnsetCurve | None]) -> LayerOnset:
        """From the curves of the feature and of the matched one, each in loops and in ordinary text."""
        loops, ordinary, *matched = curves
        found = separation(loops.after_D, ordinary.after_D if ordinary else [])
        matched_loops, matched_ordinary = matched or (None, None)
        number = features[1] if len(features) > 1 else -1
        return cls(layer, features[0], number, loops, ordinary, matched_loops, matched_ordinary, *found)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: NaN as null."""
        return plain(asdict(self))


def separation(loops_D: Sequence[float], ordinary_D: Sequence[float]) -> tuple[float, float, float]:
    """AUC of loops against ordinary text with its interval; NaN where either is missing."""
    loops = [value for value in loops_D if not math.isnan(value)]
    ordinary = [value for value in ordinary_D if not math.isnan(value)]
    if not loops or not ordinary:
        return math.nan, math.nan, math.nan
    scores_D1 = torch.tensor([*loops, *ordinary], dtype=torch.float64)[:, None]
    positive_D = torch.arange(len(scores_D1)) < len(loops)
    found, low, high = auc(scores_D1, positive_D)
    return float(found[0]), float(low[0]), float(high[0])


def mean_of(values_D: Sequence[float]) -> float:
    """Mean of what is there; NaN of nothing."""
    known = [value for value in values_D if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def onset_lines(onsets: Sequence[LayerOnset]) -> list[str]:
    """The table for a terminal of 80 columns."""
    lines = [
        "mean activation around the onset of held-out loops, and in ordinary text",
        f"{'layer':>5}{'feature':>9}{'before':>9}{'after':>9}{'ordinary':>10}   {'AUC':<22}{'like it':>8}{'after':>8}",
    ]
    for onset in onsets:
        ordinary = mean_of(onset.ordinary.after_D) if onset.ordinary else math.nan
        found = f"{onset.auc:.3f} ({onset.low:.3f}-{onset.high:.3f})" if not math.isnan(onset.auc) else ""
        like = f"{onset.matched:>8}{mean_of(onset.matched_loops.after_D):>8.3g}" if onset.matched_loops else ""
        lines.append(
            f"{onset.layer:>5}{onset.feature:>9}{mean_of(onset.loops.before_D):>9.3g}"
            f"{mean_of(onset.loops.after_D):>9.3g}{ordinary:>10.3g}   {found:<22}{like}".rstrip()
        )
    return lines


def repetition_report(
    title: str, entries: Sequence[FeatureEntry], onsets: Sequence[LayerOnset], classes: Sequence[str]
) -> pb.Report:
    """The report of a run.

    Args:
        title: name of the run.
        entries: the features found, by layer and falling score.
        onsets: the best of each layer around the onset.
        classes: names of the repetitions.
    """
    if not entries:
        return pb.Report(title=title, subtitle="No feature rises from the first repetition to the last at any layer.")
    known = [onset for onset in onsets if not math.isnan(onset.auc)]
    best = max(known, key=lambda onset: onset.auc, default=None)
    subtitle = (
        f"Loops stand out from ordinary text most by feature {best.layer}/{best.feature}: AUC {best.auc:.3f} "
        f"({best.low:.3f} to {best.high:.3f})."
        if best
        else "There was no ordinary text to compare the loops with."
    )
    return pb.Report(
        title=title, subtitle=subtitle, sections=[_onset_section(onsets), _table(onsets), _curves(entries, classes)]
    )


def _onset_section(onsets: Sequence[LayerOnset]) -> pb.ReportSection:
    documents = max((max(onset.loops.count_W) for onset in onsets), default=0)
    return pb.ReportSection(
        heading="Around the onset",
        text="Mean activation of the best feature of each layer, token by token. Token 0 is the first of the second "
        f"repetition. {documents} loops that the ranking did not see; ordinary text is read at the same depth. The "
        "feature beside it was chosen for being as active on ordinary text, without a look at the loops.",
        sections=[_plot(onset) for onset in onsets],
    )


def _plot(onset: LayerOnset) -> pb.ReportSection:
    series = [_series(f"{onset.feature} in loops", onset.loops)]
    if onset.ordinary:
        series.append(_series(f"{onset.feature} in ordinary text", onset.ordinary))
    if onset.matched_loops:
        series.append(_series(f"{onset.matched} in loops", onset.matched_loops))
    return pb.ReportSection(
        heading=f"Layer {onset.layer}, feature {onset.feature}",
        line_plot=pb.LinePlot(
            x=pb.PlotAxis(label="tokens from the onset", format=_INTEGER),
            y=pb.PlotAxis(label="mean activation", include=[0]),
            series=series,
            markers=[pb.PlotMarker(x=0, label="onset")],
            band="standard error over documents",
        ),
    )


def _series(name: str, curve: OnsetCurve) -> pb.PlotSeries:
    # One document has no spread: its band has no width.
    errors = [0.0 if math.isnan(error) else error for error in curve.error_W]
    low = [mean - error for mean, error in zip(curve.mean_W, errors, strict=True)]
    high = [mean + error for mean, error in zip(curve.mean_W, errors, strict=True)]
    return pb.PlotSeries(name=name, x=curve.offset_W, y=curve.mean_W, low=low, high=high)


def _table(onsets: Sequence[LayerOnset]) -> pb.ReportSection:
    def number(value: float, spread: float = math.nan, n: int = 0) -> pb.TableCell:
        cell = pb.TableCell() if math.isnan(value) else pb.TableCell(number=value, n=n)
        if not math.isnan(spread) and not math.isnan(value):
            cell.spread = spread
        return cell

    def measured(values_D: Sequence[float]) -> pb.TableCell:
        known = torch.tensor([value for value in values_D if not math.isnan(value)], dtype=torch.float64)
        spread = float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else math.nan
        return number(mean_of(values_D), spread, len(known))

    rows = []
    for onset in onsets:
        rows.append(
            pb.TableRow(
                cells=[
                    pb.TableCell(text=str(onset.layer)),
                    pb.TableCell(text=str(onset.feature)),
                    measured(onset.loops.before_D),
                    measured(onset.loops.after_D),
                    measured(onset.ordinary.after_D) if onset.ordinary else pb.TableCell(),
                    number(onset.auc),
                    number(onset.low),
                    number(onset.high),
                    pb.TableCell(text=str(onset.matched) if onset.matched_loops else ""),
                    measured(onset.matched_loops.before_D) if onset.matched_loops else pb.TableCell(),
                    measured(onset.matched_loops.after_D) if onset.matched_loops else pb.TableCell(),
                ]
            )
        )
    columns = [
        ("layer", "decoder block, from 0"),
        ("feature", "the best of the layer by rise from first to last repetition"),
        ("before", "mean activation before the onset"),
        ("after", "mean activation from the onset on"),
        ("ordinary", "mean activation in ordinary text, at the same depth"),
        ("AUC", "probability that a loop has more of it than ordinary text"),
        ("low", "lower end of its 95 % interval"),
        ("high", "upper end of it"),
        ("beside", "the feature that is as active on ordinary text"),
        ("its before", "its mean activation before the onset"),
        ("its after", "its mean activation from the onset on"),
    ]
    return pb.ReportSection(
        heading="Loops against ordinary text",
        table=pb.Table(
            caption="Means over documents, ± their standard error",
            columns=[pb.TableColumn(name=name, description=why, format=_FIXED) for name, why in columns],
            rows=rows,
        ),
    )


def _curves(entries: Sequence[FeatureEntry], classes: Sequence[str]) -> pb.ReportSection:
    best: dict[int, FeatureEntry] = {}
    for entry in entries:
        best.setdefault(entry.layer, entry)
    return pb.ReportSection(
        heading="From the first repetition to the last",
        text=f"Mean activation in each of {len(classes)} repetitions, the last one of each loop being the last: what "
        "features are ranked by is its end minus its beginning.",
        line_plot=pb.LinePlot(
            x=pb.PlotAxis(label="repetition", format=_INTEGER),
            y=pb.PlotAxis(label="mean activation", include=[0]),
            series=[
                pb.PlotSeries(
                    name=f"{layer}/{entry.feature}", x=list(range(1, len(entry.curve) + 1)), y=list(entry.curve)
                )
                for layer, entry in sorted(best.items())
            ],
            ordered=True,
        ),
    )
