"""How much of the model a benchmark's answers use: its columns and its part of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qscope.evaluation.mui import Used, Utility
from qscope.evaluation.suite import MIN_ITEMS
from qscope.v1 import report_pb2 as pb

UTILITY_COLUMNS = ("answers", "mui", "mui_matched", "mui_neurons", "mui_neurons_matched")
_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_COUNT)
_PERCENT = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT, digits=2)


def matched_answers(utility: Mapping[str, Utility]) -> int:
    """Answers of the benchmark with the fewest, of those with 20 or more; 0 without one."""
    return min((one.items for one in utility.values() if one.items >= MIN_ITEMS), default=0)


def utility_row(utility: Mapping[str, Utility], name: str) -> dict[str, Any]:
    """The columns of one benchmark; nothing where no answers were given."""
    one = utility.get(name)
    if one is None:
        return dict.fromkeys(UTILITY_COLUMNS)
    size = matched_answers(utility)
    values = [of(used) for used in (one.features, one.neurons) for of in (_mui, lambda used: _matched(used, size))]
    return dict(zip(UTILITY_COLUMNS, [one.items, *values], strict=True))


def utility_section(utility: Mapping[str, Utility]) -> pb.ReportSection:
    """Both forms, whole and at equal size."""
    size = matched_answers(utility)
    equal = f"mean over all subsets of {size} answers" if size else "unknown"
    at_equal_size = (
        f"at equal size every benchmark stands for itself with {size} random answers (exact mean)"
        if size
        else f"there is no equal size, as no benchmark has {MIN_ITEMS} answers"
    )
    columns = [
        ("benchmark", "name of the benchmark", None),
        ("answers", "items with an answer that were read", _COUNT),
        ("features", "share of the features of all layers that any answer uses", _PERCENT),
        ("features, equal size", equal, _PERCENT),
        ("neurons", "share of the neurons of all layers that any answer uses", _PERCENT),
        ("neurons, equal size", equal, _PERCENT),
    ]
    return pb.ReportSection(
        heading="Model utility",
        text="MUI: how much of the model the given answers use (arXiv 2504.07440). It grows with the number of items; "
        f"{at_equal_size}. Of one model it says how varied answers are; models are compared by it together with their "
        "accuracy.",
        table=pb.Table(
            caption="Over the tokens of the answers, teacher-forced",
            columns=[pb.TableColumn(name=name, description=why, format=form) for name, why, form in columns],
            rows=[
                pb.TableRow(
                    cells=[pb.TableCell(text=name), *(_cell(value) for value in utility_row(utility, name).values())]
                )
                for name in utility
            ],
        ),
    )


def _cell(value: float | None) -> pb.TableCell:
    return pb.TableCell() if value is None or math.isnan(value) else pb.TableCell(number=value)


def _mui(used: Used | None) -> float | None:
    return None if used is None else used.mui()


def _matched(used: Used | None, size: int) -> float | None:
    return None if used is None else used.mui_of(size)
