"""Whatever stands in a file of responses, it is responses or one sentence with a remedy."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.posttraining.answered import Answered, response_of
from qscope.posttraining.graders import Response
from qscope.posttraining.saved_responses import read_saved
from qscope.v1.eval_pb2 import SavedResponses

AT = "eval_responses.responses"
ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"p{n}",
        "response": f"r{n}",
        "ids": [n, 1, 2],
        "truncated": n % 2 == 0,
        "answer": str(n),
        "language": "en",
    }
    for n in range(20)
]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


def written(path: Path) -> Path:
    """The rows in the format of the file's name."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(JSONL.encode()))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(ROWS[0])
            table.writerows(
                [json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()] for row in ROWS
            )
    else:
        path.write_text(json.dumps(ROWS) if path.suffix == ".json" else JSONL)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_every_format_gives_the_same_responses(tmp_path, name) -> None:
    saved = read_saved(SavedResponses(source=str(written(tmp_path / name))), at=AT)
    assert [one.response for one in saved.answered] == [
        Response(row["response"], row["prompt"], tuple(row["ids"]), row["truncated"], row["answer"], "en")
        for row in ROWS
    ]
    assert [one.row for one in saved.answered] == list(range(20))
    assert saved.cut_off_known
    assert saved.faults == []


def test_what_this_program_writes_is_read_back() -> None:
    one = Answered(3, 1, Response("text\u2028 \U0001f600", "ask", (5, 6), True, "4", "de"))
    assert Answered.of_row(json.loads(json.dumps(one.as_row()))) == one
    columns = {part: part for part in ("response", "ids", "truncated", "prompt", "answer", "language")}
    assert response_of(one.as_row(), columns) == one.response


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"text": "a", "answer": "b"}, {"response": "text", "answer": "answer"}),
        ({"question": "q", "answer": "a"}, {"response": "answer", "prompt": "question"}),
        (
            {"completion": "a", "target": 4, "lang": "de"},
            {"response": "completion", "answer": "target", "language": "lang"},
        ),
        ({"output": "a", "finish_reason": "length"}, {"response": "output", "truncated": "finish_reason"}),
        ({"response": "", "ids": []}, {"response": "response", "ids": "ids"}),
    ],
)
def test_columns_are_found_by_their_names(tmp_path, row, columns) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    assert read_saved(SavedResponses(source=str(path)), at=AT).columns == columns


def test_a_conversation_is_what_its_turns_say() -> None:
    turns = [{"role": "assistant", "content": "one"}, {"role": "assistant", "content": "two"}]
    assert response_of({"completion": turns}, {"response": "completion"}).text == "one\ntwo"
    for bad in ([], [{"role": "assistant"}], ["one"], 4, {"text": "a"}):
        with pytest.raises(ValueError, match="no text"):
            response_of({"completion": bad}, {"response": "completion"})


@pytest.mark.parametrize("bad", ["1 2", [1.5], [-1], [True], {"a": 1}, ["1"], "[1, 2"])
def test_what_is_no_list_of_ids_is_a_fault(bad) -> None:
    with pytest.raises(ValueError, match="no list of token ids"):
        response_of({"r": "a", "ids": bad}, {"response": "r", "ids": "ids"})


def responses_or_one_sentence(path: Path) -> list[Answered]:
    """What is read, at least one; none where there is an error for people."""
    try:
        found, error = read_saved(SavedResponses(source=str(path)), at=AT).answered, None
    except UserError as caught:
        found, error = [], caught
    assert found if error is None else error.remedy and error.field.startswith(AT) and "\n" not in error.message
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"]))
def test_whatever_the_bytes_are_it_is_responses_or_one_sentence(tmp_path, data, name) -> None:
    """Real files with bytes changed, cut or added: never anything but responses, or an error for people."""
    path = written(tmp_path / name)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=8)) + whole[end:])
    # What is given out can be written down again.
    assert all(json.dumps(one.as_row()) for one in responses_or_one_sentence(path))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["response", "ids", "truncated", "prompt", "answer", "language", "steered", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
                max_leaves=4,
            ),
        ),
        max_size=4,
    )
)
def test_whatever_the_cells_hold_it_is_responses_or_one_sentence(tmp_path, rows) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for one in responses_or_one_sentence(path):
        assert isinstance(one.response.text, str)
        assert all(type(token) is int for token in one.response.ids)
