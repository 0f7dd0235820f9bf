"""Shares of responses by hand, with n and interval."""

from __future__ import annotations

import math

import pytest

from qscope.errors import UserError
from qscope.features.intervals import wilson
from qscope.posttraining.accuracy import check_of
from qscope.posttraining.code_switching import PAPER, SwitchRule
from qscope.posttraining.exemptions import Exemptions
from qscope.posttraining.graders import Response
from qscope.posttraining.measures import accuracy, micro_average, power_note, repeats, switches

LOOP = tuple(range(16)) * 4
NO_LOOP = tuple(range(64))


def test_repetition_over_tokens() -> None:
    responses = [
        Response("a", ids=LOOP, truncated=True),
        Response("b", ids=LOOP),
        Response("c", ids=NO_LOOP, truncated=True),
        Response("", ids=()),
        Response("d", ids=LOOP[3:] + LOOP[:5], truncated=True),
    ]
    found = repeats(responses)
    assert found.by_tokens
    assert found.looping == (0, 4)
    assert found.endless == wilson(2, 5)
    assert found.cut_off == wilson(3, 5)
    # 62 3-grams, 16 of them new; in the last 64, 16 new.
    shares = [46 / 62, 46 / 62, 0, 0, 48 / 64]
    assert found.repeated_3grams == pytest.approx(sum(shares) / 5)
    mean = sum(shares) / 5
    assert found.repeated_3grams_sd == pytest.approx(math.sqrt(sum((share - mean) ** 2 for share in shares) / 4))


def test_loops_are_told_with_their_place() -> None:
    found = repeats([Response("a", ids=(9, 9, *LOOP), truncated=True), Response("b", ids=NO_LOOP, truncated=True)])
    assert [(loop.start, loop.period, loop.repetitions) for loop in found.loops] == [(2, 16, 4)]


def test_where_nobody_says_what_was_cut_off_a_loop_to_the_very_end_counts() -> None:
    responses = [Response("a", ids=LOOP), Response("b", ids=(*LOOP, 99)), Response("c", ids=NO_LOOP)]
    found = repeats(responses, cut_off_known=False)
    assert found.looping == (0,)
    assert found.endless == wilson(1, 3)
    assert found.cut_off.n == 0
    # Over characters the same: elsewhere a loop counts anywhere, as its end may be cut off.
    texts = [Response("la " * 20), Response("la " * 20 + "and so they sang.")]
    assert repeats(texts, cut_off_known=False).looping == (0,)
    cut = [Response(one.text, truncated=True) for one in texts]
    assert repeats(cut).looping == (0, 1)


def test_repetition_over_characters_where_no_response_has_tokens() -> None:
    found = repeats([Response("la " * 30, truncated=True), Response("la " * 30), Response("fine", truncated=True)])
    assert not found.by_tokens
    assert found.looping == (0,)
    assert found.endless == wilson(1, 3)
    assert math.isnan(found.repeated_3grams)
    with pytest.raises(UserError, match="1 of 2 responses have no tokens") as caught:
        repeats([Response("a", ids=(1,)), Response("b")], at="eval.outputs")
    assert (caught.value.reason, caught.value.field) == ("TOKENS_MISSING", "eval.outputs")


RESPONSES = [
    Response("The file is saved.", language="en"),
    Response("The 文件 is saved файл.", language="en-GB"),
    Response("文件保存。", language="zh"),
    Response("文件 файл 保存。", language="zh"),
    Response("文件 파일 保存。", language="zh"),
    Response("no language"),
]


def test_switching_by_expected_language_and_target() -> None:
    rows = switches(RESPONSES, SwitchRule(sentences=False))
    assert [(row.expected, row.target, row.ratio) for row in rows] == [
        ("en", "", wilson(1, 2)),
        ("zh", "", wilson(2, 3)),
    ]
    assert [(number, span.script) for number, span in rows[0].spans] == [(1, "Han"), (1, "Cyrillic")]
    rows = switches(RESPONSES, SwitchRule(targets=("zh", "ru"), sentences=False, exempt=PAPER.exempt))
    assert [(row.expected, row.target, row.ratio) for row in rows] == [
        ("en", "zh", wilson(1, 2)),
        ("en", "ru", wilson(1, 2)),
        ("zh", "ru", wilson(1, 3)),
    ]
    assert [number for number, _ in rows[2].spans] == [3]


def test_the_micro_average_counts_every_response_once_for_each_target() -> None:
    (any_target,) = micro_average(switches(RESPONSES, SwitchRule(sentences=False)))
    assert (any_target.expected, any_target.target, any_target.ratio) == ("", "", wilson(3, 5))
    assert any_target.switched == 3
    assert [number for number, _ in any_target.spans] == [1, 1, 3, 4]
    rows = switches(RESPONSES, SwitchRule(targets=("zh", "ru"), sentences=False, exempt=PAPER.exempt))
    assert [(row.target, row.ratio) for row in micro_average(rows)] == [("zh", wilson(1, 2)), ("ru", wilson(2, 5))]
    assert micro_average([]) == []


def test_pairs_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        switches(RESPONSES, SwitchRule(targets=("fr",), sentences=False), at="eval.targets")
    assert (caught.value.reason, caught.value.field) == ("SCRIPT_SHARED", "eval.targets")
    with pytest.raises(UserError) as caught:
        switches([Response("x", language="klingon")], PAPER, at="eval.language")
    assert (caught.value.reason, caught.value.field) == ("LANGUAGE_UNKNOWN", "eval.language")


def test_the_prompt_is_passed_on() -> None:
    asked = [Response("It is 文件.", prompt="What is 文件?", language="en")]
    rule = SwitchRule(sentences=False, exempt=Exemptions(prompt=True))
    assert switches(asked, rule)[0].ratio == wilson(0, 1)


def test_accuracy_is_of_those_with_an_answer() -> None:
    given = [("so 42", "42"), ("so 43", "42"), ("so 42", ""), ("", "1")]
    responses = [Response(text, answer=answer) for text, answer in given]
    assert accuracy(responses, check_of("last-number")) == wilson(1, 3)
    assert accuracy(responses[2:3], check_of("last-number")).n == 0


def test_the_power_note() -> None:
    note = power_note(wilson(8, 1000))
    assert "0.80% falls by 70% takes 2,589 responses an arm" in note
    assert "1,000 are too few" in note
    assert "4,000 are enough" in power_note(wilson(32, 4000))
    # The rule of three, as Wilson's interval has it: z^2 / (n + z^2).
    assert "None of 300: any share below 1.26%" in power_note(wilson(0, 300))
    assert "100.00% falls by 70% takes 6 responses an arm" in power_note(wilson(10, 10))
    assert power_note(wilson(0, 0)) == "There are no responses to measure."
