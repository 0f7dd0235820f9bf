"""Arms and strengths in numbers: n, mean and spread of every measure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qscope.steering.side_effects import shares

_MEASURES = ("tokens", "repeated_3grams", "looping", "compression", "changed_positions")
#: Where a strength counts as too much: perplexity on neutral text, and repetition above that of the unsteered texts.
PERPLEXITY_LIMIT, REPETITION_LIMIT = 1.5, 0.25


@dataclass(frozen=True)
class Side:
    """What a sweep says of one sign of the strength.

    Attributes:
        sign: 1 or -1.
        first: the smallest factor that changed a text; None when none did.
        last: the largest factor below the collapse; None when there is none.
        collapse: the smallest factor beyond a limit; None when the sweep found none.
        why: the limit passed there.
    """

    sign: int
    first: float | None
    last: float | None
    collapse: float | None
    why: str


def summarise(
    rows: Sequence[Mapping[str, Any]], costs: Mapping[tuple[str, float], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One entry per arm and factor, in the order of the rows.

    Each measure is given as mean and standard deviation over the n texts; the deviation of one text is null.
    ``same_as_unsteered`` is the share of texts equal to the unsteered text of the same prompt and sample.
    """
    base = {(row["prompt"], row["sample"]): row["text"] for row in rows if row["arm"] == "unsteered"}
    languages = {(row["prompt"], row["sample"]): row["language"] for row in rows if row["arm"] == "unsteered"}
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
        entry |= _stability(mine, languages, base)
        entry |= costs.get((arm, factor), {})
        entries.append(entry)
    return entries


def _stability(
    rows: Sequence[Mapping[str, Any]], languages: Mapping[tuple[int, int], str], base: Mapping[tuple[int, int], str]
) -> dict[str, Any]:
    """How far effects differ between wordings of the same prompt; nothing without paraphrases.

    Three effects, each the mean over a wording's samples: texts that changed, texts whose language changed, and
    repeated 3-grams. ``within`` is their standard deviation between the wordings of a prompt, pooled over prompts: 0
    where the wording does not matter.
    """
    effects: dict[int, dict[int, list[tuple[float, float, float]]]] = {}
    for row in rows:
        if row.get("paraphrase") is None:
            continue
        key = row["prompt"], row["sample"]
        effect = (
            float(row["text"] != base.get(key)),
            float(row["language"] != languages.get(key)),
            float(row["repeated_3grams"]),
        )
        effects.setdefault(row["paraphrase"], {}).setdefault(row["prompt"], []).append(effect)
    if not effects:
        return {}
    found: dict[str, Any] = {"paraphrases": len(effects), "wordings": sum(map(len, effects.values()))}
    for index, name in enumerate(("changed", "language_changed", "repeated_3grams")):
        means = [
            [statistics.fmean(effect[index] for effect in samples) for samples in wordings.values()]
            for wordings in effects.values()
        ]
        freedom = sum(len(group) - 1 for group in means)
        squares = sum(sum((value - statistics.fmean(group)) ** 2 for value in group) for group in means)
        found[name] = {
            "mean": statistics.fmean(value for group in means for value in group),
            "within": math.sqrt(squares / freedom),
        }
    return {"stability": found}


def usable_range(arms: Sequence[Mapping[str, Any]]) -> list[Side]:
    """From which factor on steering changes texts, and from which on it breaks them, for each sign in the sweep.

    It collapses where perplexity on neutral text rises by more than :data:`PERPLEXITY_LIMIT` (the limit of
    scasella/qwen-scope-lab), or where the share of repeated 3-grams or of texts that end in a loop is more than
    :data:`REPETITION_LIMIT` above that of the unsteered texts. A sweep knows no more than its own factors: what lies
    between two of them it does not say.

    Args:
        arms: as :func:`summarise` makes them.
    """
    base = next((arm for arm in arms if arm["arm"] == "unsteered"), None)
    steered = [arm for arm in arms if arm["arm"] == "steered"]
    sides = []
    for sign in (1, -1):
        mine = sorted((arm for arm in steered if arm["factor"] * sign > 0), key=lambda arm: abs(arm["factor"]))
        if not mine or base is None:
            continue
        broken = [(arm["factor"], why) for arm in mine if (why := _broken(arm, base))]
        collapse, why = broken[0] if broken else (None, "")
        below = [arm["factor"] for arm in mine if collapse is None or abs(arm["factor"]) < abs(collapse)]
        changed = [arm["factor"] for arm in mine if arm["same_as_unsteered"] < 1]
        sides.append(Side(sign, changed[0] if changed else None, below[-1] if below else None, collapse, why))
    return sides


def _broken(arm: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """The first limit an arm passes; empty for none."""
    ratio = arm.get("perplexity_ratio", 0.0)
    if ratio > PERPLEXITY_LIMIT:
        return f"perplexity on neutral text x {ratio:.3g}"
    for measure, name in (("repeated_3grams", "repeated 3-grams"), ("looping", "texts that end in a loop")):
        now, before = arm[measure]["mean"], base[measure]["mean"]
        if now - before > REPETITION_LIMIT:
            return f"{name} {now:.0%}, unsteered {before:.0%}"
    return ""
