"""Answers in texts, and when two are the same."""

from __future__ import annotations

import pytest

from qscope.text.answers import equal_answers, extracted, last_number, plain

LAST_NUMBER = "-?[0-9][0-9,.]*"


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("3 and 4.", LAST_NUMBER, "4."),
        ("so 5 + 6 = 1,100", LAST_NUMBER, "1,100"),
        ("#### 12\nmore 3", r"#### (\d+)", "12"),
        ("nothing", LAST_NUMBER, ""),
        ("all of it", "", "all of it"),
    ],
)
def test_the_last_match_counts(text, pattern, found):
    assert extracted(text, pattern) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The  Answer. ", "the answer"),
        ("\uff21\uff22", "ab"),
        ("1,000.50", "1000.5"),
        ("$1000.5", "1000.5"),
        ("-0.0", "0"),
        ("1e3", "1e3"),
        ("1,2", "1,2"),
        ("007", "7"),
        ("12345678901234567890123456789012345", "12345678901234567890123456789012345"),
        (".", ""),
        ("$", "$"),
    ],
)
def test_texts_are_compared_without_what_does_not_matter(text, expected):
    assert plain(text) == expected


def test_equal_answers():
    assert equal_answers("So it is 1,042.", "... #### 1042", LAST_NUMBER)
    assert not equal_answers("So it is 1,043.", "... #### 1042", LAST_NUMBER)
    assert not equal_answers("no number", "... #### 1042", LAST_NUMBER)
    assert not equal_answers("", "", "")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", ""),
        ("no number", ""),
        ("3.", "3"),
        ("1,2,3", "3"),
        ("1,234,567.", "1234567"),
        ("1,2345", "2345"),
        ("x2 and H2O", ""),
        ("3 - 5", "5"),
        ("a-5", "5"),
        ("a = -5", "-5"),
        ("\u22120.50", "-0.5"),
        ("v1.2", ""),
        ("5km", "5"),
        ("1/2", "2"),
        ("2024-05", "5"),
        ("-$1,000", "-1000"),
        ("$-7", "-7"),
        ("+7", "7"),
        ("it is 1,000, or so", "1000"),
        ("\uff14\uff12", "42"),
    ],
)
def test_the_last_number(text, number):
    assert last_number(text) == number


def test_the_minus_sign_is_a_minus():
    assert plain("\u22125") == "-5"
