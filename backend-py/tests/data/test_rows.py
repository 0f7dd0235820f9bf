"""Rows of hub data sets: real folders in the hub's layout, read by the code that reads the hub; the hub's own answers
are replaced, as there is no network in a test."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from qscope.data.hub import SourceName, open_hub
from qscope.data.records import Fault, Layout
from qscope.data.row_texts import RowSource
from qscope.data.rows import open_rows
from qscope.errors import UserError

COMMIT = "1" * 40
README = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train.parquet}
  - {split: test, path: main/test-*.parquet}
- config_name: socratic
  data_files:
  - {split: test, path: socratic/test.parquet}
---
# A data set
"""


def write_dataset(folder):
    """Two configurations, one of them with two splits, a test split in two files; a row without a question."""
    for name in ("main", "socratic"):
        (folder / name).mkdir(parents=True)
    (folder / "README.md").write_text(README)

    def parquet(name, rows):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")

    for name, numbers in (("train", range(5)), ("test-00000-of-00002", range(3)), ("test-00001-of-00002", (3, 4))):
        parquet(f"main/{name}", [{"question": f"{name} {n}?", "answer": n, "kind": "ab"[n % 2]} for n in numbers])
    parquet("socratic/test", [{"question": question} for question in ("why?", None, "how?")])
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "gsm8k")


def source(folder, **more) -> RowSource:
    return RowSource(str(folder), at="b[0]", **more)


def refused(call) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    return caught.value


def test_a_split_is_read_row_by_row_over_its_files(folder):
    rows = list(source(folder, config="main", split="test", text="{question}").rows())
    assert [row.text for row in rows] == [
        *(f"test-00000-of-00002 {n}?" for n in range(3)),
        *(f"test-00001-of-00002 {n}?" for n in (3, 4)),
    ]
    assert [(row.place, row.number) for row in rows[:2]] == [
        ("gsm8k main test: row 1", 0),
        ("gsm8k main test: row 2", 1),
    ]
    assert rows[1].values["answer"] == 1, "values keep their types"
    kept = source(folder, config="main", split="test", where="kind=b").rows()
    assert [row.number for row in kept] == [1, 3]


def test_a_bad_row_has_its_place(folder):
    given = list(source(folder, config="socratic", split="test").rows())
    assert [type(row) is Fault for row in given] == [False, True, False]
    assert given[1] == Fault(
        "gsm8k socratic test: row 2", "no column 'question' with a value (columns there: question)"
    )
    error = refused(lambda: list(source(folder, config="socratic", split="test", refuse_faults=True).rows()))
    assert (error.reason, error.field) == ("ROW_BAD", "b[0].source")
    assert error.message.startswith("gsm8k socratic test: row 2: no column 'question'")


def test_the_usual_split_stands_in_where_none_is_named(folder):
    assert len(list(source(folder, config="main", usual_split="train").rows())) == 5
    assert len(list(source(folder, config="main", usual_split="test").rows())) == 5
    first = next(source(folder, config="main", usual_split="train").rows())
    assert first.text == "train 0?"


@pytest.mark.parametrize(
    ("given", "reason", "field", "sentence", "remedy"),
    [
        (
            {"config": "man", "split": "test"},
            "TEXT_CONFIG_UNKNOWN",
            "config",
            "no config 'man'",
            "Did you mean 'main'?",
        ),
        ({"split": "test"}, "TEXT_CONFIG_UNKNOWN", "config", "has several configurations", "main, socratic"),
        ({"config": "main", "split": "tset"}, "TEXT_SPLIT_UNKNOWN", "split", "no split 'tset'", "'test'? Name one in"),
        ({"config": "socratic"}, "TEXT_SPLIT_UNKNOWN", "split", "no split 'train'", "Name one in 'split': test."),
        ({"config": "main", "columns": ["a"]}, "SOURCE_FIELDS", "columns", "'columns' says nothing about", "Leave"),
        ({"config": "main", "inside": "a"}, "SOURCE_FIELDS", "records", "'records' says nothing about", "Leave"),
        ({"config": "main", "form": "csv"}, "SOURCE_FIELDS", "format", "'format' says nothing about", "Leave"),
        ({"revision": "v1"}, "SOURCE_FIELDS", "revision", "'revision' says nothing about", "Leave"),
    ],
)
def test_what_does_not_fit_a_data_set_is_one_sentence_and_a_remedy(folder, given, reason, field, sentence, remedy):
    error = refused(lambda: source(folder, **given))
    assert (error.reason, error.field) == (reason, f"b[0].{field}")
    assert sentence in error.message
    assert remedy in error.remedy


