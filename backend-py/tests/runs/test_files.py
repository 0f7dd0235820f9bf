"""Files that are the old or the new one, and JSON that every reader takes."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from qscope.runs.files import plain, write_csv, write_json, write_jsonl


def test_what_json_cannot_hold_becomes_null_or_a_list(tmp_path):
    path = tmp_path / "a.json"
    value = {"a": math.nan, "b": [math.inf, (-math.inf, 1.5)], "c": np.array([[1.0, math.nan]]), 4: np.int64(3)}
    write_json(path, value)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": [None, [None, 1.5]], "c": [[1.0, None]], "4": 3}


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_what_json_holds_stays_as_it_is():
    given = {"a": [1, True, None, "ü", 0.5], "b": {"c": {}}}
    assert plain(given) == given
    assert plain(np.float32(0.5)) == 0.5


def test_a_table_has_its_header_without_rows_and_empty_cells_for_what_is_missing(tmp_path):
    write_csv(tmp_path / "none.csv", ("a", "b"), [])
    assert (tmp_path / "none.csv").read_text().splitlines() == ["a,b"]
    # The first row may be the one that lacks a column.
    write_csv(tmp_path / "some.csv", ("a", "b"), [{"a": 1, "b": math.nan}, {"b": 3}, {"a": 2, "b": 3}])
    with (tmp_path / "some.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": ""}, {"a": "", "b": "3"}, {"a": "2", "b": "3"}]


def test_lines_are_json_whatever_they_hold(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"a": math.nan, "b": np.float32(0.5)}, {"text": "half \ud800, line\u2028, 文件"}])
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1])
    assert first == {"a": None, "b": 0.5}
    assert second == {"text": "half \ud800, line\u2028, 文件"}
