"""The benchmarks of an experiment: rows of sources, and tasks of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qscope.data.items import Benchmark, read_benchmark
from qscope.data.task_items import read_task
from qscope.errors import UserError
from qscope.v1.redundancy_pb2 import (
    BAD_ROWS_REFUSE,
    SCORE_MEASURE_NONE,
    SCORE_MEASURE_UNSPECIFIED,
    BenchmarkSource,
    BenchRedundancy,
)


def read_benchmarks(task: BenchRedundancy, at: str) -> Iterator[Benchmark]:
    """Reads a task's benchmarks one after the other; a group of tasks is several.

    Args:
        task: the task.
        at: its experiment field, for errors.

    Raises:
        UserError: see :func:`read_benchmark` and :func:`read_task`; or two benchmarks have one name (NAME_TWICE), or a
            panel is to be scored on one without a score block (SCORING_MISSING).
    """
    names: set[str] = set()
    managers: dict[str, Any] = {}
    refuse = task.bad_rows == BAD_ROWS_REFUSE
    for index, source in enumerate(task.benchmarks):
        here = f"{at}.benchmarks[{index}]"
        if task.panel.models and not _is_scored(source):
            raise UserError(
                f"The models of the panel cannot be scored on '{source.name or source.task}': it has no score block.",
                remedy="Say what is right, for example score: { measure: tokens, answer: ' {answer}' }; "
                "of a task, read the samples of lm-eval with panel.source.",
                reason="SCORING_MISSING",
                field=f"{here}.score",
            )
        for benchmark in _read(source, refuse, managers, here):
            if benchmark.name in names:
                raise UserError(
                    f"Two benchmarks are called '{benchmark.name}'.",
                    remedy="Name the task or the group that has it once, or give the other a name of its own.",
                    reason="NAME_TWICE",
                    field=f"{here}.task" if source.task else f"{here}.name",
                )
            names.add(benchmark.name)
            yield benchmark


def _read(source: BenchmarkSource, refuse_faults: bool, managers: dict[str, Any], at: str) -> list[Benchmark]:
    if source.task:
        return read_task(
            source.name,
            source.task,
            shots=source.shots,
            folder=source.folder,
            limit=source.limit,
            refuse_faults=refuse_faults,
            managers=managers,
            at=at,
        )
    return [
        read_benchmark(
            source.name,
            source.source,
            prompt=source.prompt,
            answer=source.answer,
            config=source.config,
            split=source.split,
            revision=source.revision,
            columns=list(source.columns),
            inside=source.records,
            where=source.where,
            limit=source.limit,
            refuse_faults=refuse_faults,
            scoring=source.score if _is_scored(source) else None,
            at=at,
        )
    ]


def _is_scored(source: BenchmarkSource) -> bool:
    return source.score.measure not in (SCORE_MEASURE_UNSPECIFIED, SCORE_MEASURE_NONE)
