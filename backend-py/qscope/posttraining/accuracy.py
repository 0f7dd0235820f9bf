"""Whether a response is right, by a rule that has a name: the same model scores differently by each.

A score without the rule that took the answer out of the text says little: one model has 0.844 on GSM8K by the strict
``####`` and 0.892 by the last number.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from qscope.errors import UserError
from qscope.text.answers import equal_answers, extracted, last_number, plain

_EXTRA = "qscope[math]"
#: Rules by name. A rule that takes a regular expression is ``pattern``.
RULES = ("whole", "last-number", "pattern", "math")

#: Whether a response (first) is the right answer (second).
Check = Callable[[str, str], bool]


def check_of(rule: str, *, pattern: str = "", at: str = "") -> Check:
    """The check of a rule.

    * ``whole``: the whole response is the answer, up to case, blanks, width and the mark at its end
      (:func:`qscope.text.answers.plain`).
    * ``last-number``: the last number of the response is the last one of the answer.
    * ``pattern``: the last match of a regular expression in both, or its first group.
    * ``math``: math-verify, where it is installed: an expression of equal value, in LaTeX or plain.

    Args:
        rule: one of :data:`RULES`.
        pattern: of the rule ``pattern``.
        at: experiment field of the rule, for errors.

    Raises:
        UserError: no such rule (RULE_UNKNOWN), a pattern that is missing or malformed (PATTERN_MALFORMED), or a package
            that is not installed (PACKAGE_MISSING).
    """
    if rule == "whole":
        return equal_answers
    if rule == "last-number":
        return _equal_last_numbers
    if rule == "pattern":
        return partial(_equal_by_pattern, pattern=compiled(pattern, at=at))
    if rule == "math":
        return _math_check(at)
    raise UserError(
        f"There is no rule {rule!r} for answers.",
        remedy=f"Use one of {', '.join(RULES)}.",
        reason="RULE_UNKNOWN",
        field=at,
    )


def compiled(pattern: str, *, at: str = "") -> str:
    """A regular expression that compiles and is not empty.

    Raises:
        UserError: it does not (PATTERN_MALFORMED).
    """
    try:
        re.compile(pattern)
        why = "" if pattern else "it is empty"
    except re.error as error:
        why = str(error)
    if why:
        raise UserError(
            f"The regular expression {pattern!r} is malformed: {why}.",
            remedy="Write it as Python's re does, for example '#### (.+)'.",
            reason="PATTERN_MALFORMED",
            field=at,
        )
    return pattern


def _equal_last_numbers(written: str, right: str) -> bool:
    number = last_number(written)
    return bool(number) and number == last_number(right)


def _equal_by_pattern(written: str, right: str, *, pattern: str) -> bool:
    """The answer is looked through as well, but one without a match is an answer as it stands."""
    found = plain(extracted(written, pattern))
    return bool(found) and found == plain(extracted(right, pattern) or right)


def _math_check(at: str) -> Check:
    if find_spec("math_verify") is None:
        raise UserError(
            "The rule 'math' needs the package math-verify, which is not installed.",
            remedy=f"Install the extra {_EXTRA} in the worker's environment (pip install '{_EXTRA}'), "
            "or use the rule 'last-number'.",
            reason="PACKAGE_MISSING",
            field=at,
        )
    # It warns that it runs without a time limit; the limit is the grader's process.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return _equal_math


def _equal_math(written: str, right: str) -> bool:
    """Equal in value by math-verify 0.9. Its own limits are signals, for a main thread only, and are off.

    Raises:
        ValueError: the right answer holds nothing it can read: no fault of the response.
        Exception: whatever a comparison raised, which math-verify would call wrong.
    """
    from math_verify import parse, verify

    # A response that cannot be read is wrong, so errors in it are none of ours; the gold answer stands first.
    gold = parse(right, parsing_timeout=None) or parse(f"${right}$", parsing_timeout=None)
    if not gold:
        raise ValueError(f"math-verify finds no expression in the right answer {right[:40]!r}")
    return verify(gold, parse(written, parsing_timeout=None), timeout_seconds=None, raise_on_error=True)
