"""The page of ``qscope eval``: shares with their intervals, and what was found in single responses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qscope.features.intervals import Interval
from qscope.posttraining.evaluating import Measured
from qscope.posttraining.measures import Repeats
from qscope.recipes.eval_words import Origin, answer_notes, has_micro, name_of, repeat_notes, switch_notes
from qscope.v1 import report_pb2 as pb

_PERCENT = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT)
_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_INTEGER)
#: Findings of each measure on the page; all are in findings.jsonl.
SHOWN = 20


def eval_report(title: str, measured: Measured, origin: Origin, found: Sequence[Mapping[str, Any]]) -> pb.Report:
    """The page of a run.

    Args:
        title: name of the run.
        measured: what was measured.
        origin: of the responses.
        found: loops, switches and wrong answers.
    """
    sections = [_shares(measured, origin)]
    for measure, heading in (("repeat", "Loops"), ("codeswitch", "Switches"), ("accuracy", "Wrong answers")):
        mine = [one for one in found if one["measure"] == measure]
        if mine:
            sections.append(_found(heading, mine))
    return pb.Report(title=title, subtitle=_finding(measured), sections=sections)


def _finding(measured: Measured) -> str:
    parts = []
    if (found := measured.repeats) is not None:
        parts.append(f"{_percent(found.endless)} loop without end")
    for row in measured.micro:
        parts.append(f"{_percent(row.ratio)} switch to {row.target or 'another language'}")
    if (right := measured.accuracy) is not None:
        parts.append(f"{_percent(right.share)} are right")
    return f"Of {measured.n:,} responses, {'; '.join(parts)}." if parts else ""


def _percent(share: Interval) -> str:
    if not share.n:
        return "none"
    return f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%})"


def _shares(measured: Measured, origin: Origin) -> pb.ReportSection:
    rows, notes = [], [f"Responses {origin.sentence}."]
    if (found := measured.repeats) is not None:
        rows += [_row("endless", found.endless), _row("cut off at the limit", found.cut_off)]
        if not math.isnan(found.repeated_3grams):
            rows.append(_mean_row("repeated 3-grams", found, measured.n))
        notes += repeat_notes(found, origin)
    if measured.switches is not None:
        micro = measured.micro if has_micro(measured) else ()
        rows += [_row(f"switch: {name_of(row)}", row.ratio) for row in (*measured.switches, *micro)]
        notes += switch_notes(measured, origin)
    if (right := measured.accuracy) is not None:
        rows.append(_row(f"right ({right.rule})", right.share))
        notes += answer_notes(right)
    notes += origin.notes
    columns = [
        pb.TableColumn(name="measure"),
        pb.TableColumn(name="share", format=_PERCENT),
        pb.TableColumn(name="low", format=_PERCENT, description="lower end of Wilson's 95 % interval"),
        pb.TableColumn(name="high", format=_PERCENT, description="upper end of it"),
        pb.TableColumn(name="n", format=_COUNT, description="responses it was measured on"),
    ]
    return pb.ReportSection(
        heading="Shares",
        text="\n\n".join(notes),
        table=pb.Table(
            caption="Shares of responses with Wilson's 95 % interval; of 3-grams the mean ± standard deviation",
            columns=columns,
            rows=rows,
        ),
    )


def _row(name: str, share: Interval) -> pb.TableRow:
    def cell(value: float) -> pb.TableCell:
        return pb.TableCell() if math.isnan(value) else pb.TableCell(number=value)

    cells = [pb.TableCell(text=name), cell(share.value), cell(share.low), cell(share.high)]
    return pb.TableRow(cells=[*cells, pb.TableCell(number=share.n)])


def _mean_row(name: str, found: Repeats, n: int) -> pb.TableRow:
    mean = pb.TableCell(number=found.repeated_3grams)
    if not math.isnan(found.repeated_3grams_sd):
        mean.spread = found.repeated_3grams_sd
    return pb.TableRow(cells=[pb.TableCell(text=name), mean, pb.TableCell(), pb.TableCell(), pb.TableCell(number=n)])


def _found(heading: str, found: Sequence[Mapping[str, Any]]) -> pb.ReportSection:
    columns = [
        pb.TableColumn(name="row", description="row of the source, and which of its responses"),
        pb.TableColumn(name="what"),
        pb.TableColumn(name="before"),
        pb.TableColumn(name="found"),
        pb.TableColumn(name="after"),
    ]
    rows = []
    for one in found[:SHOWN]:
        cells = [f"{one['row']}.{one['sample']}", _what(one), one["before"], one["text"], one.get("after", "")]
        rows.append(pb.TableRow(cells=[pb.TableCell(text=cell) for cell in cells]))
    count = f"The first {SHOWN} of {len(found):,}" if len(found) > SHOWN else f"All {len(found):,}"
    return pb.ReportSection(
        heading=heading,
        folded=True,
        table=pb.Table(caption=f"{count}; all are in artifacts/findings.jsonl", columns=columns, rows=rows),
    )


def _what(one: Mapping[str, Any]) -> str:
    if one["measure"] == "repeat":
        return f"{one['repetitions']:,} times {one['period']:,} {one['unit']}"
    if one["measure"] == "codeswitch":
        return f"{one['expected']} to {one['target'] or one['language'] or one['script']}"
    return f"right: {one['answer']}"
