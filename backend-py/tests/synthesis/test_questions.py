"""What is asked, and what is understood of answers."""

from __future__ import annotations

import pytest

from qscope.errors import UserError
from qscope.synthesis.questions import (
    refuses,
    relevance_of,
    rewriting_question,
    untargeted_question,
    word_of,
    writing_question,
    written_text,
)
from qscope.synthesis.styles import STYLES, chosen_styles
from qscope.v1.synthesize_pb2 import RewriteStyle


def test_a_question_says_what_is_wanted(context) -> None:
    system, user = writing_question("a joke", "months", [context("in May", 1), context("June\nis", 0)], ["no\nmonth"])
    assert "a joke" in system
    assert user.splitlines() == [
        "Property: months",
        "Excerpts with the property:",
        "1. i<<n>> May",
        "2. <<J>>une is",
        "These texts do not have it, so write something else:",
        "- no month",
    ]
    assert "Property" not in writing_question("x", "", [context("a")])[1]
    assert writing_question("x", "", [])[1]


def test_an_untargeted_question_names_no_feature(context) -> None:
    system, user = untargeted_question("a joke", [context("in May", 1)])
    assert "a joke" in system
    assert user == "Excerpts:\n1. in May"


def test_a_rewrite_is_told_how(context) -> None:
    system, user = rewriting_question("As a poem.", "How old?", "age", [context("old", 0)], ["x"])
    assert "As a poem." in system
    assert user.splitlines()[0] == "Prompt: How old?"
    assert "lost the property: x" in user


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("0.7", 0.7),
        ("Relevance: 1", 1.0),
        ("1.0.", 1.0),
        (".5", 0.5),
        ("0", 0.0),
        ("from 0 to 1, I say 0.3", 0.3),
        ("7", None),
        ("10", None),
        ("1.5", None),
        ("0.5.3", None),
        ("high", None),
        ("", None),
    ],
)
def test_reads_a_relevance_or_says_there_is_none(answer, expected) -> None:
    assert relevance_of(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("Harmful.", "harmful"), ("It is BENIGN", "benign"), ("harmful, not benign", ""), ("unharmful", ""), ("", "")],
)
def test_reads_one_word_of_two(answer, expected) -> None:
    assert word_of(answer, ("harmful", "benign")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't help.", True),
        ("“I can’t help with that.”", True),
        ("I cannot write this", True),
        ("As an AI, I do not", True),
        ("Sorry, no.", True),
        ("How do I say sorry to a friend?", False),
        ("I can help with that", False),
        ("Cannot is a word", False),
        ("", False),
    ],
)
def test_knows_a_refusal_by_how_it_begins(text, expected) -> None:
    assert refuses(text) is expected


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (' "How are you?" ', "How are you?"),
        ("“How?”", "How?"),
        ('"One" and "two"', '"One" and "two"'),
        ('"', '"'),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_a_text_loses_only_marks_around_all_of_it(answer, text) -> None:
    assert written_text(answer) == text


def test_styles_are_known_or_come_with_their_words() -> None:
    known, own = chosen_styles(
        [RewriteStyle(name="fiction"), RewriteStyle(name="mine", frame="<{prompt}>")], at="synthesize.styles"
    )
    assert known == STYLES["fiction"]
    assert own.framed("a {prompt} b") == "<a {prompt} b>"
    assert "<{prompt}>" in own.instruction
    with pytest.raises(UserError) as caught:
        chosen_styles([RewriteStyle(name="fiction"), RewriteStyle(name="ficton")], at="s")
    assert (caught.value.reason, caught.value.field) == ("STYLE_UNKNOWN", "s[1].name")
    assert all("{prompt}" in style.frame and style.instruction for style in STYLES.values())
