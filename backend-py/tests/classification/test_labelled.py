"""Reading labelled rows: what is left out, and on which side a text stands."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.classification.labelled import (
    Labelled,
    LabelledText,
    LabelRule,
    Side,
    Use,
    alike_as_read,
    read_labelled,
    side_of,
    text_digest,
)
from qscope.data.row_texts import RowSource
from qscope.errors import UserError

RULE = LabelRule("label", frozenset({"yes"}), at="classify.data[0]")
SHARES = {"evaluation": 0.25, "calibration": 0.25, "seed": 7}


def rows(count: int = 80) -> list[dict]:
    return [{"text": f"text number {n}", "label": "yes" if n % 3 == 0 else "no"} for n in range(count)]


def write(path: Path, given: list) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in given]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path, rule: LabelRule = RULE, source: dict | None = None, **more) -> Labelled:
    made = RowSource(str(path), at="classify.data[0]", **(source or {}))
    return read_labelled([(made, rule)], **{**SHARES, **more})


def test_every_text_stands_on_one_side_and_stays_there(tmp_path) -> None:
    before = {text.text: text.side for text in read(write(tmp_path / "a.jsonl", rows())).texts}
    assert set(before.values()) == set(Side)
    after = {text.text: text.side for text in read(write(tmp_path / "b.jsonl", rows(200)[::-1])).texts}
    assert {text: after[text] for text in before} == before
    other = {text.text: text.side for text in read(write(tmp_path / "a.jsonl", rows()), seed=8).texts}
    assert other != before


def test_shares_are_kept() -> None:
    sides = [side_of(text_digest(str(n)), Use.SPLIT, **SHARES) for n in range(4000)]
    assert sides.count(Side.EVALUATION) == pytest.approx(1000, abs=100)
    assert sides.count(Side.CALIBRATION) == pytest.approx(1000, abs=100)
    found = [side_of(text_digest(str(n)), Use.DISCOVERY, **SHARES) for n in range(4000)]
    assert Side.EVALUATION not in found
    # Of what is not evaluated on, the same part is calibrated on as elsewhere: a third.
    assert found.count(Side.CALIBRATION) == pytest.approx(4000 / 3, abs=120)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_case_and_white_space_are_no_other_text(text) -> None:
    assert text_digest(text) == text_digest(f"  {' '.join(text.split())}\n")
    assert text_digest("Straße") == text_digest("STRASSE")
    assert text_digest("a b") != text_digest("ab")


def test_repetitions_and_contradictions_are_counted(tmp_path) -> None:
    given = [*rows(), {"text": "TEXT  number 0", "label": "yes"}, {"text": "text number 1", "label": "yes"}]
    found = read(write(tmp_path / "a.jsonl", given))
    assert (found.rows, found.repeated, found.contradictory, len(found.texts)) == (82, 1, 2, 79)
    assert "text number 1" not in {text.text for text in found.texts}
    digests = [text.digest for text in found.texts]
    assert len(set(digests)) == len(digests)


def test_leaks_between_sources_leave_discovery(tmp_path) -> None:
    train = RowSource(str(write(tmp_path / "train.jsonl", rows(100))), at="classify.data[0]")
    fresh = [{"text": f"other {n}", "label": "yes" if n % 2 else "no"} for n in range(10)]
    test = RowSource(str(write(tmp_path / "test.jsonl", [*rows(7), *fresh])), at="classify.data[1]")
    for order in ((0, 1), (1, 0)):
        sources = [
            (train, LabelRule("label", frozenset({"yes"}), use=Use.DISCOVERY)),
            (test, LabelRule("label", frozenset({"yes"}), use=Use.EVALUATION)),
        ]
        found = read_labelled([sources[index] for index in order], **SHARES)
        assert found.leaks == 7
        evaluated = {text.text for text in found.texts if text.side == Side.EVALUATION}
        assert evaluated == {row["text"] for row in [*rows(7), *fresh]}
        assert len(found.texts) == 110


def test_faults_have_their_lines(tmp_path) -> None:
    given = [*rows(), "no row", {"text": "x"}, {"text": " ", "label": "no"}, {"label": "no"}, "[1]"]
    found = read(write(tmp_path / "a.jsonl", given))
    assert [fault.place for fault in found.faults] == [f"a.jsonl:{n}" for n in range(81, 86)]
    assert [fault.why.split(" (")[0] for fault in found.faults] == [
        "not JSON",
        "no column 'label' with a value",
        "its text is empty",
        "no column 'text' with a value",
        "holds a list, not an object with named columns",
    ]
    with pytest.raises(UserError, match=r"a\.jsonl:81: not JSON") as caught:
        read(tmp_path / "a.jsonl", source={"refuse_faults": True})
    assert caught.value.field == "classify.data[0].source"
    with pytest.raises(UserError, match=r"a\.jsonl:82: no column 'label'"):
        read(write(tmp_path / "a.jsonl", [*rows(), "", {"text": "x"}]), source={"refuse_faults": True})


def test_every_format_gives_the_same(tmp_path) -> None:
    expected = [(text.text, text.positive, text.side) for text in read(write(tmp_path / "a.jsonl", rows())).texts]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows()), tmp_path / "a.parquet")
    lines = "".join(f"{row['text']}\t{row['label']}\n" for row in rows())
    (tmp_path / "a.txt").write_text(lines)
    for name, source in (
        ("a.csv", {}),
        ("a.parquet", {}),
        ("a.txt", {"form": "tsv", "columns": ["text", "label"]}),
    ):
        found = read(tmp_path / name, source=source)
        assert [(text.text, text.positive, text.side) for text in found.texts] == expected


def test_labels_that_are_neither(tmp_path) -> None:
    given = [*rows(), *({"text": f"maybe {n}", "label": "unsure"} for n in range(5))]
    rule = LabelRule("label", frozenset({"yes"}), frozenset({"no"}), at="classify.data[0]")
    found = read(write(tmp_path / "a.jsonl", given), rule)
    assert (dict(found.other_labels), found.rows, found.faults) == ({"unsure": 5}, 80, [])


def test_numbers_as_labels_and_languages(tmp_path) -> None:
    given = [{"text": f"t{n}", "label": n % 2, "lang": "de" if n % 4 < 2 else "en"} for n in range(60)]
    rule = LabelRule("label", frozenset({"1"}), language="{lang}", at="classify.data[0]")
    found = read(write(tmp_path / "a.jsonl", given), rule)
    assert {(text.language, text.positive) for text in found.texts} == {(a, b) for a in ("de", "en") for b in (0, 1)}
    told = read(
        write(tmp_path / "a.jsonl", given),
        LabelRule("label", frozenset({"1"}), language="guess", at=""),
        languages_of=lambda texts: ["xx" for _ in texts],
    )
    assert {text.language for text in told.texts} == {"xx"}


def test_not_a_number_is_no_label(tmp_path) -> None:
    """What tables of numbers say where a value is missing: without 'negative' it would pass for one."""
    table = pyarrow.table(
        {"text": [f"t{n}" for n in range(60)], "label": [float(n % 2) for n in range(59)] + [math.nan]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", LabelRule("label", frozenset({"1.0"}), at="classify.data[0]"))
    assert (found.rows, [fault.place for fault in found.faults]) == (59, ["a.parquet: row 60"])
    assert sum(text.positive for text in found.texts) == 29


def test_texts_that_are_alike_as_far_as_they_are_read_are_counted() -> None:
    def text(content: str, side: Side) -> LabelledText:
        return LabelledText("", content, True, "", text_digest(content), side)

    texts = [
        text("one two three", Side.DISCOVERY),
        text("One  two four", Side.EVALUATION),
        text("one two five", Side.EVALUATION),
        text("six seven eight", Side.EVALUATION),
        text("six seven nine", Side.EVALUATION),
        text("nine ten", Side.CALIBRATION),
        text("nine", Side.EVALUATION),
    ]
    assert alike_as_read(texts, [one.text for one in texts]) == 0
    # Of two words each: the first two of the evaluation texts begin as the discovery text does; those that are alike
    # among themselves are no leak.
    assert alike_as_read(texts, [" ".join(one.text.split()[:2]) for one in texts]) == 2
    assert alike_as_read(texts, [one.text.split()[0] for one in texts]) == 3


def test_balance_and_per_class(tmp_path) -> None:
    path = write(tmp_path / "a.jsonl", rows(300))
    found = read(path, balance=True)
    for counts in found.counts().values():
        assert counts["positive"] == counts["negative"] > 0
    assert found.thinned == 300 - len(found.texts)
    few = read(path, per_class=40)
    assert sum(text.positive for text in few.texts) == 40
    # Those that are taken do not change when more are.
    assert {text.text for text in few.texts} < {text.text for text in read(path, per_class=60).texts}


@pytest.mark.parametrize(
    ("given", "reason", "part"),
    [
        ([], "DATA_EMPTY", "no row that can be used"),
        (["x", "y"], "DATA_EMPTY", "The first of 2 left out: a.jsonl:1: not JSON"),
        ([{"text": f"t{n}", "label": "no"} for n in range(30)], "ONE_CLASS", "All 30 texts are of one class, without"),
        ([{"text": "a", "label": "yes"}], "ONE_CLASS", "The only text is of one class, with the"),
        (rows(6), "TOO_FEW_TEXTS", "are needed"),
        ([{"text": "a", "label": "yes"}, {"text": "A", "label": "no"}], "DATA_EMPTY", "Every text has both labels"),
    ],
)
def test_what_cannot_be_studied_is_refused(tmp_path, given, reason, part) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("") if not given else write(path, given)
    with pytest.raises(UserError) as caught:
        read(path)
    assert caught.value.reason == reason
    assert part in caught.value.message
    assert caught.value.remedy
    assert caught.value.field.startswith("classify.data[0].")
