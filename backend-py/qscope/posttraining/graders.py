"""What a response is worth: the kinds of graders, and what one said of a response.

A grader is a function of one response. It runs in a process of its own (:mod:`~.grader_pool`), so this module imports
nothing heavy. A grader that fails says nothing: ``None`` with a reason, never 0, which would be a verdict.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qscope.errors import UserError
from qscope.posttraining.accuracy import check_of, compiled
from qscope.posttraining.code_switching import consistency, language_code
from qscope.posttraining.repetition import repetition_of
from qscope.text.loops import repeated_ngrams

#: Why a grader gave no number. ``ABSTAINED``: a user's function said None, which is no failure.
ABSTAINED, RAISED, TIMEOUT, CRASHED, MEMORY, NOT_FINITE, NOT_A_NUMBER = (
    "abstained",
    "raised",
    "timeout",
    "crashed",
    "memory",
    "not-finite",
    "not-a-number",
)


@dataclass(frozen=True)
class Response:
    """What is graded.

    Attributes:
        text: what the model wrote.
        prompt: what it answered.
        ids: generated tokens, without the one that ended it.
        truncated: it ended at its limit.
        answer: the right answer; empty where there is none.
        language: it should be in; empty where it is not known.
        row: the data set's row, for a user's function; JSON values.
    """

    text: str
    prompt: str = ""
    ids: tuple[int, ...] = ()
    truncated: bool = False
    answer: str = ""
    language: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grader:
    """One grader of a reward.

    Attributes:
        name: what its numbers are called.
        kind: one of :data:`KINDS`.
        weight: what its number is multiplied with in the reward.
        rule: of ``answer``, see :func:`~.accuracy.check_of`.
        pattern: of ``regex``, and of ``answer`` with the rule ``pattern``.
        ngram: of ``repetition``.
        path: of ``python``, ``file.py:function``.
    """

    name: str
    kind: str
    weight: float = 1.0
    rule: str = "last-number"
    pattern: str = ""
    ngram: int = 3
    path: str = ""


@dataclass(frozen=True)
class Grade:
    """What a grader said.

    Attributes:
        value: its number; None where it gave none.
        reason: why it gave none.
        detail: more about that, for a person.
    """

    value: float | None
    reason: str = ""
    detail: str = ""


@dataclass
class Tally:
    """How a grader fared.

    Attributes:
        n: responses it was asked about.
        graded: those it gave a number for.
        total: sum of its numbers.
        reasons: of the others, by reason.
        example: the first of them in words.
    """

    n: int = 0
    graded: int = 0
    total: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    example: str = ""

    @property
    def mean(self) -> float:
        """Mean of its numbers; NaN without any."""
        return self.total / self.graded if self.graded else math.nan

    @property
    def failed_share(self) -> float:
        """Share of the responses on which it failed: an abstention is none. 0 without responses."""
        return (self.n - self.graded - self.reasons[ABSTAINED]) / self.n if self.n else 0.0

    def count(self, grade: Grade) -> None:
        """Counts one more response."""
        self.n += 1
        if grade.value is not None:
            self.graded += 1
            self.total += grade.value
            return
        self.reasons[grade.reason] += 1
        if grade.reason != ABSTAINED and not self.example:
            self.example = f"{grade.reason}: {grade.detail}" if grade.detail else grade.reason


def reward_of(graders: Sequence[Grader], grades: Sequence[Grade]) -> float | None:
    """Weighted sum of what the graders said of one response; None where one that counts said nothing.

    A sum over the others would score the silent one 0.
    """
    total = 0.0
    for grader, grade in zip(graders, grades, strict=True):
        if grader.weight == 0:
            continue
        if grade.value is None:
            return None
        total += grader.weight * grade.value
    return total


#: A grader at work: a response to what it is worth.
Function = Callable[[Response], Any]


def load(grader: Grader, *, at: str = "") -> Function:
    """The function of a grader.

    Args:
        grader: which.
        at: its experiment field, for errors.

    Raises:
        UserError: it cannot work as it is set up.
    """
    if grader.kind not in KINDS:
        raise UserError(
            f"There is no grader of the kind {grader.kind!r}.",
            remedy=f"Use one of {', '.join(KINDS)}.",
            reason="GRADER_UNKNOWN",
            field=f"{at}.kind" if at else "",
        )
    return KINDS[grader.kind](grader, at)


def _answer(grader: Grader, at: str) -> Function:
    """1 for the right answer, 0 for another."""
    check = check_of(grader.rule, pattern=grader.pattern, at=at)

    def grade(response: Response) -> float:
        if not response.answer.strip():
            raise ValueError("the row has no right answer")
        return float(check(response.text, response.answer))

    return grade


def _repetition(grader: Grader, at: str) -> Function:
    """Minus the share of n-grams of tokens that occurred before: from -1 to 0."""
    if grader.ngram < 1:
        raise UserError(
            f"{grader.ngram} is no length of n-grams.",
            remedy="Use 3, or another number from 1 on.",
            reason="OUT_OF_RANGE",
            field=f"{at}.ngram" if at else "",
        )
    return lambda response: -repeated_ngrams(response.ids, grader.ngram)


def _endless(grader: Grader, at: str) -> Function:
    """-1 for a response that was cut off in a loop, else 0."""
    return lambda response: -float(repetition_of(response.ids, truncated=response.truncated).endless)


def _language(grader: Grader, at: str) -> Function:
    """Share of the characters in the scripts of the response's language: from 0 to 1."""
    return lambda response: consistency(response.text, language_code(response.language))


def _regex(grader: Grader, at: str) -> Function:
    """1 where a regular expression is found, else 0."""
    found = re.compile(compiled(grader.pattern, at=f"{at}.pattern" if at else ""))
    return lambda response: float(found.search(response.text) is not None)


def _python(grader: Grader, at: str) -> Function:
    """A user's function of the response's text and the row: ``grade(completion: str, row: dict) -> float | None``."""
    path, _, name = grader.path.rpartition(":")
    at = f"{at}.path" if at else ""
    file = Path(path).expanduser()
    if not path or not name.isidentifier() or not file.is_file():
        raise UserError(
            f"{grader.path!r} names no function in a file that exists.",
            remedy="Give the file and the function, for example grader.py:grade.",
            reason="GRADER_NOT_FOUND",
            field=at,
        )
    function = getattr(_module(file, at), name, None)
    if not callable(function):
        raise UserError(
            f"{path} defines no function {name!r}.",
            remedy=f"Define `def {name}(completion: str, row: dict) -> float | None` in it.",
            reason="GRADER_NOT_FOUND",
            field=at,
        )
    return lambda response: function(response.text, {"prompt": response.prompt, **response.row})


def _module(file: Path, at: str) -> Any:
    # Found by files next to it, as where it is run by hand.
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"qscope_grader_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(
            f"{file} is no Python file.",
            remedy="Give a file that ends in .py.",
            reason="GRADER_NOT_FOUND",
            field=at,
        )
    try:
        module = importlib.util.module_from_spec(spec)
        # Pickle and dataclasses look a module up by its name.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{file} cannot be loaded: {type(error).__name__}: {error}.",
            remedy=f"Try it: python {file}",
            reason="GRADER_BROKEN",
            field=at,
        ) from error
    return module


KINDS: dict[str, Callable[[Grader, str], Function]] = {
    "answer": _answer,
    "repetition": _repetition,
    "endless": _endless,
    "language": _language,
    "regex": _regex,
    "python": _python,
}
