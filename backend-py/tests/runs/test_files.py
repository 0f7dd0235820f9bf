"""Files that are the old or the new one, and JSON that every reader takes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qscope.runs.files import plain, write_json


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
