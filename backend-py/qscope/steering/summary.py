"""Arms and strengths in numbers: n, mean and spread of every measure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from qscope.steering.side_effects import shares

_MEASURES = ("tokens", "repeated_3grams", "compression", "changed_positions")


def summarise(
    rows: Sequence[Mapping[str, Any]], costs: Mapping[tuple[str, float], Mapping[str, float]]
) -> list[dict[str, Any]]:
    """One entry per arm and factor, in the order of the rows.

    Each measure is given as mean and standard deviation over the n texts; the deviation of one text is null.
    ``same_as_unsteered`` is the share of texts equal to the unsteered text of the same prompt and sample.
    """
    base = {(row["prompt"], row["sample"]): row["text"] for row in rows if row["arm"] == "unsteered"}
    entries = []
    for arm, factor in dict.fromkeys((row["arm"], row["factor"]) for row in rows):
        mine = [row for row in rows if (row["arm"], row["factor"]) == (arm, factor)]
        entry: dict[str, Any] = {"arm": arm, "factor": factor, "n": len(mine)}
        for measure in _MEASURES:
            values = [float(row[measure]) for row in mine]
            entry[measure] = {
                "mean": statistics.fmean(values),
                "sd": statistics.stdev(values) if len(values) > 1 else None,
            }
        entry["same_as_unsteered"] = statistics.fmean(
            row["text"] == base.get((row["prompt"], row["sample"])) for row in mine
        )
        entry["languages"] = shares([row["language"] for row in mine])
        entry |= costs.get((arm, factor), {})
        entries.append(entry)
    return entries
