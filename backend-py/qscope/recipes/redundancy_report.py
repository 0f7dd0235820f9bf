"""What a run of ``bench-redundancy`` tells its reader."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qscope.evaluation.advice import Advice, Ending
from qscope.evaluation.panel import subset_sizes
from qscope.evaluation.stability import Agreement, Stability
from qscope.evaluation.suite import MIN_ITEMS, RANDOM_SUBSETS, BenchmarkMeasure, Overlaps
from qscope.features.coverage import coverage_curve
from qscope.features.footprints import Footprints
from qscope.recipes.subset_table import SubsetRow, subset_table
from qscope.v1 import report_pb2 as pb

_FIXED = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=3)
_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_COUNT)
_PERCENT = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT, digits=0)
#: Widths of the terminal's table: 80 columns in all, and two for the last column's ending.
_NAME_WIDTH = 24
#: Curves that can still be told apart in one plot.
_CURVES = 10


def suite_lines(measures: Sequence[BenchmarkMeasure], advice: Sequence[Advice], main: tuple[int, str]) -> list[str]:
    """The table for a terminal of 80 columns, most redundant first, and the advice below it."""
    lines = [
        f"Layer {main[0]}, rule {main[1]}. Compare the order of R-hat, not its values.",
        f"{'benchmark':<{_NAME_WIDTH}}{'items':>8}{'features':>10}{'per item':>10}{'AUC':>7}{'R-hat':>9}  advice",
    ]
    verdicts = {suggested.name: suggested.verdict for suggested in advice}
    for measured in sorted(measures, key=lambda each: -each.r_hat if not math.isnan(each.r_hat) else math.inf):
        name = measured.name if len(measured.name) < _NAME_WIDTH else f"{measured.name[: _NAME_WIDTH - 2]}~"
        lines.append(
            f"{name:<{_NAME_WIDTH}}{measured.items:>8,}{measured.features:>10,}{measured.per_item:>10.1f}"
            f"{_number(measured.auc):>7}{_number(measured.r_hat):>9}  {verdicts[measured.name]}"
        )
    return lines + [
        f"{suggested.name}: {suggested.verdict}: {suggested.reason}"
        for suggested in advice
        if suggested.verdict != "keep"
    ]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def redundancy_report(
    title: str,
    suite: Mapping[str, Footprints],
    measures: Sequence[BenchmarkMeasure],
    shared: Overlaps,
    advice: Sequence[Advice],
    stable: Stability,
    endings: Mapping[str, Ending],
    main: tuple[int, str],
    order: Sequence[int],
) -> pb.Report:
    """The report of a run; ``order`` are places of the benchmarks, in which matrices show them."""
    sections = [_table(measures, shared, advice, endings), _advice(advice), _curves(suite, measures)]
    if len(suite) > 1:
        sections += [_matrix(shared, order), _chance(shared, order)] if len(suite) > 2 else [_matrix(shared, order)]
        sections.append(_stability(stable, len(suite)))
    if any(measured.subsets for measured in measures):
        sections.append(_subsets(measures))
    return pb.Report(
        title=title,
        subtitle=f"{len(suite)} benchmarks by the features at the last token of their prompts: layer {main[0]}, "
        f"rule {main[1]}. About what is asked, not about how good a benchmark is.",
        sections=sections,
    )


def _cell(value: float) -> pb.TableCell:
    return pb.TableCell() if math.isnan(value) else pb.TableCell(number=value)


def _table(
    measures: Sequence[BenchmarkMeasure], shared: Overlaps, advice: Sequence[Advice], endings: Mapping[str, Ending]
) -> pb.ReportSection:
    columns = [
        ("benchmark", "name of the benchmark", None),
        ("items", "N", _COUNT),
        ("features", "|F|: features that any item activates", _COUNT),
        ("features per item", "mean over the items", _FIXED),
        ("AUC", "area under the coverage curve", _FIXED),
        ("R-hat", "AUC N / |F|: compare ranks; grows with the number of items", _FIXED),
        ("elsewhere", "share of its features active in any other benchmark", _PERCENT),
        ("twins", "items with exactly the features of an earlier one", _COUNT),
        ("last token", "the most common last token of its prompts, where the features are looked at", None),
        ("of prompts", "share of the prompts that end in it", _PERCENT),
        ("advice", "by fixed thresholds; its reason is in the next section", None),
    ]
    return pb.ReportSection(
        heading="Benchmarks",
        table=pb.Table(
            caption="Exact closed forms; no sampling",
            columns=[pb.TableColumn(name=name, description=why, format=form) for name, why, form in columns],
            rows=[
                pb.TableRow(
                    cells=[
                        pb.TableCell(text=measured.name),
                        _cell(measured.items),
                        _cell(measured.features),
                        _cell(measured.per_item),
                        _cell(measured.auc),
                        _cell(measured.r_hat),
                        _cell(float(shared.elsewhere[index])),
                        _cell(measured.twins),
                        pb.TableCell(text=repr(endings[measured.name].text)),
                        _cell(endings[measured.name].share),
                        pb.TableCell(text=advice[index].verdict),
                    ]
                )
                for index, measured in enumerate(measures)
            ],
        ),
    )


def _advice(advice: Sequence[Advice]) -> pb.ReportSection:
    """Reasons are sentences: beside ten columns of numbers they would stand in a column one word wide."""
    columns = [
        ("benchmark", "name of the benchmark"),
        ("advice", "merge, shrink, extend, keep, or unknown"),
        ("because", "the numbers behind it, by fixed thresholds"),
    ]
    return pb.ReportSection(
        heading="Advice",
        table=pb.Table(
            columns=[pb.TableColumn(name=name, description=why) for name, why in columns],
            rows=[
                pb.TableRow(cells=[pb.TableCell(text=text) for text in (said.name, said.verdict, said.reason)])
                for said in advice
            ],
        ),
    )


def _curves(suite: Mapping[str, Footprints], measures: Sequence[BenchmarkMeasure]) -> pb.ReportSection:
    # Of more benchmarks than a plot can hold: those of smallest and largest area, and some evenly between them.
    by_area = sorted((each for each in measures if not math.isnan(each.auc)), key=lambda each: each.auc)
    places = np.unique(np.linspace(0, len(by_area) - 1, _CURVES).round().astype(int))
    # Benchmarks without a feature have no curve.
    few = len(by_area) <= _CURVES
    with_area = {each.name for each in by_area}
    names = [name for name in suite if name in with_area] if few else [by_area[place].name for place in places]
    series = []
    for name in names:
        sizes = subset_sizes(suite[name].items, 60)
        series.append(pb.PlotSeries(name=name, x=sizes.tolist(), y=coverage_curve(suite[name], sizes).tolist()))
    return pb.ReportSection(
        heading="Coverage",
        text="Share of a benchmark's features that n of its items activate, mean over all subsets of that size. A "
        "curve that rises at once says that few items would do."
        + ("" if few else f" {len(names)} of {len(suite)} benchmarks, from the smallest to the largest AUC."),
        line_plot=pb.LinePlot(
            x=pb.PlotAxis(label="items", log=True, format=_COUNT),
            y=pb.PlotAxis(label="share of features covered", include=[0, 1], format=_PERCENT),
            series=series,
        ),
    )


def _matrix(shared: Overlaps, order: Sequence[int]) -> pb.ReportSection:
    return _pairs("Overlap", "How much of the row's features the column has as well.", shared, shared.directed, order)


def _chance(shared: Overlaps, order: Sequence[int]) -> pb.ReportSection:
    return _pairs(
        "Overlap by chance",
        "How much of the row's features would be active in the column if the column were as many features as it has, "
        "drawn as they come in the rest of the suite. What lies above it is what the two have in common.",
        shared,
        shared.chance,
        order,
    )


def _pairs(heading: str, text: str, shared: Overlaps, values_BB: np.ndarray, order: Sequence[int]) -> pb.ReportSection:
    values_BB = values_BB.copy()
    np.fill_diagonal(values_BB, math.nan)
    names = [shared.names[place] for place in order]
    return pb.ReportSection(
        heading=heading,
        text=text,
        matrix=pb.Matrix(
            row_title="features of",
            column_title="found in",
            row_labels=names,
            column_labels=names,
            values=values_BB[np.ix_(order, order)].ravel().tolist(),
            scale_title="share of the row's features",
            low=0,
            high=1,
            format=_PERCENT,
        ),
    )


def _stability(stable: Stability, count: int) -> pb.ReportSection:
    halves = _spread(stable.halves, stable.halves_sd)
    matched = _spread(stable.halves_matched, stable.halves_matched_sd)
    at_equal_size = (
        f"At equal size every benchmark stands for itself with {stable.matched_items} random items ({stable.draws} "
        "draws)."
        if stable.matched_items
        else f"There is no equal size: no benchmark has {MIN_ITEMS} items."
    )
    of_equal_size = f"; with halves of equal size: {matched}" if stable.matched_items else ""
    return pb.ReportSection(
        heading="Stability",
        text=f"Spearman's correlation with the table above, over {count} benchmarks and their pairs.\n\nR-hat grows "
        f"with the number of items, so benchmarks of different sizes keep their order whatever is measured: R-hat and "
        f"the number of items alone correlate by {_or_unknown(stable.items)}. {at_equal_size}\n\nR-hat of one random "
        f"half of every benchmark against the other half: {halves}{of_equal_size} (mean ± standard deviation over "
        f"{stable.draws} draws).",
        table=pb.Table(
            caption="Other layers and rules",
            columns=[
                pb.TableColumn(name="layer", description="decoder block, from 0"),
                pb.TableColumn(name="rule", description="which codes count as features"),
                pb.TableColumn(name="R-hat", description="agreement of R-hat, by rank", format=_FIXED),
                pb.TableColumn(
                    name="R-hat at equal size", description="the same at equal numbers of items", format=_FIXED
                ),
                pb.TableColumn(name="overlap", description="agreement of overlap_min, by rank", format=_FIXED),
            ],
            rows=[_agreement(other) for other in stable.others],
        ),
    )


def _agreement(other: Agreement) -> pb.TableRow:
    return pb.TableRow(
        cells=[
            pb.TableCell(text=str(other.layer)),
            pb.TableCell(text=other.rule),
            _cell(other.r_hat),
            _cell(other.r_hat_matched),
            _cell(other.overlap),
        ]
    )


def _or_unknown(value: float) -> str:
    return "an unknown amount (it takes three benchmarks)" if math.isnan(value) else f"{value:.3f}"


def _spread(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "unknown, it takes three benchmarks"
    return f"{mean:.3f}" if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def _subsets(measures: Sequence[BenchmarkMeasure]) -> pb.ReportSection:
    return pb.ReportSection(
        heading="Subsets",
        text="Items chosen one after the other for the features not yet covered, against random items.",
        table=subset_table(
            [
                SubsetRow(measured.name, part.items, part.share, part.covered, part.random_mean, part.random_sd)
                for measured in measures
                for part in measured.subsets
            ],
            what="share of the benchmark's features kept",
            draws=RANDOM_SUBSETS,
            form=_PERCENT,
        ),
    )
