"""What a steering run tells its reader: dose and response by arm, cost, and the texts side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qscope.steering.summary import Side, usable_range
from qscope.v1 import report_pb2 as pb

_TEXTS = 12
_PERCENT = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT)
_FIXED = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=3)


def steering_report(
    title: str, arms: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], *, from_unsteered: bool = True
) -> pb.Report:
    """The report of a run.

    Args:
        title: name of the run.
        arms: as :func:`qscope.steering.summary.summarise` makes them.
        rows: the generated texts.
        from_unsteered: whether every arm at factor 0 is the unsteered text, so that its curve begins there.
    """
    sections = [_table(arms), *_stability(arms), *_tasks(arms), _samples(arms, rows)]
    if len({arm["factor"] for arm in arms if arm["arm"] == "steered"}) > 1:
        sections.insert(0, _curves(arms, from_unsteered))
    return pb.Report(title=title, subtitle=_finding(arms), sections=sections)


def _finding(arms: Sequence[Mapping[str, Any]]) -> str:
    steered = [arm for arm in arms if arm["arm"] == "steered"]
    changed = [arm for arm in steered if arm["same_as_unsteered"] < 1]
    if not changed:
        return "Steering changed none of the texts."
    least = min(changed, key=lambda arm: abs(arm["factor"]))
    return " ".join(
        [
            f"{len(changed)} of {len(steered)} strengths changed texts; the smallest, {least['factor']:g} times the "
            f"given one, changed {1 - least['same_as_unsteered']:.0%} of {least['n']} texts.",
            *map(usable_sentence, usable_range(arms)),
        ]
    )


def usable_sentence(side: Side) -> str:
    """One sign of the sweep in words."""
    begins = "No text changes" if side.first is None else f"Texts change from {side.first:g} times on"
    if side.collapse is None:
        return f"{begins}, without collapse up to {side.last:g} times."
    if side.last is None:
        return f"{begins}. It collapses at {side.collapse:g} times already, the weakest tried ({side.why})."
    return (
        f"{begins}. It collapses at {side.collapse:g} times ({side.why}); {side.last:g} times is the strongest below."
    )


def _table(arms: Sequence[Mapping[str, Any]]) -> pb.ReportSection:
    columns = [
        pb.TableColumn(name="arm"),
        pb.TableColumn(
            name="factor",
            format=pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=2),
            description="factor on every strength of the spec",
        ),
        pb.TableColumn(name="texts", format=pb.NumberFormat(style=pb.NUMBER_STYLE_INTEGER)),
        pb.TableColumn(name="unchanged", format=_PERCENT, description="texts equal to the unsteered one"),
        pb.TableColumn(
            name="repeated", format=_PERCENT, description="share of 3-grams that occurred before in the text"
        ),
        pb.TableColumn(
            name="looping",
            format=_PERCENT,
            description="texts that end in three or more repetitions of a span, 24 tokens or more",
        ),
        pb.TableColumn(name="compression", format=_FIXED, description="bytes after zlib over bytes before"),
        pb.TableColumn(name="perplexity", unit="x", format=_FIXED, description="ratio on neutral text"),
        pb.TableColumn(name="KL", unit="nats", format=_FIXED, description="per token of neutral text"),
        pb.TableColumn(name="languages", description="most frequent first"),
    ]
    return pb.ReportSection(
        heading="Arms and strengths",
        text="Every arm continues the same prompts with the same random numbers. Spread is the standard deviation over "
        "texts. Perplexity and KL are measured on text that has nothing to do with the change; one spec, one text.",
        table=pb.Table(
            caption=f"Means over the texts of each arm and strength{_neutral(arms)}",
            columns=columns,
            rows=[pb.TableRow(cells=_cells(arm)) for arm in arms],
        ),
    )


def _neutral(arms: Sequence[Mapping[str, Any]]) -> str:
    tokens = {int(arm["neutral_tokens"]) for arm in arms if "neutral_tokens" in arm}
    return f"; perplexity and KL over {min(tokens):,} tokens" if tokens else ""


def _cells(arm: Mapping[str, Any]) -> list[pb.TableCell]:
    def measured(name: str) -> pb.TableCell:
        spread = arm[name]["sd"]
        cell = pb.TableCell(number=arm[name]["mean"])
        if spread is not None:
            cell.spread = spread
        return cell

    def cost(name: str) -> pb.TableCell:
        return pb.TableCell(number=arm[name]) if name in arm else pb.TableCell()

    languages = ", ".join(f"{name or 'none'} {share:.0%}" for name, share in list(arm["languages"].items())[:2])
    return [
        pb.TableCell(text=arm["arm"]),
        pb.TableCell(number=arm["factor"]),
        pb.TableCell(number=arm["n"]),
        pb.TableCell(number=arm["same_as_unsteered"]),
        measured("repeated_3grams"),
        pb.TableCell(number=arm["looping"]["mean"]),
        measured("compression"),
        cost("perplexity_ratio"),
        cost("kl"),
        pb.TableCell(text=languages),
    ]


def _stability(arms: Sequence[Mapping[str, Any]]) -> list[pb.ReportSection]:
    """What the wording of a prompt changes about an effect; nothing without paraphrases."""
    known = [arm for arm in arms if "stability" in arm]
    if not known:
        return []
    some = known[0]["stability"]
    columns = [
        pb.TableColumn(name="arm"),
        pb.TableColumn(name="factor", format=pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=2)),
        pb.TableColumn(name="changed", format=_PERCENT, description="texts that differ from the unsteered one"),
        pb.TableColumn(name="language changed", format=_PERCENT, description="texts in another language"),
        pb.TableColumn(name="repeated", format=_PERCENT, description="share of 3-grams that occurred before"),
    ]
    rows = [
        pb.TableRow(
            cells=[
                pb.TableCell(text=arm["arm"]),
                pb.TableCell(number=arm["factor"]),
                *(
                    pb.TableCell(number=arm["stability"][name]["mean"], spread=arm["stability"][name]["within"])
                    for name in ("changed", "language_changed", "repeated_3grams")
                ),
            ]
        )
        for arm in known
    ]
    return [
        pb.ReportSection(
            heading="Other words",
            text="The same prompts in several wordings. ± is the standard deviation between wordings of one prompt, "
            "pooled over prompts: 0 where the wording does not matter.",
            table=pb.Table(
                caption=f"{some['paraphrases']} prompts in {some['wordings']} wordings", columns=columns, rows=rows
            ),
        )
    ]


def _tasks(arms: Sequence[Mapping[str, Any]]) -> list[pb.ReportSection]:
    """Benchmark tasks by arm; nothing where none were run."""
    known = [arm for arm in arms if arm.get("tasks")]
    if not known:
        return []
    names = list(dict.fromkeys((score["task"], score["metric"]) for arm in known for score in arm["tasks"]))
    rows = []
    for arm in known:
        found = {(score["task"], score["metric"]): score for score in arm["tasks"]}
        cells = [pb.TableCell(text=arm["arm"]), pb.TableCell(number=arm["factor"])]
        for name in names:
            cell = pb.TableCell()
            if name in found:
                cell = _score_cell(found[name])
            cells.append(cell)
        rows.append(pb.TableRow(cells=cells))
    columns = [
        pb.TableColumn(name="arm"),
        pb.TableColumn(name="factor", format=pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=2)),
        *(pb.TableColumn(name=f"{task} {metric}", format=_FIXED) for task, metric in names),
    ]
    return [
        pb.ReportSection(
            heading="Tasks",
            text="Tasks of lm-evaluation-harness, the same examples in every arm but `prompt`, where they are not run. "
            "± is the harness' standard error; as the examples are the same, the error of a difference between arms is "
            "usually smaller than that of two separate samples. An arm that changed no position has the scores of the "
            "model as it is.",
            table=pb.Table(caption="Scores by arm and strength", columns=columns, rows=rows),
        )
    ]


def _score_cell(score: Mapping[str, Any]) -> pb.TableCell:
    """A score with its error; empty where the harness gave no number."""
    if score["value"] is None:
        return pb.TableCell()
    cell = pb.TableCell(number=score["value"], n=score["n"])
    if score["stderr"] is not None:
        cell.spread = score["stderr"]
    return cell


def task_lines(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tasks for a terminal of 80 columns; empty where none were run."""
    known = [arm for arm in arms if arm.get("tasks")]
    if not known:
        return []
    lines = [f"{'arm':<14}{'factor':>7}  {'task':<32}{'value':>8}{'± se':>8}{'n':>7}"]
    for arm in known:
        for score in arm["tasks"]:
            name = f"{score['task']} {score['metric']}"
            name = name if len(name) <= 31 else f"{name[:28]}..."
            value, error = ("" if score[part] is None else f"{score[part]:.3f}" for part in ("value", "stderr"))
            value = f"{value:>8}{error:>8}{score['n']:>7}"
            lines.append(f"{arm['arm']:<14}{arm['factor']:>7g}  {name:<32}{value}".rstrip())
    return lines


