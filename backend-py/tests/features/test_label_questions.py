"""What is asked of a language model about a feature, and what is understood of its answers."""

from __future__ import annotations

import pytest

from qscope.features.label_questions import judge_question, label_of, marked, verdicts, writer_question
from qscope.v1.features_pb2 import FeatureContext


def test_questions_hold_the_contexts_marked_and_on_one_line() -> None:
    context = FeatureContext(
        tokens=["Das", " Haus", " des", "", " M", "annes\n", "x"], activations=[0, 0, 2, 0, 1, 3, 0]
    )
    assert marked(context) == "Das Haus<< des Mannes >>x"
    system, user = writer_question([context, context], ["der", "die"])
    assert system.startswith("You name features")
    assert user.splitlines()[1].startswith("2. Das Haus<<")
    assert user.splitlines()[-1] == "The feature makes these tokens more likely: der, die"
    assert judge_question("German", ["a\nb", "c"])[1].splitlines() == ["Feature: German", "", "1. a b", "2. c"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[1, 0, 1]", [True, False, True]),
        ("Sure:\n```json\n[0,0,1]\n```", [False, False, True]),
        ("[1] is wrong, I mean [1, 1, 0].", [True, True, False]),
        ("[true, False, '1']", [True, False, True]),
        ("[1, 0]", [None] * 3),
        ("[1, 2, 0]", [None] * 3),
        ("1, 0, 1", [None] * 3),
        ("[]", [None] * 3),
        ("", [None] * 3),
        ("[1, [0, 1]]", [None] * 3),
    ],
)
def test_reads_the_verdicts_or_says_there_are_none(answer, expected) -> None:
    assert verdicts(answer, 3) == expected


def test_labels_are_one_line() -> None:
    assert label_of('\n "German articles." \n\nBecause ...') == "German articles"
    assert label_of("**Months**") == "Months"
    assert label_of("  ") == ""
    assert len(label_of("x" * 1000)) == 300
