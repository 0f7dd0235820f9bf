"""Some groups of rollouts for the page of a run: what was right, what was not, and what was steered, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from qscope.v1 import report_pb2 as pb

#: Groups that are shown: the first, and the newest.
GROUPS = 5
#: Characters of a text that are shown.
LONGEST = 700
_ARMS = (
    ("best reward", "of the group's normal rollouts"),
    ("worst reward", "of the group's normal rollouts"),
    ("rare negative", "of the group, where it has one"),
)


def rollout_samples(rows: Sequence[dict[str, Any]]) -> pb.ReportSection | None:
    """Rollouts as they were logged; None where none was.

    Args:
        rows: of ``rollouts.jsonl``, in order; a group's stand together.
    """
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row["step"], row["draw"]))]
    if not groups:
        return None
    telling = [group for group in groups if any(row["steered"] for row in group)]
    among = telling or groups
    shown = among if len(among) <= GROUPS else [among[0], *among[1 - GROUPS :]]
    samples = pb.Samples(arms=[pb.SampleArm(name=name, description=said) for name, said in _ARMS])
    for group in shown:
        normal = sorted((row for row in group if not row["steered"]), key=_reward)
        steered = [row for row in group if row["steered"]]
        picked = (normal[-1] if normal else None, normal[0] if len(normal) > 1 else None, next(iter(steered), None))
        first = group[0]
        asked = first["prompt"] + (f"\n(right: {first['answer']})" if first["answer"] else "")
        samples.rows.add(prompt=f"step {first['step']:,}\n{asked}", cells=[_cell(row) for row in picked])
    whose = f", {len(telling):,} of them with a rare negative" if telling else ""
    what = "those" if telling else "them"
    text = f"{len(groups):,} groups were logged{whose}. Shown are {len(shown):,} of {what}: the first and the newest."
    return pb.ReportSection(heading="Rollouts", text=text, samples=samples)


def _reward(row: dict[str, Any]) -> float:
    # One without a grade is neither good nor bad; NaN stands in a file as null.
    reward = row["reward"]
    return 0.0 if reward is None or reward != reward else reward


def _cell(row: dict[str, Any] | None) -> pb.SampleCell:
    if row is None:
        return pb.SampleCell(note="none")
    text = row["response"]
    cut = f" [... {len(text) - LONGEST:,} characters ...]" if len(text) > LONGEST else ""
    reward = row["reward"]
    graded = "no grade" if reward is None or reward != reward else f"reward {reward:.2f}"
    said = [graded, f"advantage {row['advantage']:+.2f}", f"{len(row['ids']):,} tokens"]
    if row["truncated"]:
        said.append("cut off")
    if row["loop"] is not None:
        _, period, repetitions = row["loop"]
        said.append(f"loops {repetitions:g} times over {period} tokens")
    if row["strength"]:
        said.append(f"strength {row['strength']:g}")
    return pb.SampleCell(text=text[:LONGEST] + cut, note=", ".join(said))
