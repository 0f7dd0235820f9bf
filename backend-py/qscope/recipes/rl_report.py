"""What ``qscope rl`` found, for the page of a run; the curves of its metrics are there already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qscope.features.intervals import Interval
from qscope.posttraining.held_out_prompts import Evaluated
from qscope.posttraining.rare_negatives import RareNegatives
from qscope.recipes.rl_parts import has_negatives, has_penalty
from qscope.recipes.rl_samples import rollout_samples
from qscope.v1 import report_pb2 as pb
from qscope.v1.rl_pb2 import RareNegativeSource, Rl

_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_INTEGER)
_SHARE = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT, digits=1)


def rl_report(
    name: str,
    task: Rl,
    rare: RareNegatives | None,
    evaluated: Sequence[Evaluated],
    steps: int,
    rollouts: Sequence[dict[str, Any]] = (),
) -> pb.Report:
    """The report of a run: loops and right answers on held-out prompts, how the strength was found, some rollouts."""
    report = pb.Report(title=name, subtitle=_finding(task, evaluated, steps))
    if evaluated:
        report.sections.append(_evaluations(evaluated))
        report.sections.append(_curve_of(evaluated))
    if rare is not None and rare.calibrations:
        report.sections.append(_strengths(rare))
    samples = rollout_samples(rollouts)
    if samples is not None:
        report.sections.append(samples)
    return report


def arm_words(task: Rl) -> str:
    """What kind of run it is, in words."""
    if has_penalty(task):
        return f"DAPO with features that cost reward, weight {task.sae_penalty.reward.weight:g}"
    if not has_negatives(task):
        return "plain DAPO"
    source = RareNegativeSource.Name(task.sae_penalty.rare_negative.source).removeprefix("RARE_NEGATIVE_SOURCE_")
    return f"DAPO with rare negatives, {source.lower().replace('_', ' ')}"


def _finding(task: Rl, evaluated: Sequence[Evaluated], steps: int) -> str:
    said = f"{steps:,} steps, {arm_words(task)}"
    if len(evaluated) < 2:
        return said
    first, last = evaluated[0], evaluated[-1]
    said += f": repeat ratio {_interval(first.repeat)} to {_interval(last.repeat)}"
    if last.accuracy.n:
        said += f", accuracy {_interval(first.accuracy)} to {_interval(last.accuracy)}"
    return said


def evaluation_words(found: Evaluated) -> str:
    """An evaluation as a line for people."""
    said = f"repeat ratio {_interval(found.repeat)}, cut off {_interval(found.clipped)}"
    return said + (f", right {_interval(found.accuracy)}" if found.accuracy.n else "")


def _interval(one: Interval) -> str:
    return f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%}, n {one.n:,})"


def _evaluations(evaluated: Sequence[Evaluated]) -> pb.ReportSection:
    table = pb.Table(caption="Responses to held-out prompts, with Wilson's intervals of 95 %")
    table.columns.append(pb.TableColumn(name="step", format=_COUNT))
    table.columns.extend(
        [pb.TableColumn(name=name) for name in ("repeat ratio", "cut off", "right")]
        + [pb.TableColumn(name="repeated 3-grams", format=_SHARE)]
    )
    for one in evaluated:
        right = _interval(one.accuracy) if one.accuracy.n else "not asked"
        cells = [pb.TableCell(number=one.step)]
        cells += [pb.TableCell(text=text) for text in (_interval(one.repeat), _interval(one.clipped), right)]
        table.rows.add(cells=[*cells, pb.TableCell(number=one.repeated_3grams)])
    return pb.ReportSection(heading="Held-out prompts", table=table)


def _curve_of(evaluated: Sequence[Evaluated]) -> pb.ReportSection:
    steps = [float(one.step) for one in evaluated]
    plot = pb.LinePlot(
        x=pb.PlotAxis(label="step", format=_COUNT),
        y=pb.PlotAxis(label="share of responses", format=_SHARE, include=[0]),
        ordered=True,
        band="Wilson's interval of 95 %",
    )
    for name, shares in (
        ("repeat ratio", [one.repeat for one in evaluated]),
        ("right", [one.accuracy for one in evaluated]),
    ):
        if all(one.n for one in shares):
            plot.series.add(
                name=name,
                x=steps,
                y=[one.value for one in shares],
                low=[one.low for one in shares],
                high=[one.high for one in shares],
            )
    return pb.ReportSection(heading="Over training", line_plot=plot)


def _strengths(rare: RareNegatives) -> pb.ReportSection:
    plot = pb.LinePlot(
        x=pb.PlotAxis(label="strength in median residual norms", format=pb.NumberFormat(digits=2)),
        y=pb.PlotAxis(label="verified loops", format=_SHARE, include=[0, 1]),
        ordered=True,
        band="Wilson's interval of 95 %",
    )
    for found in rare.calibrations:
        curve = found["curve"]
        plot.series.add(
            name=f"before step {found['step'] + 1:,}",
            x=[point["strength"] for point in curve],
            y=[point["loop_rate"] for point in curve],
            low=[point["low"] for point in curve],
            high=[point["high"] for point in curve],
        )
    return pb.ReportSection(
        heading="Strength of steering",
        text="The smallest strength that reaches the wanted share is taken; stronger ones are not tried.",
        line_plot=plot,
    )
