"""What ``qscope sft`` found, for the page of a run; the curves of its metrics are there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qscope.posttraining.examples import Examples
from qscope.recipes.sft_parts import ARM_WORDS, arm_of
from qscope.v1 import report_pb2 as pb
from qscope.v1.sft_pb2 import Sft

_LOSS = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=4)
_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_INTEGER)


def sft_report(
    name: str, task: Sft, record: Mapping[str, Any], found: Examples, losses: Mapping[int, float], steps: int
) -> pb.Report:
    """The report of a run: what it was trained on, what was held down, and the held-out loss."""
    report = pb.Report(title=name, subtitle=_finding(ARM_WORDS[arm_of(task)], losses, steps))
    if losses:
        report.sections.append(_losses(losses))
    report.sections.append(_rows(found))
    if record.get("layers"):
        report.sections.append(_features(record))
    return report


def _finding(arm: str, losses: Mapping[int, float], steps: int) -> str:
    said = f"{steps:,} steps, {arm}"
    if len(losses) < 2:
        return said
    first, *_, last = losses.values()
    return f"{said}: held-out loss {first:.4f} to {last:.4f} nats a token"


def _losses(losses: Mapping[int, float]) -> pb.ReportSection:
    table = pb.Table(caption="Mean loss of an answer token on the held-out rows, in nats")
    table.columns.extend([pb.TableColumn(name="step", format=_COUNT), pb.TableColumn(name="loss", format=_LOSS)])
    for step, loss in losses.items():
        table.rows.add(cells=[pb.TableCell(number=step), pb.TableCell(number=loss)])
    return pb.ReportSection(heading="Held-out loss", table=table)


def _rows(found: Examples) -> pb.ReportSection:
    names = sorted({*found.given, *found.tagged})
    table = pb.Table(caption=f"Rows by language; {found.summary()}")
    table.columns.extend(
        [pb.TableColumn(name="language")] + [pb.TableColumn(name=kind, format=_COUNT) for kind in ("given", "tagged")]
    )
    for language in names:
        cells = [pb.TableCell(text=language), *(pb.TableCell(number=c[language]) for c in (found.given, found.tagged))]
        table.rows.add(cells=cells)
    if found.untagged:
        table.rows.add(
            cells=[pb.TableCell(text="not known"), pb.TableCell(number=0), pb.TableCell(number=found.untagged)]
        )
    return pb.ReportSection(heading="Rows", table=table)


def _features(record: Mapping[str, Any]) -> pb.ReportSection:
    table = pb.Table(caption=f"Features held down, weight {record['weight']:g}")
    table.columns.extend(pb.TableColumn(name=name) for name in ("layer", "feature", "stands for", "thresholds"))
    for part in record["layers"]:
        for place, (feature, target) in enumerate(zip(part["features"], part["target"], strict=True)):
            alphas = ", ".join(f"{name} {alpha[place]:.2f}" for name, alpha in part["alpha"].items() if name != target)
            cells = [str(part["layer"]), str(feature), target, alphas]
            table.rows.add(cells=[pb.TableCell(text=cell) for cell in cells])
    return pb.ReportSection(heading="Features", table=table)