def stability_line(arms: Sequence[Mapping[str, Any]]) -> str:
    """Of the strongest steered arm with paraphrases, how far its effect depends on the wording; empty without."""
    known = [arm for arm in arms if arm["arm"] == "steered" and "stability" in arm]
    if not known:
        return ""
    strongest = max(known, key=lambda arm: abs(arm["factor"]))
    found = strongest["stability"]
    changed, language = found["changed"], found["language_changed"]
    return (
        f"At {strongest['factor']:g} times, over {found['paraphrases']} prompts in {found['wordings']} wordings: texts "
        f"changed {changed['mean']:.0%} ± {changed['within']:.0%}, language changed {language['mean']:.0%} ± "
        f"{language['within']:.0%} (± between wordings of a prompt)."
    )


def _curves(arms: Sequence[Mapping[str, Any]], from_unsteered: bool) -> pb.ReportSection:
    plots = [
        ("Repetition", "repeated 3-grams", lambda arm: arm["repeated_3grams"]["mean"], False, _PERCENT),
        ("Texts that end in a loop", "share of texts", lambda arm: arm["looping"]["mean"], False, _PERCENT),
        ("Unchanged texts", "share of texts", lambda arm: arm["same_as_unsteered"], False, _PERCENT),
    ]
    if any("kl" in arm for arm in arms):
        plots.append(
            (
                "Cost on neutral text",
                "perplexity ratio",
                lambda arm: arm.get("perplexity_ratio", math.nan),
                True,
                _FIXED,
            )
        )
    moved = _moved_language(arms)
    if moved:
        share = f"share of texts in {moved}"
        plots.insert(0, (f"Texts in {moved}", share, lambda arm: arm["languages"].get(moved, 0.0), False, _PERCENT))
    return pb.ReportSection(
        heading="Dose and response",
        text="One point is one arm at one strength. Controls that rise with the steered curve mean that the size of "
        "the change did it, not its direction.",
        sections=[
            pb.ReportSection(
                heading=heading,
                line_plot=pb.LinePlot(
                    x=pb.PlotAxis(label="factor on the strength", include=[0]),
                    y=pb.PlotAxis(label=label, log=log, format=form, include=[] if log else [0]),
                    series=list(_series(arms, value, from_unsteered)),
                    markers=[pb.PlotMarker(x=0)],
                ),
            )
            for heading, label, value, log, form in plots
        ],
    )


