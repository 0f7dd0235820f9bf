"""A file of records only grows, by whole lines, whatever the disk does."""

from __future__ import annotations

import math
import os

import pytest

from qscope.runs import lines
from qscope.runs.lines import JsonLines


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.jsonl"
    file = JsonLines(path)
    file.append([{"a": 1}])
    before = path.read_bytes()

    def half(target, data: bytes) -> None:
        target.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(lines, "_write", half)
        with pytest.raises(OSError, match="No space"):
            file.append([{"a": 2}, {"a": 3}])
    assert path.read_bytes() == before
    assert file.records == [{"a": 1}]
    file.append([{"a": 4}])
    again = JsonLines(path)
    assert (again.records, again.damaged) == ([{"a": 1}, {"a": 4}], 0)


def test_only_a_line_without_end_is_cut_off(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    whole = b'{"a": 1}\ngarbage\n\xff\n[1]\n{"a": 2}\n'
    path.write_bytes(whole + b'{"a": 3}')
    file = JsonLines(path)
    assert (file.records, file.damaged) == ([{"a": 1}, {"a": 2}], 3)
    assert path.read_bytes() == whole


def test_texts_come_back_as_they_were(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    given = [{"text": "Zeile\u2028Absatz\u2029\x85ende\n"}, {"text": "half \ud800"}, {"text": "文件"}]
    JsonLines(path).append(given)
    assert JsonLines(path).records == given
    assert "文件".encode() in path.read_bytes()


def test_numbers_that_json_lacks_become_null(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    JsonLines(path).append([{"a": math.nan, "b": [math.inf, 1.5]}])
    assert path.read_text() == '{"a": null, "b": [null, 1.5]}\n'


def test_a_new_file_is_made_durable_with_its_name(tmp_path, monkeypatch) -> None:
    synced = []
    monkeypatch.setattr(lines, "fsync_folder", synced.append)
    file = JsonLines(tmp_path / "x.jsonl")
    assert synced == []
    file.append([])
    assert not os.path.exists(tmp_path / "x.jsonl")
    file.append([{"a": 1}])
    file.append([{"a": 2}])
    assert synced == [tmp_path]
