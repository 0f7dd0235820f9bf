"""Rows with every column, and the bad ones by name."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.data.files import classify
from qscope.data.records import Fault, Layout, Record, records
from qscope.errors import UserError


def read(path, text: str | bytes, **layout) -> list[Record | Fault]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    file = classify(path)
    assert file is not None
    return list(records(file, Layout(**layout)))


def test_jsonl_names_bad_lines_and_goes_on(tmp_path):
    rows = read(tmp_path / "a.jsonl", b'{"q": 1}\n\nnot json\n[1]\n\xff\n{"q": {"deep": [2]}}')
    assert rows == [
        Record("a.jsonl:1", {"q": 1}),
        Fault("a.jsonl:3", "not JSON"),
        Fault("a.jsonl:4", "holds a list, not an object with named columns"),
        Fault("a.jsonl:5", "not UTF-8 text"),
        Record("a.jsonl:6", {"q": {"deep": [2]}}),
    ]


def test_json_at_the_top_and_inside(tmp_path):
    assert read(tmp_path / "a.json", '[{"q": "x"},\n "y"]') == [
        Record("a.json:1", {"q": "x"}),
        Fault("a.json:2", "holds a string, not an object with named columns"),
    ]
    nested = json.dumps({"canary": "z", "data": {"examples": [{"input": "i", "target": "t"}, 3]}})
    assert read(tmp_path / "b.json", nested, inside="data.examples") == [
        Record("b.json: data.examples[0]", {"input": "i", "target": "t"}),
        Fault("b.json: data.examples[1]", "holds a number, not an object with named columns"),
    ]
    with pytest.raises(UserError) as caught:
        read(tmp_path / "c.json", nested, inside="examples", at="here")
    assert (caught.value.reason, caught.value.field) == ("RECORDS_NOT_FOUND", "here.records")
    assert "canary, data" in caught.value.remedy


def test_tables_with_and_without_a_header(tmp_path):
    assert read(tmp_path / "a.csv", 'q,a\n"one, ""two""\nthree",1\r\nx\n\ny,2\n') == [
        Record("a.csv:2", {"q": 'one, "two"\nthree', "a": "1"}),
        Fault("a.csv:4", "1 cells, but 2 columns"),
        Record("a.csv:6", {"q": "y", "a": "2"}),
    ]
    # Quotation marks in a .tsv are text, unless they hold the whole cell.
    assert read(tmp_path / "a.tsv", '"Hi" she said\t1\r\n"all ""of"" it"\t2\n"open\t3\n', columns=["q", "a"]) == [
        Record("a.tsv:1", {"q": '"Hi" she said', "a": "1"}),
        Record("a.tsv:2", {"q": 'all "of" it', "a": "2"}),
        Record("a.tsv:3", {"q": '"open', "a": "3"}),
    ]


def test_a_stray_quotation_mark_costs_its_own_row_only(tmp_path):
    rows = read(tmp_path / "a.csv", 'q,a\n"open,1\nx,2\n"b" c,3\ny,"4\n5"\n"never closed,6\nz,7\n')
    assert rows == [
        Fault("a.csv:2", "not a row of the table (',' expected after '\"')"),
        Record("a.csv:3", {"q": "x", "a": "2"}),
        Fault("a.csv:4", "not a row of the table (',' expected after '\"')"),
        Record("a.csv:5", {"q": "y", "a": "4\n5"}),
        Fault("a.csv:7", "not a row of the table (a quotation mark is not closed)"),
        Record("a.csv:8", {"q": "z", "a": "7"}),
    ]
    with pytest.raises(UserError) as caught:
        read(tmp_path / "b.csv", '"q,a\nx,1\n')
    assert (caught.value.reason, caught.value.message.partition(" ")[0]) == ("TEXT_ROW_BAD", "b.csv:1:")


@pytest.mark.parametrize(("name", "tab"), [("a.csv", b","), ("a.tsv", b"\t")])
def test_a_line_that_is_no_text_costs_its_own_row_only(tmp_path, name, tab):
    rows = read(tmp_path / name, b"\n".join([b"q;a", b"x;1", b"\xff;2", b"y;3"]).replace(b";", tab))
    assert rows == [
        Record(f"{name}:2", {"q": "x", "a": "1"}),
        Fault(f"{name}:3", "not UTF-8 text"),
        Record(f"{name}:4", {"q": "y", "a": "3"}),
    ]


def test_a_json_ends_where_it_is_no_json(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.json", '[{"q": 1},\n{"q": oops},\n{"q": 2}]')
    assert (caught.value.reason, caught.value.message) == ("TEXT_ROW_BAD", "a.json:2: not JSON.")


def test_lone_surrogates_become_the_replacement_character(tmp_path):
    row = {"a\ud800": ["x\udc00", {"b": "\ud83d\ude00"}], "n": 1}
    expected = {"a\ufffd": ["x\ufffd", {"b": "\U0001f600"}], "n": 1}
    for name, text in (("a.jsonl", json.dumps(row)), ("a.json", json.dumps([row]))):
        (found,) = read(tmp_path / name, text)
        assert found.values == expected
    (found,) = read(tmp_path / "b.json", json.dumps({"rows": [row]}), inside="rows")
    assert found.values == expected


def test_parquet_text_and_compressed_files(tmp_path):
    table = pyarrow.table({"q": ["x", None], "n": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    file = classify(tmp_path / "a.parquet")
    assert list(records(file)) == [
        Record("a.parquet: row 1", {"q": "x", "n": 1}),
        Record("a.parquet: row 2", {"q": None, "n": 2}),
    ]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(UserError, match=r"not a whole \.parquet file"):
        list(records(classify(tmp_path / "b.parquet")))
    assert read(tmp_path / "a.txt", "one\ntwo\n\nthree\n") == [
        Record("a.txt: paragraph 1", {"text": "one\ntwo"}),
        Record("a.txt: paragraph 2", {"text": "three"}),
    ]
    assert read(tmp_path / "a.jsonl.gz", gzip.compress(b'{"q": 1}\n')) == [Record("a.jsonl.gz:1", {"q": 1})]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.txt"])
def test_an_empty_file_has_no_rows(tmp_path, name):
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"q": pyarrow.array([], pyarrow.string())}), tmp_path / name)
        assert list(records(classify(tmp_path / name))) == []
    else:
        assert read(tmp_path / name, "") == []


@given(st.lists(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(), max_size=4), max_size=6))
@settings(max_examples=100, deadline=None)
def test_what_json_writes_is_read(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("r")
    text = "".join(json.dumps(row) + "\n" for row in rows)
    assert [one.values for one in read(folder / "a.jsonl", text)] == rows
    assert [one.values for one in read(folder / "a.json", json.dumps(rows))] == rows
    assert [one.values for one in read(folder / "b.json", json.dumps({"r": rows}), inside="r")] == rows


@given(
    st.binary(max_size=200), st.sampled_from(["jsonl", "json", "csv", "tsv", "txt", "parquet", "jsonl.gz", "csv.zst"])
)
@settings(max_examples=300, deadline=None)
def test_garbage_is_a_fault_or_an_error_for_people(tmp_path_factory, content, suffix):
    with suppress(UserError):
        for row in read(tmp_path_factory.mktemp("g") / f"a.{suffix}", content):
            assert row.place.startswith("a.")
