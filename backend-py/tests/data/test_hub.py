"""Hub datasets, with a real streaming dataset built in memory and the hub's answers replaced."""

from __future__ import annotations

import json
from types import SimpleNamespace

import datasets
import httpx
import pytest
from huggingface_hub import HfApi, constants

from qscope.data import DatasetReader, Selection, ShuffledReader, TokenStream, open_text
from qscope.errors import UserError
from qscope.v1.text_pb2 import TextSource

ROWS = [{"text": f"row {i}"} for i in range(23)] + [{"text": None}]


def reader(rows=ROWS, column="text", shards=4) -> DatasetReader:
    dataset = datasets.Dataset.from_list(rows).to_iterable_dataset(num_shards=shards)
    return DatasetReader(dataset, {"source": "someone/rows", "revision": "abc"}, Selection(column, "text"))


def test_rows_come_in_order_and_every_pass_is_the_same():
    dataset = reader()
    expected = [row["text"] or "" for row in ROWS]
    assert list(iter(dataset.read, None)) == expected
    dataset.start_pass(1)
    assert list(iter(dataset.read, None)) == expected


@pytest.mark.parametrize("window", [0, 5])
def test_reading_resumes_at_every_row(window):
    def fresh():
        return ShuffledReader(reader(), window, seed=1) if window else reader()

    whole = list(iter(fresh().read, None))
    moving = fresh()
    for position in range(len(whole) + 1):
        other = fresh()
        other.load_state(json.loads(json.dumps(moving.state())))
        assert list(iter(other.read, None)) == whole[position:]
        moving.read()


def test_a_token_stream_over_a_dataset_resumes(tokenizer):
    def fresh():
        return TokenStream(reader(), tokenizer, context=7, pack=True, repeat=True)

    whole = fresh()
    for _ in range(30):
        whole.next_batch(1)
    resumed = fresh()
    resumed.load_state(json.loads(json.dumps(whole.state())))
    for _ in range(30):
        assert resumed.next_batch(1).input_ids_BT.tolist() == whole.next_batch(1).input_ids_BT.tolist()
    assert whole.passes > 1


def test_a_missing_column_is_named():
    with pytest.raises(UserError, match="row 1: no column 'body'"):
        reader(column="body").read()


def test_the_commit_is_pinned_and_recorded(monkeypatch):
    asked = {}

    def load(name, config, **options):
        asked.update(options)
        return datasets.IterableDatasetDict({"test": datasets.Dataset.from_list(ROWS).to_iterable_dataset()})

    monkeypatch.setattr(HfApi, "dataset_info", lambda self, *args, **options: SimpleNamespace(sha="c0ffee"))
    monkeypatch.setattr(datasets, "load_dataset", load)
    opened = open_text(TextSource(source="someone/rows", field="text", split="test"))
    assert opened.read() == "row 0"
    assert (asked["revision"], asked["streaming"]) == ("c0ffee", True)
    assert opened.identity()["revision"] == "c0ffee"


def test_an_unreachable_hub_is_refused_after_one_bounded_question(monkeypatch, tmp_path):
    calls = []

    def unreachable(self, *args, timeout, **options):
        calls.append(timeout)
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        open_text(TextSource(source="someone/rows", field="text"))
    assert (caught.value.reason, caught.value.field) == ("TEXT_UNREACHABLE", "text.source")
    assert calls == [10.0]
