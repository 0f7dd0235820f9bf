"""The table of greedy subsets beside random ones, whatever is measured of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qscope.v1 import report_pb2 as pb

_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_COUNT)
_PERCENT = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT, digits=0)


@dataclass(frozen=True)
class SubsetRow:
    """One subset of a benchmark.

    Attributes:
        name: the benchmark.
        items: items in the subset.
        share: of all items.
        chosen: value of the chosen items; NaN where it is unknown.
        random_mean, random_sd: the same of random items.
    """

    name: str
    items: int
    share: float
    chosen: float
    random_mean: float
    random_sd: float


def subset_table(rows: Sequence[SubsetRow], *, what: str, draws: int, form: pb.NumberFormat) -> pb.Table:
    """Chosen items against random items.

    Args:
        rows: the subsets.
        what: what is measured of each, in words.
        draws: random subsets behind a mean.
        form: how its numbers are written.
    """
    return pb.Table(
        caption=f"{what[0].upper()}{what[1:]}; random: mean of {draws} subsets ± standard deviation",
        columns=[
            pb.TableColumn(name="benchmark", description="name of the benchmark"),
            pb.TableColumn(name="items", description="in the subset", format=_COUNT),
            pb.TableColumn(name="of all", description="share of the items", format=_PERCENT),
            pb.TableColumn(name="chosen", description=f"{what}: chosen items", format=form),
            pb.TableColumn(name="random", description=f"{what}: random items", format=form),
        ],
        rows=[
            pb.TableRow(
                cells=[
                    pb.TableCell(text=row.name),
                    pb.TableCell(number=row.items),
                    pb.TableCell(number=row.share),
                    _cell(row.chosen),
                    _cell(row.random_mean, spread=row.random_sd, n=draws),
                ]
            )
            for row in rows
        ],
    )


def _cell(value: float, **more: float) -> pb.TableCell:
    return pb.TableCell() if math.isnan(value) else pb.TableCell(number=value, **more)
