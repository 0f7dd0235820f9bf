"""Rows chosen by a column beside the text, and labels, in every format that has columns."""

from __future__ import annotations

import csv
import io
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from qscope.data import DatasetReader, Selection, TokenStream, open_text
from qscope.errors import UserError
from qscope.v1.text_pb2 import TextSource

ROWS = [{"text": f"document {n}", "language": ["de", "en", "fr"][n % 3], "n": n, "good": n % 2 == 0} for n in range(30)]


def write(folder, suffix: str):
    path = folder / f"t.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif suffix == "json":
        path.write_text(json.dumps(ROWS))
    elif suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=4)
    else:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(ROWS[0]), delimiter="," if suffix == "csv" else "\t")
        writer.writeheader()
        writer.writerows([{**row, "good": json.dumps(row["good"])} for row in ROWS])
        path.write_text(out.getvalue())
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv", "tsv"])
@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        ("language=de", lambda row: row["language"] == "de"),
        ("language != de", lambda row: row["language"] != "de"),
        ("n=7", lambda row: row["n"] == 7),
        ("good=true", lambda row: row["good"]),
        ("text!=document 3", lambda row: row["n"] != 3),
        ("language=", lambda row: False),
    ],
)
def test_only_the_rows_asked_for_are_read(tmp_path, suffix, where, keeps) -> None:
    source = TextSource(source=str(write(tmp_path, suffix)), where=where)
    expected = [row["text"] for row in ROWS if keeps(row)]
    reader = open_text(source)
    assert list(iter(reader.read, None)) == expected
    for shuffle in (0, 7):
        source.shuffle_documents = shuffle
        whole = open_text(source)
        texts = list(iter(whole.read, None))
        assert sorted(texts) == sorted(expected)
        for position in range(len(texts)):
            moving = open_text(source)
            for _ in range(position):
                moving.read()
            resumed = open_text(source)
            resumed.load_state(json.loads(json.dumps(moving.state())))
            assert list(iter(resumed.read, None)) == texts[position:]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv", "tsv"])
def test_labels_come_with_their_documents(tmp_path, suffix) -> None:
    source = TextSource(source=str(write(tmp_path, suffix)), where="n!=4", shuffle_documents=8)
    reader = open_text(source, label="language", label_field="x.language")
    found = list(iter(reader.read_document, None))
    assert sorted(found) == sorted((row["text"], row["language"]) for row in ROWS if row["n"] != 4)


def test_a_dataset_of_the_hub_is_chosen_from_alike() -> None:
    rows = datasets.Dataset.from_list(ROWS).to_iterable_dataset(num_shards=4)
    selection = Selection("text", "text", where="good=false", label="n", label_field="x")
    reader = DatasetReader(rows, {"source": "someone/rows"}, selection)
    assert list(iter(reader.read_document, None)) == [(row["text"], str(row["n"])) for row in ROWS if not row["good"]]
    assert reader.identity() == {"source": "someone/rows", "column": "text", "where": "good=false"}


def test_another_condition_is_another_text(tmp_path, tokenizer) -> None:
    def stream(where: str) -> TokenStream:
        source = TextSource(source=str(write(tmp_path, "jsonl")), where=where)
        return TokenStream(open_text(source), tokenizer, context=8, pack=True, repeat=True)

    state = stream("language=de").state()
    stream("language=de").load_state(state)
    with pytest.raises(UserError, match="has changed"):
        stream("language=fr").load_state(state)


@pytest.mark.parametrize(
    ("name", "where", "reason", "field"),
    [
        ("t.jsonl", "languag=de", "TEXT_FIELD_MISSING", "text.where"),
        ("t.parquet", "languag=de", "TEXT_FIELD_MISSING", "text.where"),
        ("t.csv", "languag=de", "TEXT_FIELD_MISSING", "text.where"),
        ("t.txt", "language=de", "TEXT_FIELD_MISSING", "text.where"),
        ("t.jsonl", "language", "WHERE_MALFORMED", "text.where"),
        ("t.jsonl", "=de", "WHERE_MALFORMED", "text.where"),
    ],
)
def test_a_condition_that_cannot_be_met_is_refused(tmp_path, name, where, reason, field) -> None:
    path = tmp_path / name
    if name.endswith("txt"):
        path.write_text("a\n\nb\n")
    else:
        write(tmp_path, name.partition(".")[2])
    with pytest.raises(UserError) as caught:
        open_text(TextSource(source=str(path), where=where)).read()
    assert (caught.value.reason, caught.value.field) == (reason, field)
    if reason == "TEXT_FIELD_MISSING" and not name.endswith("txt"):
        assert "Did you mean 'language'?" in caught.value.remedy


def test_a_label_that_is_no_single_value_is_refused(tmp_path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a", "tags": ["x"]}\n')
    reader = open_text(TextSource(source=str(tmp_path / "t.jsonl")), label="tags", label_field="x.tags")
    with pytest.raises(UserError) as caught:
        reader.read()
    assert (caught.value.reason, caught.value.field) == ("TEXT_FIELD_NOT_TEXT", "x.tags")


def test_the_embedded_text_is_chosen_by_language() -> None:
    reader = open_text(TextSource(source="embedded-heldout", where="language=de"), label="language", label_field="x")
    found = list(iter(reader.read_document, None))
    assert len(found) > 100
    assert {document.label for document in found} == {"de"}
