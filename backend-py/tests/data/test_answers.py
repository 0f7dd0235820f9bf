"""Right answers of rows."""

from __future__ import annotations

import pytest
from google.protobuf import json_format

from qscope.data.answers import Answer, AnswerReader, right_choice
from qscope.data.items import read_benchmark
from qscope.errors import UserError
from qscope.v1.redundancy_pb2 import ItemScoring

LAST_NUMBER = "-?[0-9][0-9,.]*"


def scoring(**fields) -> ItemScoring:
    return json_format.ParseDict(fields, ItemScoring())


def choice(**fields) -> AnswerReader:
    return AnswerReader(scoring(measure="SCORE_MEASURE_CHOICE", **fields))


@pytest.mark.parametrize(
    ("answer", "place"),
    [("two", 1), (" two ", 1), ("0", 0), ("2", 2), ("a", 0), ("C", 2)],
)
def test_the_right_choice_is_found_by_text_number_or_letter(answer, place):
    assert right_choice(answer, [" one", " two", " three"]) == place


def test_a_text_comes_before_a_number_and_a_letter():
    assert right_choice("0", ["2", "1", "0"]) == 2
    assert right_choice("a", ["b", "a"]) == 1


@pytest.mark.parametrize("answer", ["four", "3", "D", "-1", ""])
def test_an_answer_that_is_no_choice_is_refused(answer):
    with pytest.raises(ValueError, match="none of its choices"):
        right_choice(answer, ["x", "y", "z"])


def test_choices_are_columns_or_one_column_with_a_list():
    row = {"q": "?", "good": "yes", "bad": "no", "options": ["red", "blue"], "key": 1}
    assert choice(answer="{good}", choices=[" {bad}", " {good}"]).read(row) == Answer("yes", (" no", " yes"), 1)
    assert choice(answer="{key}", choices=[" {options}"]).read(row) == Answer("1", (" red", " blue"), 1)
    # The same for every row, as in yes or no.
    assert choice(answer="{good}", choices=[" no", " yes"]).read(row) == Answer("yes", (" no", " yes"), 1)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"a": "x", "c": ["x"]}, "fewer than two"),
        ({"a": "x", "c": ["x", "x"]}, "equal"),
        ({"a": "x", "c": ["x", " "]}, "empty"),
        ({"a": " ", "c": ["x", "y"]}, "its answer is empty"),
    ],
)
def test_rows_without_a_fair_choice_say_why(row, why):
    with pytest.raises(ValueError, match=why):
        choice(answer="{a}", choices=["{c}"]).read(row)


def test_a_row_without_an_answer_is_left_out_and_keeps_its_number(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text('{"q": "a", "n": "1"}\n{"q": "b"}\n{"q": "c", "n": "none"}\n{"q": "d", "n": "x 2"}\n')
    kind = scoring(measure="SCORE_MEASURE_EXACT", answer="{n}", extract=LAST_NUMBER)
    found = read_benchmark("b", str(path), prompt="{q}", scoring=kind)
    assert [(item.number, item.right) for item in found.items] == [(0, Answer("1")), (3, Answer("x 2"))]
    assert [fault.why.split(" (")[0] for fault in found.faults] == [
        "no column 'n' with a value",
        "its answer holds nothing that 'extract' finds",
    ]


def test_malformed_settings_are_one_sentence_with_their_place():
    for fields, reason, field in (
        ({"answer": "{", "extract": ""}, "TEMPLATE_MALFORMED", "s.answer"),
        ({"answer": "{a}", "extract": "("}, "PATTERN_MALFORMED", "s.extract"),
        ({"answer": "{a}", "choices": ["{a}", "{"]}, "TEMPLATE_MALFORMED", "s.choices[1]"),
    ):
        with pytest.raises(UserError) as caught:
            AnswerReader(scoring(measure="SCORE_MEASURE_EXACT", **fields), at="s")
        assert (caught.value.reason, caught.value.field) == (reason, field)
