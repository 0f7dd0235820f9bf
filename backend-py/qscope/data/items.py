"""Items of a benchmark, or of any other set of texts: what the model sees of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qscope.data.answers import Answer, AnswerReader
from qscope.data.records import Fault, remedy_of
from qscope.data.row_texts import RowSource, TextRow, missing
from qscope.data.template import Template
from qscope.errors import UserError
from qscope.v1.redundancy_pb2 import ItemScoring

#: Columns that hold what is asked, in the order they are looked for.
PROMPT_COLUMNS = ("prompt", "question", "input", "problem", "query", "text")


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        place: where its row stands.
        prompt: what the model sees.
        number: the row's place in the source, from 0, counting those left out too (``doc_id`` of lm-eval).
        answer: the response that is given; empty where there is none.
        right: what a model of the panel is scored by; None where nobody is scored.
    """

    place: str
    prompt: str
    number: int = 0
    answer: str = ""
    right: Answer | None = None


@dataclass
class Benchmark:
    """The items of one benchmark.

    Attributes:
        name: its name in tables.
        items: those with a prompt, in order.
        template: the prompt template in use, or the task that says what the model sees.
        faults: rows that were left out.
        task: name of the task of lm-eval it comes from; empty for rows of a source.
        scoring: how models are scored on it; None where nobody is.
        at: its experiment field.
    """

    name: str
    items: list[Item]
    template: str
    faults: list[Fault] = field(default_factory=list)
    task: str = ""
    scoring: ItemScoring | None = None
    at: str = ""


def read_benchmark(
    name: str,
    source: str,
    *,
    prompt: str = "",
    answer: str = "",
    config: str = "",
    split: str = "",
    revision: str = "",
    columns: Sequence[str] = (),
    inside: str = "",
    where: str = "",
    limit: int = 0,
    refuse_faults: bool = False,
    usual_split: str = "test",
    scoring: ItemScoring | None = None,
    at: str = "",
) -> Benchmark:
    """Reads a benchmark from rows.

    Args:
        name: its name in tables.
        source: a file, folder or glob, a text that comes with the program, or the id of a data set of the hub.
        prompt: template of what the model sees; left out, the first of PROMPT_COLUMNS that the first row has.
        answer: template of the response that is given; an item whose row lacks its columns has none.
        config, split, revision: of a data set of the hub.
        usual_split: its split where none is named.
        columns: names of the columns of a table without a header.
        inside: path of the rows in a .json whose rows are not at the top.
        where: ``column=value`` or ``column!=value``; rows of another value are no items.
        limit: items at most; 0 takes all.
        refuse_faults: whether a row that cannot be used is an error; otherwise it is left out and listed.
        scoring: what the answers are; a row without one cannot be used then.
        at: experiment field of the benchmark, for errors.

    Raises:
        UserError: nothing readable is there, no item is left (BENCHMARK_EMPTY), no column to ask (PROMPT_UNKNOWN),
            a malformed template, a column in ``where`` that no row has (TEXT_FIELD_MISSING), or a row that cannot be
            used (ROW_BAD).
    """
    rows = RowSource(
        source,
        text=prompt,
        config=config,
        split=split,
        revision=revision,
        usual_split=usual_split,
        columns=columns,
        inside=inside,
        where=where,
        refuse_faults=refuse_faults,
        field="prompt",
        guesses=PROMPT_COLUMNS,
        at=at,
    )
    response = Template(answer, at=f"{at}.answer") if answer else None
    answers = AnswerReader(scoring, at=f"{at}.score") if scoring is not None else None
    found = Benchmark(name, [], prompt, scoring=scoring, at=at)
    for row in rows.rows():
        if limit and len(found.items) == limit:
            rows.check_condition()
            break
        right = None
        if isinstance(row, TextRow) and answers is not None:
            try:
                right = answers.read(row.values)
            except KeyError as error:
                row = rows.fault(missing(row.place, str(error.args[0]), row.values))
            except ValueError as error:
                row = rows.fault(Fault(row.place, str(error)))
        if isinstance(row, Fault):
            found.faults.append(row)
        else:
            found.items.append(Item(row.place, row.text, row.number, _answer(row, response), right))
    found.template = rows.template
    refuse_empty(found, source, at=f"{at}.source")
    return found


def _answer(row: TextRow, response: Template | None) -> str:
    try:
        return response.fill(row.values) if response is not None else ""
    except (KeyError, ValueError):
        return ""


def refuse_empty(found: Benchmark, source: str, *, at: str) -> None:
    """Refuses a benchmark without items, and says what became of its rows.

    Raises:
        UserError: BENCHMARK_EMPTY.
    """
    if found.items:
        return
    message = f"'{found.name}' has no item that can be used: '{source}'."
    if found.faults:
        first = found.faults[0]
        message += f" The first of {len(found.faults):,} rows left out: {first.place}: {first.why}."
    raise UserError(
        message,
        remedy=remedy_of(found.faults, "Check the source and the template."),
        reason="BENCHMARK_EMPTY",
        field=at,
    )