def _moved_language(arms: Sequence[Mapping[str, Any]]) -> str:
    """The language whose share steering raises most; empty when it raises none."""
    base = next(arm["languages"] for arm in arms if arm["arm"] == "unsteered")
    rises: dict[str, float] = {}
    for arm in arms:
        for name, share in arm["languages"].items() if arm["arm"] == "steered" else ():
            if name:
                rises[name] = max(rises.get(name, 0.0), share - base.get(name, 0.0))
    best = max(rises, key=lambda name: rises[name], default="")
    return best if rises.get(best, 0.0) > 0 else ""


def _series(arms: Sequence[Mapping[str, Any]], value: Any, from_unsteered: bool) -> list[pb.PlotSeries]:
    base = next(arm for arm in arms if arm["arm"] == "unsteered")
    series = []
    for name in dict.fromkeys(arm["arm"] for arm in arms):
        mine = [arm for arm in arms if arm["arm"] == name]
        if len(mine) < 2:
            continue
        origin = [base | {"factor": 0.0}] if from_unsteered else []
        points = sorted({arm["factor"]: value(arm) for arm in [*origin, *mine]}.items())
        series.append(pb.PlotSeries(name=name, x=[x for x, _ in points], y=[y for _, y in points]))
    return series


def _samples(arms: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> pb.ReportSection:
    by_key = {(row["arm"], row["factor"], row["prompt"], row["sample"]): row for row in rows}
    columns = [(arm["arm"], arm["factor"]) for arm in arms if arm["arm"] in ("unsteered", "steered")]
    # A page holds a few columns: the unsteered text and strengths spread over the sweep.
    if len(columns) > 5:
        inner = columns[1:]
        columns = [columns[0], *(inner[round(i * (len(inner) - 1) / 3)] for i in range(4))]
    prompts = sorted({(row["prompt"], row["sample"]) for row in rows})[:_TEXTS]
    return pb.ReportSection(
        heading="Texts",
        text=f"The first {len(prompts)} of {len({(r['prompt'], r['sample']) for r in rows})} prompts and samples.",
        samples=pb.Samples(
            arms=[
                pb.SampleArm(name=name if name == "unsteered" else f"{name} x {factor:g}") for name, factor in columns
            ],
            rows=[
                pb.SampleRow(
                    prompt=by_key["unsteered", 0.0, prompt, sample]["prompt_text"],
                    cells=[_sample(by_key[name, factor, prompt, sample]) for name, factor in columns],
                )
                for prompt, sample in prompts
            ],
        ),
    )


def _sample(row: Mapping[str, Any]) -> pb.SampleCell:
    return pb.SampleCell(text=row["text"], note=f"{row['language'] or 'no language'}, {row['ended'].replace('_', ' ')}")


def steering_lines(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for a terminal of 80 columns."""
    lines = [f"{'arm':<14}{'factor':>7}{'texts':>6}{'same':>6}{'rep.3':>7}{'loops':>6}{'ppl x':>9}{'KL':>8}  languages"]
    for arm in arms:
        ratio, kl = (f"{arm[name]:.3f}" if name in arm else "" for name in ("perplexity_ratio", "kl"))
        if len(ratio) > 8:
            ratio = f"{arm['perplexity_ratio']:.1e}"
        line = (
            f"{arm['arm']:<14}{arm['factor']:>7g}{arm['n']:>6}{arm['same_as_unsteered']:>6.0%}"
            f"{arm['repeated_3grams']['mean']:>7.1%}{arm['looping']['mean']:>6.0%}{ratio:>9}{kl:>8} "
        )
        # As many languages as fit, each whole: half a share reads as another number.
        for name, share in arm["languages"].items():
            more = f"{line} {name or '-'} {share:.0%}"
            if len(more) > 80:
                break
            line = more
        lines.append(line.rstrip())
    return lines
