"""What a panel of models adds to the report of ``bench-redundancy``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qscope.evaluation.scores import MIN_MODELS_PARTIAL, RANDOM_SUBSETS, Correlation, Panel, PanelMeasures
from qscope.evaluation.suite import BenchmarkMeasure
from qscope.recipes.subset_table import SubsetRow, subset_table
from qscope.v1 import report_pb2 as pb

_FIXED = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=3)


def shown(value: Correlation) -> str:
    """A correlation with its interval and n."""
    over = f"{value.n} benchmarks" if value.n == value.benchmarks else f"{value.n} pairs of {value.benchmarks}"
    if math.isnan(value.value):
        return f"unknown ({over})"
    interval = "no interval" if math.isnan(value.low) else f"{value.low:.3f} to {value.high:.3f}"
    return f"{value.value:.3f} ({interval}; {over})"


def panel_lines(measured: PanelMeasures) -> list[str]:
    """What the panel says: a heading, then one line a correlation. For a terminal of 80 columns."""
    lines = [
        f"{measured.models} models; intervals: 95 %, benchmarks drawn again",
        f"R and R-hat, Spearman: {shown(measured.r_spearman)}",
        f"  at equal numbers of items: {shown(measured.r_spearman_matched)}",
        f"R and the number of items: {shown(measured.r_spearman_items)}",
        "Overlap (overlap_min) and correlation of accuracies, over pairs:",
        *_both(measured.overlap_direct),
    ]
    if measured.overlap_partial is not None and measured.overlap_gain is not None:
        lines += [f"The same with {measured.tide} held fixed:", *_both(measured.overlap_partial)]
        lines += ["What holding it fixed adds:", *_both(measured.overlap_gain)]
    elif measured.tide and measured.models < MIN_MODELS_PARTIAL:
        lines.append(f"Holding {measured.tide} fixed takes {MIN_MODELS_PARTIAL} models.")
    elif measured.tide:
        lines.append(f"Nothing is known with {measured.tide} held fixed.")
    unknown = [name for name, (value, _) in measured.r.items() if math.isnan(value)]
    if unknown:
        lines.append(f"R unknown, every model has the same accuracy: {', '.join(unknown)}")
    return lines


def _both(values: tuple[Correlation, Correlation]) -> list[str]:
    return [f"  {name}: {shown(value)}" for name, value in zip(("Pearson", "Spearman"), values, strict=True)]


def panel_sections(measured: PanelMeasures, measures: Sequence[BenchmarkMeasure]) -> list[pb.ReportSection]:
    """R beside R-hat, correlations of accuracies, and how well subsets rank the panel."""
    names = [one.name for one in measures]
    return [
        pb.ReportSection(
            heading="A panel of models",
            # Empty lines part paragraphs.
            text="\n\n".join(line.strip() for line in panel_lines(measured)),
            table=pb.Table(
                caption="R: mean over n of tau-b between the ranking of the models by n random items and by all, ± "
                f"standard error over {measured.draws} random orders of the items",
                columns=[
                    pb.TableColumn(name="benchmark", description="name of the benchmark"),
                    pb.TableColumn(name="R", description="redundancy measured on the panel", format=_FIXED),
                    pb.TableColumn(name="R-hat", description="its proxy from the footprints", format=_FIXED),
                ],
                rows=[
                    pb.TableRow(
                        cells=[
                            pb.TableCell(text=one.name),
                            _cell(*measured.r[one.name], n=measured.draws),
                            _cell(one.r_hat),
                        ]
                    )
                    for one in measures
                ],
            ),
        ),
        _matrix(
            measured,
            f"Accuracies of {measured.models} models",
            "Pearson's correlation over models.",
            names,
            measured.direct,
        ),
        *(
            [
                _matrix(
                    measured,
                    f"The same with {measured.tide} held fixed ({measured.models} models)",
                    "Partial correlation over models.",
                    names,
                    measured.partial,
                )
            ]
            if measured.overlap_partial is not None
            else []
        ),
        *([_subsets(measured)] if measured.subsets else []),
    ]


def accuracy_section(panel: Panel, names: Sequence[str]) -> pb.ReportSection:
    """The mean score of every model on every benchmark."""
    return pb.ReportSection(
        heading="Mean scores",
        text="Of every model of the panel on every benchmark.",
        matrix=pb.Matrix(
            row_title="model",
            column_title="benchmark",
            row_labels=panel.models,
            column_labels=names,
            values=np.stack([panel.accuracy(name) for name in names], axis=1).ravel().tolist(),
            scale_title="mean score",
            low=0,
            high=1,
            format=_FIXED,
        ),
    )


def _cell(value: float, spread: float = math.nan, n: int = 0) -> pb.TableCell:
    if math.isnan(value):
        return pb.TableCell()
    return pb.TableCell(number=value, spread=None if math.isnan(spread) else spread, n=n)


def _matrix(
    measured: PanelMeasures, heading: str, text: str, names: Sequence[str], values_BB: np.ndarray
) -> pb.ReportSection:
    return pb.ReportSection(
        heading=heading,
        text=text,
        matrix=pb.Matrix(
            row_title="benchmark",
            column_title="benchmark",
            row_labels=names,
            column_labels=names,
            values=values_BB.ravel().tolist(),
            scale_title=f"correlation over {measured.models} models",
            low=-1,
            high=1,
            diverging=True,
            format=_FIXED,
        ),
    )


def _subsets(measured: PanelMeasures) -> pb.ReportSection:
    return pb.ReportSection(
        heading="Ranking by subsets",
        text="Kendall's tau-b between the ranking of the models by a subset and by all items.",
        table=subset_table(
            [
                SubsetRow(one.name, one.items, one.share, one.chosen, one.random_mean, one.random_sd)
                for one in measured.subsets
            ],
            what="tau-b with the ranking by all items",
            draws=RANDOM_SUBSETS,
            form=_FIXED,
        ),
    )
