"""What each kind of grader says, and what is refused before it is asked."""

from __future__ import annotations

import math
import sys

import pytest

from qscope.errors import UserError
from qscope.posttraining.grader_process import judged
from qscope.posttraining.graders import (
    ABSTAINED,
    KINDS,
    MEMORY,
    NOT_A_NUMBER,
    NOT_FINITE,
    RAISED,
    TIMEOUT,
    Grade,
    Grader,
    Response,
    Tally,
    load,
    reward_of,
)

LOOP = tuple(range(16)) * 4


def grade(response: Response, kind: str, **options):
    return load(Grader("g", kind, **options))(response)


def test_golden_values_of_every_kind() -> None:
    sums = Response("17 + 25 = 42", answer="42")
    assert grade(sums, "answer") == 1
    assert grade(sums, "answer", rule="whole") == 0
    assert grade(sums, "answer", rule="pattern", pattern=r"= (\d+)") == 1
    assert grade(Response("43", answer="42"), "answer") == 0
    assert grade(Response("", ids=(1, 2, 3, 1, 2, 3, 1)), "repetition") == pytest.approx(-2 / 5)
    # Six pairs: 12 23 31 12 23 31.
    assert grade(Response("", ids=(1, 2, 3, 1, 2, 3, 1)), "repetition", ngram=2) == pytest.approx(-3 / 6)
    assert grade(Response("", ids=()), "repetition") == 0
    assert grade(Response("", ids=LOOP, truncated=True), "endless") == -1
    assert grade(Response("", ids=LOOP), "endless") == 0
    assert grade(Response("", ids=LOOP[:-1], truncated=True), "endless") == 0
    assert grade(Response("файл ab", language="ru"), "language") == pytest.approx(4 / 6)
    assert grade(Response("файл ab", language="RU-ru"), "language") == pytest.approx(4 / 6)
    assert grade(Response("so it is <answer>", language=""), "regex", pattern="<answer>$") == 1
    assert grade(Response("<answer> it is"), "regex", pattern="<answer>$") == 0
    assert set(KINDS) == {"answer", "repetition", "endless", "language", "regex", "python"}


def test_a_users_function_gets_the_text_and_the_row(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "helper.py").write_text("BONUS = 0.5\n")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "import helper\n"
        "@dataclass\n"
        "class Part:\n"
        "    value: float\n"
        "def grade(completion, row):\n"
        "    return Part(len(completion) + row['points'] + len(row['prompt']) + helper.BONUS).value\n"
    )
    path = f"{tmp_path}/mine.py:grade"
    assert grade(Response("four", prompt="hi", row={"points": 10}), "python", path=path) == 16.5


