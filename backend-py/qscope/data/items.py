"""Items of a benchmark, or of any other set of texts: what the model sees of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qscope.data.files import find_files
from qscope.data.formats import Column, missing_column
from qscope.data.records import Fault, Layout, Record, records
from qscope.data.selection import Condition
from qscope.data.source import EMBEDDED, embedded_path
from qscope.data.template import Template, guessed_template, shown
from qscope.errors import UserError
from qscope.v1.redundancy_pb2 import BAD_ROWS_REFUSE, BenchRedundancy

#: Columns that hold what is asked, in the order they are looked for.
PROMPT_COLUMNS = ("prompt", "question", "input", "problem", "query", "text")


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        place: where its row stands.
        prompt: what the model sees.
        number: the row's place in the source, from 0, counting those left out too (``doc_id`` of lm-eval).
    """

    place: str
    prompt: str
    number: int = 0


@dataclass
class Benchmark:
    """The items of one benchmark.

    Attributes:
        name: its name in tables.
        items: those with a prompt, in order.
        template: the prompt template in use.
        faults: rows that were left out.
    """

    name: str
    items: list[Item]
    template: str
    faults: list[Fault] = field(default_factory=list)


def read_benchmark(
    name: str,
    source: str,
    *,
    prompt: str = "",
    columns: Sequence[str] = (),
    inside: str = "",
    where: str = "",
    limit: int = 0,
    refuse_faults: bool = False,
    at: str = "",
) -> Benchmark:
    """Reads a benchmark from files.

    Args:
        name: its name in tables.
        source: a file, folder or glob, or a text that comes with the program.
        prompt: template of what the model sees; left out, the first of PROMPT_COLUMNS that the first row has.
        columns: names of the columns of a table without a header.
        inside: path of the rows in a .json whose rows are not at the top.
        where: ``column=value`` or ``column!=value``; rows of another value are no items.
        limit: items at most; 0 takes all.
        refuse_faults: whether a row that cannot be used is an error; otherwise it is left out and listed.
        at: experiment field of the benchmark, for errors.

    Raises:
        UserError: nothing readable is there, no item is left (BENCHMARK_EMPTY), no column to ask (PROMPT_UNKNOWN),
            a malformed template, a column in ``where`` that no row has (TEXT_FIELD_MISSING), or a row that cannot be
            used (ROW_BAD).
    """
    template = Template(prompt, at=f"{at}.prompt") if prompt else None
    found = Benchmark(name, [], prompt)
    layout = Layout(columns, inside, at)
    condition = Condition.parse(where, at=f"{at}.where") if where else None
    names: dict[str, None] = {}
    files = find_files(embedded_path(source) if source in EMBEDDED else source, f"{at}.source")
    for number, row in enumerate(row for file in files for row in records(file, layout)):
        if limit and len(found.items) == limit:
            break
        if condition is not None and isinstance(row, Record):
            names.update(dict.fromkeys(map(str, row.values)))
            value = row.values.get(condition.column)
            if not condition.holds("" if value is None else shown(value)):
                continue
        if isinstance(row, Record) and template is None:
            template = guessed_template(row, PROMPT_COLUMNS, at=f"{at}.prompt")
            found.template = template.text
        fault = row if isinstance(row, Fault) else _add(found, row, number, template)
        if fault is None:
            continue
        if refuse_faults:
            raise UserError(
                f"{fault.place}: {fault.why}.",
                remedy="Mend the row, or leave bad rows out with bad_rows: skip.",
                reason="ROW_BAD",
                field=f"{at}.source",
            )
        found.faults.append(fault)
    if condition is not None and names and condition.column not in names:
        raise missing_column(source, Column(condition.column, f"{at}.where"), list(names))
    if not found.items:
        raise _empty(found, source, at)
    return found


def benchmark_of(task: BenchRedundancy, index: int, at: str) -> Benchmark:
    """Reads one of a task's benchmarks; see :func:`read_benchmark` for errors.

    Args:
        task: the task.
        index: which of its benchmarks.
        at: experiment field of the task, for errors.
    """
    source = task.benchmarks[index]
    return read_benchmark(
        source.name,
        source.source,
        prompt=source.prompt,
        columns=list(source.columns),
        inside=source.records,
        where=source.where,
        limit=source.limit,
        refuse_faults=task.bad_rows == BAD_ROWS_REFUSE,
        at=f"{at}.benchmarks[{index}]",
    )


def _add(found: Benchmark, row: Record, number: int, template: Template) -> Fault | None:
    try:
        text = template.fill(row.values)
    except KeyError as error:
        known = ", ".join(map(str, list(row.values)[:12])) or "none"
        return Fault(row.place, f"no column {error.args[0]!r} with a value (columns there: {known})")
    if not text.strip():
        return Fault(row.place, "its prompt is empty")
    found.items.append(Item(row.place, text, number))
    return None


def _empty(found: Benchmark, source: str, at: str) -> UserError:
    message = f"'{found.name}' has no item that can be used: '{source}'."
    if found.faults:
        first = found.faults[0]
        message += f" The first of {len(found.faults):,} rows left out: {first.place}: {first.why}."
    return UserError(
        message,
        remedy="Check the source and the template.",
        reason="BENCHMARK_EMPTY",
        field=f"{at}.source",
    )
