"""Readers of every file format: golden texts, the mistakes people make, damaged and random bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.data import open_text
from qscope.data.files import FORMATS, MAX_ROW_BYTES
from qscope.data.formats import MAX_TXT_CHARACTERS
from qscope.errors import UserError
from qscope.v1.text_pb2 import TextSource

TEXTS = [
    "first",
    "zweite Zeile\nmit Umbruch",
    'with "quotes", commas\tand tabs',
    "第三篇\u2028行\u0085x",
    "",
    "last 🙂",
]
COMPRESS = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


def encode(texts: list[str], suffix: str, column: str = "text") -> bytes:
    rows = [{"id": i, column: text} for i, text in enumerate(texts)]
    if suffix == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if suffix == "json":
        return json.dumps(rows, indent=1).encode()
    if suffix in ("csv", "tsv"):
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, ["id", column], delimiter="," if suffix == "csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()
    if suffix == "parquet":
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, row_group_size=2)
        return buffer.getvalue()
    return "\n\n".join(texts).encode()


def read(source, column: str = "text", start=None, **options) -> list[str]:
    reader = open_text(TextSource(source=str(source), field=column, **options))
    if start:
        reader.load_state(start)
    return list(iter(reader.read, None))


def refusal(source, **options) -> UserError:
    with pytest.raises(UserError) as caught:
        read(source, **options)
    assert "\n" not in caught.value.message
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [name for name in FORMATS if name != "txt"])
def test_every_format_gives_back_its_texts(tmp_path, suffix, compression):
    path = tmp_path / f"train.{suffix}{compression}"
    path.write_bytes(COMPRESS[compression](encode(TEXTS, suffix)))
    assert read(path) == TEXTS


@pytest.mark.parametrize("compression", COMPRESS)
def test_blank_lines_separate_the_documents_of_a_text_file(tmp_path, compression):
    path = tmp_path / f"train.txt{compression}"
    path.write_bytes(COMPRESS[compression]("\n\na\nb\r\n \t\r\nc\u2028d\n\n\n\n\ne".encode()))
    assert read(path) == ["a\nb", "c\u2028d", "e"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_reading_resumes_at_every_row(tmp_path, suffix):
    texts = [text for text in TEXTS if "\n" not in text and text]
    for name in ("a", "b"):
        (tmp_path / f"{name}.{suffix}").write_bytes(encode(texts, suffix))
    reader = open_text(TextSource(source=str(tmp_path), field="text"))
    whole = read(tmp_path)
    assert len(whole) == 2 * len(texts)
    for position in range(len(whole) + 1):
        assert read(tmp_path, start=reader.state()) == whole[position:]
        assert reader.read() == (whole[position] if position < len(whole) else None)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "txt"])
def test_a_byte_order_mark_and_crlf_change_nothing(tmp_path, suffix):
    plain, dos = tmp_path / f"plain.{suffix}", tmp_path / f"dos.{suffix}"
    plain.write_bytes(encode(["one", "two"], suffix))
    dos.write_bytes(b"\xef\xbb\xbf" + encode(["one", "two"], suffix).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert read(dos) == read(plain) == ["one", "two"]


def test_concatenated_and_empty_json_values_are_read(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"text": "a"}\n{"text": "b"} {"text": null}')
    assert read(path) == ["a", "b", ""]
    path.write_text(" [ ] ")
    assert read(path) == []


def test_a_large_json_array_streams_across_blocks(tmp_path):
    texts = [f"{i} " * (i % 7 * 5000) + '"]},[{' for i in range(40)]
    path = tmp_path / "train.json.gz"
    path.write_bytes(gzip.compress(encode(texts, "json")))
    assert read(path) == texts


def test_lone_surrogates_become_replacement_characters(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a\\ud800b \\ud83d\\ude42"}\n')
    assert read(path) == ["a\ufffdb 🙂"]


def test_a_folder_is_read_in_path_order_without_hidden_or_other_files(tmp_path):
    for name in ("b/2.jsonl", "a/9.csv", "a.txt", ".git/x.txt", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode([name], name.split(".")[-1]))
    assert read(tmp_path) == ["a.txt", "a/9.csv", "b/2.jsonl"]
    assert read(tmp_path / "*" / "*.jsonl") == ["b/2.jsonl"]
    assert read(tmp_path / "**" / "*.csv") == ["a/9.csv"]


def test_gzip_members_and_zstd_frames_may_follow_each_other(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(
        gzip.compress(b'{"text": "a"}\n') + gzip.compress(b'{"text": "b"}') + b"\0" * 9
    )
    (tmp_path / "b.jsonl.zst").write_bytes(
        zstandard.compress(b'{"text": "c"}\n') + zstandard.compress(b'{"text": "d"}')
    )
    assert read(tmp_path) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_a_truncated_compressed_file_is_noticed(tmp_path, suffix, compression):
    noise = random.Random(0)
    texts = ["".join(chr(noise.randrange(32, 0x2000)) for _ in range(300)) for _ in range(200)]
    data = COMPRESS["." + compression](encode(texts, suffix))
    path = tmp_path / f"train.{suffix}.{compression}"
    path.write_bytes(data[: len(data) // 2])
    assert refusal(path).reason == "TEXT_DAMAGED"
    path.write_bytes(b"")
    assert refusal(path).reason == "TEXT_DAMAGED"
    path.write_bytes(b"no such format")
    assert refusal(path).reason == "TEXT_DAMAGED"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"text": "a"}\n{"text": \n', "t.jsonl:2: not JSON"),
        ("t.jsonl", b'{"text": "a"}\n\n[1]\n', "t.jsonl:3: holds a list"),
        ("t.jsonl", b'{"text": "a"}\n{"text": 5}', "t.jsonl:2: column 'text' holds a number"),
        ("t.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "t.jsonl:2: not UTF-8"),
        ("t.jsonl", '{"text": "a"}'.encode("utf-16"), "t.jsonl:1: not UTF-8"),
        ("t.jsonl", b'{"text": ' + b"[" * 100_000, "t.jsonl:1: not JSON"),
        ("t.jsonl", b'{"text": ' + b"9" * 10_000 + b"}", "t.jsonl:1: not JSON"),
        ("t.json", b'[{"text": "a"},\n{"text": "b"}\n{"text": "c"}]', "t.json:3: not JSON (a comma is missing)"),
        ("t.json", b'[{"text": "a"},\n{"text"', "t.json:2: not JSON"),
        ("t.json", b'[{"text": "a"}', "t.json: not a whole .json file (the array is not closed)"),
        ("t.json", b'[{"text": "a"}]\nx', "t.json:2: text after the end of the array"),
        ("t.json", b'\n["a"]', "t.json:2: holds a string"),
        ("t.csv", b"text,n\na,1\nb\n", "t.csv:3: 1 cells, but the header names 2"),
        ("t.csv", b'text,n\na,1\n"b,2\n', "t.csv:3: not a row of the table"),
        ("t.csv", b"text\n\xff\n", "t.csv:2: not UTF-8"),
        ("t.txt", b"abc\xff", "t.txt: byte 3: not UTF-8"),
        ("t.txt", b"abc\xe2", "t.txt: byte 4: not UTF-8"),
        ("t.parquet", b"PAR1garbage", "t.parquet: not a whole .parquet file"),
        ("t.parquet", b"", "t.parquet: not a whole .parquet file"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).message.startswith(message)


@pytest.mark.parametrize("suffix", [name for name in FORMATS if name != "txt"])
def test_a_missing_column_suggests_the_nearest(tmp_path, suffix):
    path = tmp_path / f"train.{suffix}"
    path.write_bytes(encode(["a"], suffix, column="texts"))
    error = refusal(path)
    assert (error.reason, error.field) == ("TEXT_FIELD_MISSING", "text.field")
    assert "Did you mean 'texts'?" in error.remedy
    assert read(path, column="texts") == ["a"]


def test_a_parquet_column_that_is_no_text_is_refused(tmp_path):
    assert_path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), assert_path)
    assert refusal(assert_path).reason == "TEXT_FIELD_NOT_TEXT"


def test_endless_rows_are_refused_and_endless_text_is_cut(tmp_path):
    row = b'{"text": "' + b"x" * (MAX_ROW_BYTES + 100)
    for name in ("t.jsonl.gz", "t.csv.gz", "t.json.gz"):
        (tmp_path / name).write_bytes(gzip.compress((b"text\n" if "csv" in name else b"") + row, 1))
        assert refusal(tmp_path / name).reason == "TEXT_ROW_BAD"
    path = tmp_path / "t.txt.gz"
    text = "word " * (MAX_TXT_CHARACTERS // 2)
    path.write_bytes(gzip.compress(text.encode(), 1))
    pieces = read(path)
    assert "".join(pieces) == text
    assert len(pieces) == 3
    assert all(len(piece) <= MAX_TXT_CHARACTERS for piece in pieces)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("no/such/folder", "TEXT_NOT_FOUND"),
        ("./nothing", "TEXT_NOT_FOUND"),
        ("missing.jsonl", "TEXT_NOT_FOUND"),
        ("nothing-*.jsonl", "TEXT_NOT_FOUND"),
        ("with space", "TEXT_NOT_FOUND"),
    ],
)
def test_a_source_that_is_not_there(monkeypatch, tmp_path, source, reason):
    monkeypatch.chdir(tmp_path)
    error = refusal(source)
    assert (error.reason, error.field) == (reason, "text.source")


def test_files_of_unknown_format_are_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    assert refusal(tmp_path).reason == "TEXT_FORMAT_UNKNOWN"
    assert refusal(tmp_path / "model.bin").reason == "TEXT_FORMAT_UNKNOWN"


fuzz = st.binary(max_size=300) | st.lists(
    st.sampled_from([b'{"text": "a"}', b"\n", b"[", b"]", b",", b'"', b"{", b"text", b"\r\n", b"\0", b"\xff", b"PAR1"]),
    max_size=25,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(data=fuzz, name=st.sampled_from([f"t.{f}{c}" for f in FORMATS for c in ("", ".gz", ".zst")]), wrap=st.booleans())
def test_random_bytes_give_texts_or_one_clear_error(tmp_path_factory, data, name, wrap):
    path: Path = tmp_path_factory.mktemp("fuzz") / name
    suffix = "." + name.rsplit(".", 1)[1]
    path.write_bytes(COMPRESS[suffix](data) if wrap and suffix in COMPRESS else data)
    try:
        texts = read(path)
    except UserError:
        error = refusal(path)
        assert name in error.message
    else:
        assert all(isinstance(text, str) for text in texts)
        assert read(path) == texts


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(max_size=30), max_size=12), suffix=st.sampled_from(["jsonl", "json", "parquet", "csv"]))
def test_any_text_survives_the_round_trip(tmp_path_factory, texts, suffix):
    path = tmp_path_factory.mktemp("round") / f"t.{suffix}"
    if suffix == "csv":  # the standard writer cannot quote a lone carriage return apart from a line end
        texts = [text.replace("\r", "") for text in texts]
    if suffix == "parquet" and not texts:
        return
    path.write_bytes(encode(texts, suffix))
    assert read(path) == texts


@pytest.mark.parametrize("source", ["embedded", "embedded-heldout"])
def test_the_embedded_text_is_at_hand(source):
    reader = open_text(TextSource(source=source, field="ignored"))
    assert all(reader.read() for _ in range(50))
    assert reader.identity()["source"] == source
