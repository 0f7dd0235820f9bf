"""Scores of models on items, row by row: in long form, or as lm-evaluation-harness writes them with --log_samples."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from qscope.data.files import TextFile, find_files
from qscope.data.records import Fault, Record, records
from qscope.errors import UserError

COLUMNS = ("model", "benchmark", "item", "score")
#: The harness' names of its files: the task, and when it was run.
_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<when>\d{4}-\d\d-\d\dT[\d.-]+)")


class ScoreRow(NamedTuple):
    """What one model scored on one item.

    Attributes:
        place: where it stands.
        model, benchmark: by name.
        number: the item's number in the source of the benchmark, from 0.
        score: finite.
    """

    place: str
    model: str
    benchmark: str
    number: int
    score: float


def score_rows(source: str, metrics: Sequence[str] = (), *, at: str = "") -> Iterator[ScoreRow]:
    """The scores a source holds.

    Args:
        source: a file, folder or glob with the columns of COLUMNS, further ones ignored; or the output folder of
            lm-eval, of which only the samples are read: the model is the folder they lie in, and of several runs of a
            model on a task the latest counts.
        metrics: of samples, the first of these that a task has is the score, each with its filter or without
            (``exact_match,strict-match``, ``acc``); empty: the only one.
        at: experiment field of the panel, for errors.

    Raises:
        UserError: nothing readable is there, or a bad row (SCORES_BAD).
    """
    files = find_files(source, f"{at}.source")
    samples = _latest_samples(files)
    if not samples:
        for file in files:
            for row in records(file):
                yield _long(row, at)
    for file, task in samples:
        yield from _sampled(file, task, metrics, at)


def _latest_samples(files: Sequence[TextFile]) -> list[tuple[TextFile, str]]:
    found: dict[tuple[str, str], tuple[str, TextFile]] = {}
    for file in files:
        match = _SAMPLES.fullmatch(file.path.name.split(".jsonl")[0])
        if match is not None and file.format == "jsonl":
            key = (str(file.path.parent), match["task"])
            found[key] = max(found.get(key, ("", file)), (match["when"], file), key=lambda one: one[0])
    return [(file, task) for (_, task), (_, file) in found.items()]


def _long(row: Record | Fault, at: str) -> ScoreRow:
    values = _values(row, COLUMNS, at)
    return ScoreRow(row.place, str(values["model"]), str(values["benchmark"]), *_numbers(row, "item", "score", at))


def _sampled(file: TextFile, task: str, metrics: Sequence[str], at: str) -> Iterator[ScoreRow]:
    metric = kind = ""
    filters: dict[str, None] = {}
    for row in records(file):
        values = _values(row, ("doc_id", "metrics"), at)
        filtered = str(values.get("filter") or "none")
        if not metric:
            metric, wanted = _metric(file, row, task, list(values["metrics"]), metrics, at)
            kind = wanted or filtered
        elif not wanted and filtered != kind:
            raise bad_scores(
                f"{row.place}: task {task} has several filters, {kind} and {filtered} among them.", "SCORES_BAD", at,
                remedy=f"Say which in 'metrics', for example ['{metric},{kind}'].", field="metrics",
            )  # fmt: skip
        filters[filtered] = None
        if filtered == kind:
            yield ScoreRow(row.place, file.path.parent.name, task, *_numbers(row, "doc_id", metric, at))
    if kind not in filters and metric:
        # Without a word the model would be none of the panel.
        raise bad_scores(
            f"{file.label}: task {task} has no filter '{kind}'.", "SCORES_BAD", at,
            remedy=f"Say in 'metrics' which it has: {', '.join(f'{metric},{one}' for one in filters)}.",
            field="metrics",
        )  # fmt: skip


def _metric(
    file: TextFile, row: Record, task: str, known: list[str], wanted: Sequence[str], at: str
) -> tuple[str, str]:
    """The metric of a task and the filter asked for with it, if any: the first that its samples have."""
    choices = [(name, kind) for name, _, kind in (one.partition(",") for one in wanted) if name in known]
    if len(choices) > 1 and choices[0][1]:
        there = {str(_values(one, ("doc_id",), at).get("filter") or "none") for one in records(file)}
        choices = [(name, kind) for name, kind in choices if not kind or kind in there] or choices
    if choices:
        return choices[0]
    if not wanted and len(known) == 1:
        return known[0], ""
    none = "none of the metrics asked for" if wanted else "several metrics"
    raise bad_scores(
        f"{row.place}: task {task} has {none}.", "SCORES_BAD", at,
        remedy=f"Say in 'metrics' which is the score: {', '.join(known)}.", field="metrics",
    )  # fmt: skip


def _values(row: Record | Fault, columns: Sequence[str], at: str) -> dict[str, Any]:
    if isinstance(row, Fault):
        raise bad_scores(f"{row.place}: {row.why}.", "SCORES_BAD", at)
    missing = [name for name in columns if row.values.get(name) is None]
    if missing:
        raise bad_scores(f"{row.place}: no column '{missing[0]}'.", "SCORES_BAD", at)
    return row.values


def _numbers(row: Record, item: str, score: str, at: str) -> tuple[int, float]:
    try:
        value = float(row.values[score])
        place = _whole_number(row.values[item])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise bad_scores(
            f"{row.place}: {item} must be a whole number and {score} a number.", "SCORES_BAD", at
        ) from error
    if not math.isfinite(value):
        raise bad_scores(f"{row.place}: the score is not finite.", "SCORES_BAD", at)
    return place, value


def _whole_number(value: Any) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = float(value)
    if isinstance(number, bool) or number != int(number):
        raise ValueError(f"{value} is no whole number")
    return int(number)


def bad_scores(message: str, reason: str, at: str, *, remedy: str = "", field: str = "source") -> UserError:
    """The error for scores that cannot be used; ``field`` is the one of the panel at fault."""
    usual = f"A row of scores has the columns {', '.join(COLUMNS)}, and every model every item once."
    return UserError(message, remedy=remedy or usual, reason=reason, field=f"{at}.{field}")