def test_files_take_no_fields_of_the_hub(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    error = refused(lambda: source(tmp_path / "a.jsonl", split="test"))
    assert (error.reason, error.field) == ("SOURCE_FIELDS", "b[0].split")
    assert refused(lambda: source("embedded", config="x")).reason == "SOURCE_FIELDS"


def test_a_folder_that_changes_is_another_text(folder):
    name = SourceName(str(folder), config="main", split="test")
    before = open_hub(name).identity
    assert open_hub(name).identity == before
    (folder / "README.md").write_text(README.replace("test-*", "test-00000*"))
    assert open_hub(name).identity != before


def test_nothing_but_its_head_is_read_before_the_rows(folder, monkeypatch):
    taken = source(folder, config="main", split="test").rows()
    next(taken)
    # What was opened is streamed: the second file is asked for only when the rows get there.
    (folder / "main" / "test-00001-of-00002.parquet").write_bytes(b"no parquet")
    assert [next(taken).number for _ in range(2)] == [1, 2]
    error = refused(lambda: next(taken))
    assert (error.reason, error.field) == ("TEXT_DAMAGED", "b[0].source")
    assert error.message.startswith("gsm8k main test: reading broke off after row 3 (")


def answering(monkeypatch, answer):
    def dataset_info(self, name, **options):
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(sha=answer)

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/datasets/openai/gsm8k"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The layout of `hf download`: the branch names the commit, the commit is a folder."""
    repository = tmp_path / ".cache" / "hub" / "datasets--openai--gsm8k"
    write_dataset(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / ".cache" / "hub"))
    return repository


@pytest.mark.parametrize(
    "answer",
    [
        OfflineModeIsEnabled("HF_HUB_OFFLINE=1"),
        httpx.ConnectError("Name or service not known"),
        RepositoryNotFoundError("busy", response=response(503)),
    ],
    ids=["offline", "unreachable", "busy"],
)
@pytest.mark.parametrize("revision", ["", "main", COMMIT])
def test_where_the_hub_cannot_be_asked_a_download_stands_in(cache, monkeypatch, answer, revision):
    answering(monkeypatch, answer)
    rows = open_rows(SourceName("openai/gsm8k", "main", "test", revision, "b[0]"), Layout())
    assert rows.identity() == {"source": "openai/gsm8k", "config": "main", "split": "test", "revision": COMMIT}
    assert [row.place for row in rows.records()][-1] == "openai/gsm8k main test: row 5"


@pytest.mark.parametrize(
    ("answer", "reason", "field", "sentence", "remedy"),
    [
        (OfflineModeIsEnabled("x"), "TEXT_UNREACHABLE", "source", "HF_HUB_OFFLINE keeps from", "hf download some/rows"),
        (httpx.ConnectTimeout("x"), "TEXT_UNREACHABLE", "source", "the hub cannot be reached", "--revision v1"),
        (RepositoryNotFoundError("x", response=response(500)), "TEXT_UNREACHABLE", "source", "answers 500", "download"),
        (RepositoryNotFoundError("x", response=response(404)), "TEXT_NOT_FOUND", "source", "nor a dataset", "HF_TOKEN"),
        (RevisionNotFoundError("x", response=response(404)), "TEXT_NOT_FOUND", "revision", "'v1'", "a whole commit"),
        (GatedRepoError("x", response=response(403)), "TEXT_GATED", "source", "agreed to its terms", "hf auth login"),
    ],
)
def test_what_the_hub_says_no_to(tmp_path, monkeypatch, answer, reason, field, sentence, remedy):
    answering(monkeypatch, answer)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    error = refused(lambda: source("some/rows", revision="v1"))
    assert (error.reason, error.field) == (reason, f"b[0].{field}")
    assert sentence in error.message
    assert remedy in error.remedy
    assert "\n" not in str(error)
