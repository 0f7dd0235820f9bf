"""What the three verbs that read rows say to rows they cannot use: one sentence, one remedy, and the field at fault."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qscope.data.benchmarks import read_benchmarks
from qscope.errors import UserError
from qscope.recipes.classify_parts import read_data
from qscope.synthesis.rows import read_rows
from qscope.v1.classify_pb2 import SPLIT_USE_SPLIT, Classify, LabelledSource
from qscope.v1.redundancy_pb2 import BAD_ROWS_REFUSE, BAD_ROWS_SKIP, BenchmarkSource, BenchRedundancy
from qscope.v1.synthesize_pb2 import TextRows

ROWS = [{"text": f"text number {n}", "label": "yes" if n % 2 else "no"} for n in range(60)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = [f"text {n},{'yes' if n % 2 else 'no'}" for n in range(60)]


class Read(NamedTuple):
    """Rows that were used, and left out."""

    used: int
    left_out: int


def bench(path: Path, refuse: bool = False) -> Read:
    source = BenchmarkSource(name="b", source=str(path), prompt="{text}")
    bad_rows = BAD_ROWS_REFUSE if refuse else BAD_ROWS_SKIP
    (found,) = read_benchmarks(BenchRedundancy(benchmarks=[source], bad_rows=bad_rows), "bench_redundancy")
    return Read(len(found.items), len(found.faults))


def classify(path: Path, refuse: bool = False) -> Read:
    source = LabelledSource(
        source=str(path), text="{text}", label="label", positive=["yes"], use=SPLIT_USE_SPLIT
    )  # fmt: skip
    task = Classify(data=[source], evaluation_share=0.25, calibration_share=0.25)
    task.bad_rows = BAD_ROWS_REFUSE if refuse else BAD_ROWS_SKIP
    found = read_data(task, 0)
    return Read(len(found.texts), len(found.faults))


def synthesize(path: Path, refuse: bool = False) -> Read:
    source = TextRows(source=str(path), prompt="{text}")
    found = read_rows(source, "seed_data", refuse_faults=refuse, at="synthesize.seed_data")
    return Read(len(found.items), len(found.faults))


#: The verbs, and the field that names their source.
VERBS = {
    "bench_redundancy.benchmarks[0].source": bench,
    "classify.data[0].source": classify,
    "synthesize.seed_data.source": synthesize,
}


def refused(call: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    error = caught.value
    assert error.message.count("\n") == 0
    assert error.message.endswith((".", "?"))
    assert error.remedy
    assert error.reason != "USER_ERROR"
    return error


def parquet(path: Path, **columns: object) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def written(folder: Path, name: str, content: bytes | str | Callable[[Path], None]) -> Path:
    path = folder / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def half_a_parquet(path: Path) -> None:
    parquet(path, text=["a"] * 60, label=["yes"] * 60)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(("at", "verb"), VERBS.items(), ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("plain.jsonl", JSONL, Read(60, 0)),
        ("bom.jsonl", b"\xef\xbb\xbf" + JSONL.encode(), Read(60, 0)),
        ("crlf.jsonl", JSONL.replace("\n", "\r\n"), Read(60, 0)),
        ("bom.csv", "\ufeff" + "\r\n".join(["text,label", *TABLE]), Read(60, 0)),
        ("crlf.tsv", "\r\n".join(["text\tlabel", *TABLE]).replace(",", "\t"), Read(60, 0)),
        ("torn.jsonl", JSONL[:-9], Read(59, 1)),
        ("mixed.jsonl", JSONL + "oops\n[1]\n" + '{"text": " ", "label": "no"}\n', Read(60, 3)),
        ("mixed.csv", "\n".join(["text,label", *TABLE, "one cell", '"open,yes']), Read(60, 2)),
        ("latin1.jsonl", JSONL.encode() + b'{"text": "\xe9", "label": "no"}\n', Read(60, 1)),
        ("whole.jsonl.gz", gzip.compress(JSONL.encode()), Read(60, 0)),
    ],
)
def test_what_can_be_used_is_and_the_rest_is_counted(tmp_path, at, verb, name, content, expected) -> None:
    path = written(tmp_path, name, content)
    assert verb(path) == expected
    if expected.left_out:
        error = refused(lambda: verb(path, refuse=True))
        assert (error.reason, error.field) == ("ROW_BAD", at)
        assert error.message.startswith(f"{name}:{61 if name != 'torn.jsonl' else 60}") or name == "mixed.csv"


@pytest.mark.parametrize(("at", "verb"), VERBS.items(), ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize(
    ("name", "content", "reason", "sentence", "remedy"),
    [
        ("empty.jsonl", "", "EMPTY", "empty.jsonl'", "Check the source"),
        ("blank.jsonl", "\n \n", "EMPTY", "blank.jsonl'", "Check the source"),
        ("empty.csv", "", "EMPTY", "empty.csv'", "Check the source"),
        ("head.csv", "text,label\n", "EMPTY", "head.csv'", "Check the source"),
        ("empty.json", "[]", "EMPTY", "empty.json'", "Check the source"),
        ("empty.parquet", lambda path: parquet(path, text=[], label=[]), "EMPTY", "empty.parquet'", "Check the source"),
        ("bad.jsonl", "oops\n[1]\n", "EMPTY", "The first of 2", "Check the source"),
        ("nul.jsonl", b"\0" * 99, "EMPTY", "nul.jsonl:1: not JSON", "Check the source"),
        ("deep.jsonl", '{"text": ' + "[" * 9999 + "]" * 9999 + "}", "EMPTY", "deep.jsonl:1: not JSON", "Check"),
        ("other.jsonl", '{"body": "a"}\n', "EMPTY", "no column 'text' with a value (columns there: body)", "Check"),
        ("inside.json", json.dumps({"rows": ROWS}), "EMPTY", "(columns there: rows)", "'records' says where they are"),
        ("latin1.csv", b"text,label\n\xe9,yes\n", "EMPTY", "latin1.csv:2: not UTF-8 text", "to UTF-8"),
        ("head1.csv", b"t\xe9xt,label\na,yes\n", "TEXT_ROW_BAD", "head1.csv:1: not UTF-8 text", "names the columns"),
        ("utf16.jsonl", JSONL.encode("utf-16"), "TEXT_ROW_BAD", "utf16.jsonl:1: not UTF-8 text", "iconv"),
        ("mac.csv", "text,label\ra,yes\r", "TEXT_ROW_BAD", "a carriage return without a line feed", "Mend"),
        ("twice.csv", "text,text,label\na,b,yes\n", "TEXT_ROW_BAD", "2 columns are called 'text'", "of its own"),
        ("half.jsonl.gz", gzip.compress(JSONL.encode())[:99], "TEXT_DAMAGED", "it ends early", "again"),
        ("none.jsonl.gz", "", "TEXT_DAMAGED", "it ends early", "again"),
        ("plain.jsonl.gz", JSONL, "TEXT_DAMAGED", "not a whole .jsonl.gz file", "again"),
        ("open.json", '[{"text": "a"},', "TEXT_DAMAGED", "the array is not closed", "again"),
        ("half.parquet", half_a_parquet, "TEXT_DAMAGED", "not a whole .parquet file", "again"),
        (
            "bytes.parquet",
            lambda path: parquet(path, text=[b"\xff"], label=["no"]),
            "EMPTY",
            "holds bytes, not",
            "Check",
        ),
        ("null.parquet", lambda path: parquet(path, text=[None], label=["no"]), "EMPTY", "no column 'text'", "Check"),
        ("some.xyz", "a", "TEXT_FORMAT_UNKNOWN", "the format of this file is unknown", "Readable are"),
        ("folder", Path.mkdir, "TEXT_NOT_FOUND", "no text file found there", "Check the path"),
        ("gone.jsonl", lambda path: None, "TEXT_NOT_FOUND", "no text file found there", "Check the path"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_with_a_remedy(
    tmp_path, at, verb, name, content, reason, sentence, remedy
) -> None:
    path = written(tmp_path, name, content)
    error = refused(lambda: verb(path))
    ends = {"EMPTY": "DATA_EMPTY" if verb is classify else "BENCHMARK_EMPTY"}
    assert (error.reason, error.field) == (ends.get(reason, reason), at)
    assert sentence in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("rows", "reason", "field", "sentence", "remedy"),
    [
        (ROWS[:1], "ONE_CLASS", "positive", "The only text is of one class, without", "of no (1)"),
        (ROWS[1::2], "ONE_CLASS", "positive", "All 30 texts are of one class, with the attribute", "of yes (30)"),
        (
            [{**row, "label": row["label"].upper()} for row in ROWS],
            "ONE_CLASS",
            "positive",
            "without",
            "NO (30), YES (30)",
        ),
        ([{"text": row["text"], "tag": 1} for row in ROWS], "DATA_EMPTY", "source", "no column 'label'", "columns"),
        (ROWS[:6], "TOO_FEW_TEXTS", "source", "6 texts are too few", "Give more texts"),
    ],
)
def test_labels_that_leave_nothing_to_tell_apart(tmp_path, rows, reason, field, sentence, remedy) -> None:
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    error = refused(lambda: classify(path))
    assert (error.reason, error.field) == (reason, f"classify.data[0].{field}")
    assert sentence in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize("verb", [bench, synthesize])
def test_one_item_is_enough_to_be_read(tmp_path, verb) -> None:
    assert verb(written(tmp_path, "a.jsonl", json.dumps(ROWS[0]))) == Read(1, 0)


def test_a_limit_hides_no_column_that_is_not_there(tmp_path) -> None:
    path = written(tmp_path, "a.jsonl", JSONL)
    source = LabelledSource(
        source=str(path), label="label", positive=["yes"], use=SPLIT_USE_SPLIT, where="lable!=no", limit=20
    )
    task = Classify(data=[source], evaluation_share=0.25, calibration_share=0.25)
    error = refused(lambda: read_data(task, 0))
    assert (error.reason, error.field) == ("TEXT_FIELD_MISSING", "classify.data[0].where")
    assert error.remedy.startswith("Did you mean 'label'?")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.jsonl.gz", "a.csv.zst"]),
)
def test_whatever_the_bytes_are_it_is_rows_or_one_sentence(tmp_path, data, name) -> None:
    """Real files with bytes changed, cut or added: never anything but rows, or an error for people."""
    whole = {"jsonl": JSONL, "json": json.dumps(ROWS), "csv": "\n".join(["text,label", *TABLE])}.get(
        name.split(".")[1], "text\tlabel\na\tyes\n"
    ).encode()
    if name.endswith(".gz"):
        whole = gzip.compress(whole)
    if name.endswith(".parquet"):
        parquet(tmp_path / name, text=["a", "b"], label=["yes", "no"])
        whole = (tmp_path / name).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    path = written(tmp_path, name, whole[:start] + data.draw(st.binary(max_size=8)) + whole[end:])
    for verb in VERBS.values():
        try:
            used, error = verb(path).used, None
        except UserError as caught:
            used, error = 0, caught
        assert used > 0 if error is None else error.remedy and error.field
