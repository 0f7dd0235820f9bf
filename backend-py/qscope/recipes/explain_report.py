"""What an explanation run tells its reader: labels with their scores, and the contexts they were written from."""

from __future__ import annotations

import statistics
import unicodedata
from collections.abc import Sequence

from qscope.v1 import report_pb2 as pb
from qscope.v1.explain_pb2 import Explanation, ExplanationSet

_FIXED = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=3)
_PERCENT = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT)
_CONTEXTS = 8


def explanation_lines(explained: Sequence[Explanation]) -> list[str]:
    """The table for a terminal of 80 columns; a label that does not fit ends in three dots."""
    lines = [f"{'feature':<12}{'score':>6}  {'95 %':<13}{'other':>6}{'n':>5}  label"]
    for one in explained:
        scored = one.HasField("balanced_accuracy")
        score = (
            f"{one.balanced_accuracy:>6.2f}  {f'{one.low:.2f}-{one.high:.2f}':<13}" if scored else f"{'':>8}{'':<13}"
        )
        other = f"{one.foreign_accuracy:.2f}" if one.HasField("foreign_accuracy") else ""
        name = f"{one.layer}/{one.feature}"
        lines.append(f"{name:<12}{score}{other:>6}{one.n_active + one.n_silent:>5}  {fitted(one.label, 34)}".rstrip())
    lines.append("score: balanced accuracy of the label on held-out windows (0.5: says nothing)")
    lines.append("other: what another feature's label scores on the same windows")
    return lines


def fitted(text: str, columns: int) -> str:
    """Text that takes at most so many columns of a terminal, in which Chinese and Korean characters take two."""
    if sum(map(_columns, text)) <= columns:
        return text
    kept, used = "", 3
    for character in text:
        used += _columns(character)
        if used > columns:
            break
        kept += character
    return f"{kept}..."


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def explanation_report(title: str, found: ExplanationSet) -> pb.Report:
    """The report of a run."""
    scored = [one for one in found.explanations if one.HasField("balanced_accuracy")]
    middle = statistics.median(one.balanced_accuracy for one in scored) if scored else 0.0
    subtitle = (
        f"{len(found.explanations)} features, labels by {found.writer}: median balanced accuracy {middle:.2f} on "
        f"held-out windows, {sum(one.low > 0.5 for one in scored)} of {len(scored)} above chance."
        if scored
        else "No label could be scored."
    )
    contexts = [one for one in found.explanations if one.shown]
    return pb.Report(
        title=title,
        subtitle=subtitle,
        sections=[
            _labels(found.explanations),
            pb.ReportSection(
                heading="Contexts",
                text=f"Up to {_CONTEXTS} of the contexts each label was written from, coloured by activation.",
                sections=[_contexts(one) for one in contexts],
            ),
        ],
    )


def _labels(explained: Sequence[Explanation]) -> pb.ReportSection:
    def share(one: Explanation, name: str) -> pb.TableCell:
        return pb.TableCell(number=getattr(one, name)) if one.HasField(name) else pb.TableCell()

    columns = [
        pb.TableColumn(name="feature"),
        pb.TableColumn(name="label"),
        pb.TableColumn(
            name="score", format=_FIXED, description="balanced accuracy on held-out contexts and silent windows"
        ),
        pb.TableColumn(name="low", format=_FIXED, description="lower end of its 95 % interval"),
        pb.TableColumn(name="high", format=_FIXED, description="upper end of it"),
        pb.TableColumn(name="recall", format=_FIXED, description="share of held-out contexts found"),
        pb.TableColumn(name="specificity", format=_FIXED, description="share of silent windows left alone"),
        pb.TableColumn(name="other", format=_FIXED, description="score of another feature's label on these windows"),
        pb.TableColumn(name="fires", format=_PERCENT, description="share of the tokens on which the feature fires"),
        pb.TableColumn(name="unanswered", description="windows for which no answer was understood"),
    ]
    rows = [
        pb.TableRow(
            cells=[
                pb.TableCell(text=f"{one.layer}/{one.feature}"),
                pb.TableCell(text=one.label),
                *(
                    share(one, name)
                    for name in ("balanced_accuracy", "low", "high", "recall", "specificity", "foreign_accuracy")
                ),
                pb.TableCell(number=one.rate),
                pb.TableCell(number=one.unanswered),
            ]
        )
        for one in explained
    ]
    windows = sorted({(one.n_active, one.n_silent) for one in explained})
    counts = (
        f"{windows[0][0]} contexts and {windows[0][1]} silent windows each" if len(windows) == 1 else "see the file"
    )
    return pb.ReportSection(
        heading="Labels",
        text="A label is scored by telling, for held-out windows, whether the feature fires in them. 0.5 is what a "
        "label that says nothing reaches. Contexts scored run from the strongest to the weakest found.",
        table=pb.Table(caption=f"Scored on {counts}", columns=columns, rows=rows),
    )


def _contexts(one: Explanation) -> pb.ReportSection:
    return pb.ReportSection(
        heading=f"{one.layer}/{one.feature}: {one.label or 'no label'}"[:120],
        folded=True,
        tokens=pb.Tokens(
            value_title="activation",
            max=one.max_activation or None,
            sequences=[
                pb.TokenSequence(
                    label=f"document {context.document}, {context.activation:.3g}",
                    tokens=[
                        pb.TokenValue(text=token, value=value)
                        for token, value in zip(context.tokens, context.activations, strict=True)
                    ],
                )
                for context in one.shown[:_CONTEXTS]
            ],
        ),
    )
