"""Tasks of lm-evaluation-harness, read with their data: the optional package knows several thousand by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qscope.errors import UserError

PACKAGE, EXTRA = "lm-eval", "qscope[capability]"
_TRY = "`lm-eval run --tasks NAME --model dummy --limit 1` tries it by itself."


def load_harness(at: str, *, otherwise: str) -> Any:
    """The package, imported on demand.

    Args:
        at: experiment field that names tasks, for errors.
        otherwise: what may be done without it.

    Raises:
        UserError: it is not installed (PACKAGE_MISSING).
    """
    try:
        import lm_eval
    except ImportError as error:
        raise UserError(
            f"Tasks need the package {PACKAGE}, which is not installed.",
            remedy=f"Install the extra {EXTRA} in the worker's environment (pip install '{EXTRA}'), or {otherwise}.",
            reason="PACKAGE_MISSING",
            field=at,
        ) from error
    return lm_eval


def open_manager(folder: str, *, at: str) -> Any:
    """The harness' index of its tasks and of those in a folder; the package is there.

    Args:
        folder: task files of one's own; empty for none.
        at: experiment field that names the folder, for errors.

    Raises:
        UserError: the folder does not exist (FOLDER_MISSING), or its files cannot be read (TASK_UNREADABLE).
    """
    from lm_eval.tasks import TaskManager

    place = Path(folder).expanduser() if folder else None
    if place is not None and not place.is_dir():
        raise UserError(
            f"There is no folder {place}.",
            remedy="Name the folder that holds the task files, or leave it out for the harness' own tasks.",
            reason="FOLDER_MISSING",
            field=at,
        )
    try:
        return TaskManager(include_path=str(place) if place else None)
    except Exception as error:
        raise unreadable(f"The task files in {place or PACKAGE}", error, at) from error


def read_parts(manager: Any, name: str, *, at: str, folder_at: str) -> list[Any]:
    """What the harness makes of a name, with the data: a group, a task, or the tasks of a tag.

    Args:
        manager: of :func:`open_manager`.
        name: of a task, a group or a tag.
        at: experiment field that holds it, for errors.
        folder_at: experiment field of the folder with task files of one's own.

    Raises:
        UserError: the task is unknown (TASK_UNKNOWN) or cannot be read (TASK_UNREADABLE).
    """
    known = manager.all_tasks
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        guess = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"lm-evaluation-harness knows no task '{name}'.",
            remedy=f"{guess}`lm-eval ls tasks` lists them; tasks of your own are found in {folder_at}.",
            reason="TASK_UNKNOWN",
            field=at,
        )
    try:
        read = manager.load([name])
        groups = read.get("groups") or {}
        return [groups[name]] if name in groups else list(read["tasks"].values())
    except Exception as error:
        # Whatever a file, a data set, a template or a function of the task raises.
        raise unreadable(f"Task '{name}'", error, at) from error


def leaves_of(parts: Sequence[Any]) -> Iterator[Any]:
    """Every single task of what :func:`read_parts` returned."""
    for part in parts:
        yield from part.get_all_tasks() if hasattr(part, "get_all_tasks") else [part]


def set_shots(task: Any, shots: int) -> None:
    """Sets the answered examples before each item, as the harness does: a task that fixes none keeps none."""
    if task.get_config("num_fewshot") != 0:
        task.set_config(key="num_fewshot", value=shots)


def unreadable(what: str, error: Exception, at: str) -> UserError:
    """The error for task files that raise one."""
    said = " ".join(str(error).split()) or "without a word"
    return UserError(
        f"{what} cannot be read ({type(error).__name__}: {said[:300]}).",
        remedy=f"Mend the task's file, or fetch its data set once where there is a network; {_TRY}",
        reason="TASK_UNREADABLE",
        field=at,
    )
