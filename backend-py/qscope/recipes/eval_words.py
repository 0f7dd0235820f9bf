"""What ``qscope eval`` says of responses: results.json, metrics, the table for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qscope.features.intervals import Interval
from qscope.posttraining.evaluating import Accuracy, Measured
from qscope.posttraining.measures import Repeats, Switches, power_note
from qscope.v1.eval_pb2 import EvalResponses

_NAME = 30


@dataclass(frozen=True)
class Origin:
    """Where responses come from.

    Attributes:
        source: of the prompts, or of the responses.
        rows: prompts answered, or rows read.
        cut_off_known: whether responses say if they were cut off.
        left_out: rows that cannot be used.
        tagged: rows whose language is a verdict on what was asked.
        steered: steered rollouts left out.
        samples: responses to each prompt; 0 of saved responses.
        model: fingerprint of the model that wrote them; empty where none did.
    """

    source: str
    rows: int
    cut_off_known: bool
    left_out: int
    tagged: int
    steered: int = 0
    samples: int = 0
    model: str = ""

    @property
    def sentence(self) -> str:
        """In words."""
        name = Path(self.source).name if Path(self.source).is_absolute() else self.source
        if not self.samples:
            return f"of {name}"
        each = f", {self.samples:,} to each" if self.samples > 1 else ""
        return f"to {self.rows:,} prompts of {name}{each}"

    @property
    def notes(self) -> list[str]:
        """What to know of every interval."""
        if self.samples < 2:
            return []
        return [
            f"The {self.samples:,} responses to a prompt are not independent of each other: intervals over them are "
            "somewhat too narrow."
        ]


def results_of(task: EvalResponses, measured: Measured, origin: Origin) -> dict[str, Any]:
    """What ``results.json`` holds."""
    results: dict[str, Any] = {
        "responses": measured.n,
        "source": origin.source,
        "rows": origin.rows,
        "samples": origin.samples,
        "rows_left_out": origin.left_out,
        "steered_left_out": origin.steered,
        "model": origin.model,
    }
    if (found := measured.repeats) is not None:
        results["repeat"] = {
            "over": "tokens" if found.by_tokens else "characters",
            "cut_off_known": origin.cut_off_known,
            "endless": _share(found.endless, len(found.looping)),
            "cut_off": _share(found.cut_off),
            "repeated_3grams": {"mean": found.repeated_3grams, "sd": found.repeated_3grams_sd},
            "power": power_note(found.endless),
        }
    if measured.switches is not None:
        detection = task.codeswitch
        results["codeswitch"] = {
            "rule": "paper" if detection.paper else "default",
            "ignore_prompt": detection.ignore_prompt,
            "words": len(detection.words),
            "pairs": [_pair(row) for row in measured.switches],
            "micro_average": [_pair(row) for row in measured.micro],
            "without_language": measured.no_language,
            "languages_by_prompt": origin.tagged,
        }
    if (right := measured.accuracy) is not None:
        results["accuracy"] = {
            "rule": right.rule,
            "right": _share(right.share, right.share.n - len(right.wrong)),
            "without_answer": right.unknown,
            "ungraded": dict(sorted(right.ungraded.items())),
        }
    return results


def metrics_of(measured: Measured) -> dict[str, float]:
    """The same as metrics, by name."""
    values: dict[str, float] = {"responses": float(measured.n)}
    if (found := measured.repeats) is not None:
        values |= {
            "repeat_ratio": found.endless.value,
            "cut_off": found.cut_off.value,
            "repeated_3grams": found.repeated_3grams,
        }
    for row in measured.micro:
        values[f"switch_ratio_{row.target or 'any'}"] = row.ratio.value
    for row in measured.switches or ():
        values[f"switch_ratio_{row.expected}_{row.target or 'any'}"] = row.ratio.value
    if measured.accuracy is not None:
        values["accuracy"] = measured.accuracy.share.value
    return {name: value for name, value in values.items() if not math.isnan(value)}


def eval_lines(measured: Measured, origin: Origin) -> list[str]:
    """The table for a terminal of 80 columns, and below each measure what to know of it."""
    lines = [f"{measured.n:,} responses {origin.sentence}", f"{'':<{_NAME}}{'share':>8}  {'95 % interval':<19}{'n':>8}"]
    if (found := measured.repeats) is not None:
        lines += [_line("repeat: endless", found.endless), _line("  cut off at the limit", found.cut_off)]
        if not math.isnan(found.repeated_3grams):
            sd = "" if math.isnan(found.repeated_3grams_sd) else f"sd {100 * found.repeated_3grams_sd:.1f} %"
            share = f"{100 * found.repeated_3grams:.1f} %"
            lines.append(f"{'  repeated 3-grams':<{_NAME}}{share:>8}  {sd:<19}{measured.n:>8,}")
        lines += _wrapped(repeat_notes(found, origin))
    if measured.switches is not None:
        lines += [_line(f"switch: {name_of(row)}", row.ratio) for row in measured.switches]
        if has_micro(measured):
            lines += [_line(f"switch: {name_of(row)}", row.ratio) for row in measured.micro]
        lines += _wrapped(switch_notes(measured, origin))
    if (right := measured.accuracy) is not None:
        lines += [_line(f"right ({right.rule})", right.share), *_wrapped(answer_notes(right))]
    return [*lines, *_wrapped(origin.notes)]


def repeat_notes(found: Repeats, origin: Origin) -> list[str]:
    """What to know of a share of endless responses."""
    notes = []
    if not found.by_tokens:
        notes.append(
            "Loops are those of characters (a span 20 times in a row), as the responses have no token ids: this share "
            "does not compare with one over tokens."
        )
    if not origin.cut_off_known:
        notes.append(
            "The responses do not say whether they were cut off: each that loops to its very end counts, tables and "
            "lists too."
        )
    return [*notes, power_note(found.endless)]


def switch_notes(measured: Measured, origin: Origin) -> list[str]:
    """What to know of shares of switches."""
    notes = []
    if measured.no_language:
        notes.append(f"{measured.no_language:,} responses have no language and are not counted.")
    if origin.tagged:
        notes.append(f"The language of {origin.tagged:,} rows is that of what was asked.")
    return [*notes, *(power_note(row.ratio) for row in measured.micro[:1])]


def answer_notes(right: Accuracy) -> list[str]:
    """What to know of a share of right answers."""
    notes = []
    if right.unknown:
        notes.append(f"{right.unknown:,} responses have no right answer to compare with and are not counted.")
    if right.ungraded:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(right.ungraded.items()))
        notes.append(f"{right.ungraded.total():,} could not be graded and are not counted: {reasons}.")
    return notes


def name_of(row: Switches) -> str:
    """A row of switches in words."""
    return f"{row.expected or 'all'} to {row.target or 'any'}"


def has_micro(measured: Measured) -> bool:
    """Whether the averages say more than the rows themselves."""
    return len(measured.switches or ()) > len(measured.micro)


def _pair(row: Switches) -> dict[str, Any]:
    return {"expected": row.expected, "target": row.target, **_share(row.ratio, row.switched)}


def _share(share: Interval, count: int | None = None) -> dict[str, Any]:
    counted = {} if count is None else {"count": count}
    return {"value": share.value, "low": share.low, "high": share.high, "n": share.n, **counted}


def _line(name: str, share: Interval) -> str:
    if not share.n:
        return f"{name:<{_NAME}}{'-':>8}"
    digits = 2 if share.value < 0.1 else 1
    value = f"{100 * share.value:.{digits}f} %"
    interval = f"{100 * share.low:.{digits}f} - {100 * share.high:.{digits}f} %"
    return f"{name:<{_NAME}}{value:>8}  {interval:<19}{share.n:>8,}"


def _wrapped(notes: Sequence[str]) -> list[str]:
    return [
        line
        for note in notes
        for line in textwrap.wrap(note, 78, initial_indent="  ", subsequent_indent="  ", break_long_words=False)
    ]
