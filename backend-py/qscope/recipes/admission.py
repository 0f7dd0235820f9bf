"""The first thing a recipe does: compares what it needs with what is there."""

from __future__ import annotations

from qscope.recipes.plan import plan, refuse_if_too_large
from qscope.recipes.shared import as_begun
from qscope.runs import RunContext
from qscope.v1 import run_pb2


def admit(context: RunContext) -> run_pb2.Plan:
    """Plans the run, refuses it when memory does not suffice, and passes on what the plan warns of; loads nothing.

    A run that goes on is planned with what it began with, see :func:`qscope.recipes.shared.as_begun`. Of several ranks
    the first plans for all, before any has loaded anything.

    Returns:
        The plan.

    Raises:
        UserError: too large (OUT_OF_MEMORY_BY_PLAN), or impossible for a reason the plan knows.
    """
    planned = context.ranks.first(lambda: plan(as_begun(context), str(context.folder.parent), timed=False))
    refuse_if_too_large(planned)
    for warning in planned.warnings:
        context.warning(warning)
    return planned
