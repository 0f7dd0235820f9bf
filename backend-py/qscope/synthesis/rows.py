"""The texts of a data set: rows of files, those that cannot be used named and left out."""

from __future__ import annotations

from qscope.data.items import Benchmark, read_benchmark
from qscope.errors import UserError
from qscope.v1.synthesize_pb2 import TextRows


def read_rows(source: TextRows, name: str, *, refuse_faults: bool, at: str) -> Benchmark | None:
    """Reads texts; None where no source is named.

    Args:
        source: the rows.
        name: what they are called.
        refuse_faults: whether a row that cannot be used is an error.
        at: experiment field of the source, for errors.

    Raises:
        UserError: see :func:`qscope.data.items.read_benchmark`; nothing is left after ``skip`` (TEXTS_SKIPPED).
    """
    if not source.source:
        return None
    found = read_benchmark(
        name,
        source.source,
        prompt=source.prompt,
        config=source.config,
        split=source.split,
        revision=source.revision,
        usual_split="train",
        columns=list(source.columns),
        inside=source.records,
        where=source.where,
        limit=source.skip + source.limit if source.limit else 0,
        refuse_faults=refuse_faults,
        at=at,
    )
    if source.skip >= len(found.items):
        raise UserError(
            f"{name} has {len(found.items):,} texts, and {source.skip:,} are left out at the beginning.",
            remedy=f"Lower {at}.skip.",
            reason="TEXTS_SKIPPED",
            field=f"{at}.skip",
        )
    found.items = found.items[source.skip :]
    return found