@pytest.mark.parametrize(
    ("options", "reason", "field"),
    [
        ({"kind": "vibes"}, "GRADER_UNKNOWN", "r.kind"),
        ({"kind": "answer", "rule": "nearly"}, "RULE_UNKNOWN", "r"),
        ({"kind": "regex", "pattern": "("}, "PATTERN_MALFORMED", "r.pattern"),
        ({"kind": "regex"}, "PATTERN_MALFORMED", "r.pattern"),
        ({"kind": "repetition", "ngram": 0}, "OUT_OF_RANGE", "r.ngram"),
        ({"kind": "python", "path": "nowhere.py:grade"}, "GRADER_NOT_FOUND", "r.path"),
        ({"kind": "python", "path": "grade"}, "GRADER_NOT_FOUND", "r.path"),
        ({"kind": "python", "path": "{folder}/mine.py"}, "GRADER_NOT_FOUND", "r.path"),
        ({"kind": "python", "path": "{folder}/mine.py:missing"}, "GRADER_NOT_FOUND", "r.path"),
        ({"kind": "python", "path": "{folder}/mine.py:NUMBER"}, "GRADER_NOT_FOUND", "r.path"),
        ({"kind": "python", "path": "{folder}/mine.txt:grade"}, "GRADER_NOT_FOUND", "r.path"),
        ({"kind": "python", "path": "{folder}/broken.py:grade"}, "GRADER_BROKEN", "r.path"),
        ({"kind": "python", "path": "{folder}/syntax.py:grade"}, "GRADER_BROKEN", "r.path"),
        ({"kind": "python", "path": "{folder}/exits.py:grade"}, "GRADER_BROKEN", "r.path"),
    ],
)
def test_graders_that_cannot_work_are_refused(tmp_path, monkeypatch, options, reason, field) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = {
        "mine.py": "NUMBER = 1\ndef grade(completion, row): return 1\n",
        "mine.txt": "def grade(completion, row): return 1\n",
        "broken.py": "import a_package_that_nobody_has\n",
        "syntax.py": "def grade(:\n",
        "exits.py": "raise SystemExit('no licence')\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    options = {name: value.format(folder=tmp_path) if name == "path" else value for name, value in options.items()}
    with pytest.raises(UserError) as caught:
        load(Grader("g", **options), at="r")
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert caught.value.remedy
    assert "\n" not in caught.value.message


class Reader:
    """A number of another library."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


def raising(error: BaseException):
    def function(response: Response) -> float:
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda response: 0, {"value": 0.0}),
        (lambda response: True, {"value": 1.0}),
        (lambda response: Reader(2.5), {"value": 2.5}),
        (lambda response: None, {"reason": ABSTAINED, "detail": ""}),
        (lambda response: math.nan, {"reason": NOT_FINITE, "detail": "it gave nan"}),
        (lambda response: -math.inf, {"reason": NOT_FINITE, "detail": "it gave -inf"}),
        (lambda response: "1.0", {"reason": NOT_A_NUMBER, "detail": "it gave str"}),
        (lambda response: [1.0], {"reason": NOT_A_NUMBER, "detail": "it gave list"}),
        (raising(MemoryError()), {"reason": MEMORY, "detail": ""}),
    ],
)
def test_what_a_function_gives_is_a_number_or_a_reason(function, expected) -> None:
    assert judged(function, Response("")) == expected


@pytest.mark.parametrize("error", [ValueError("no number"), SystemExit(3), KeyboardInterrupt(), RecursionError("deep")])
def test_what_a_function_raises_is_told_with_its_place(error) -> None:
    told = judged(raising(error), Response(""))
    assert told["reason"] == RAISED
    assert told["detail"].startswith(type(error).__name__)
    assert "(test_graders.py:" in told["detail"]


def test_graders_that_lack_what_they_need_fail_and_say_so() -> None:
    for kind, response in (("answer", Response("42")), ("language", Response("文件"))):
        told = judged(load(Grader("g", kind)), response)
        assert told["reason"] == RAISED
        assert "value" not in told


def test_failures_are_counted_by_reason_and_never_as_0() -> None:
    tally = Tally()
    for one in (
        Grade(1.0),
        Grade(0.0),
        Grade(None, ABSTAINED),
        Grade(None, TIMEOUT, "1 seconds"),
        Grade(None, RAISED, "ValueError"),
        Grade(None, TIMEOUT),
    ):
        tally.count(one)
    assert (tally.n, tally.graded, tally.mean) == (6, 2, 0.5)
    assert tally.reasons == {TIMEOUT: 2, RAISED: 1, ABSTAINED: 1}
    assert tally.failed_share == pytest.approx(3 / 6)
    assert tally.example == "timeout: 1 seconds"
    assert math.isnan(Tally().mean)
    assert Tally().failed_share == 0


def test_a_reward_without_one_of_its_parts_is_none() -> None:
    graders = [
        Grader("right", "answer"),
        Grader("loops", "repetition", weight=0.5),
        Grader("watched", "endless", weight=0),
    ]
    assert reward_of(graders, [Grade(1.0), Grade(-0.4), Grade(-1.0)]) == pytest.approx(0.8)
    assert reward_of(graders, [Grade(1.0), Grade(None, TIMEOUT), Grade(0.0)]) is None
    assert reward_of(graders, [Grade(None, ABSTAINED), Grade(0.0), Grade(0.0)]) is None
    assert reward_of(graders, [Grade(1.0), Grade(0.0), Grade(None, RAISED)]) == 1.0, "it only watches"
