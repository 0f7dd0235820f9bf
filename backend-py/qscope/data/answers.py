"""The right answers of a benchmark's items."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qscope.data.template import Template
from qscope.errors import UserError
from qscope.text.answers import extracted
from qscope.v1.redundancy_pb2 import SCORE_MEASURE_CHOICE, SCORE_MEASURE_EXACT, ItemScoring


@dataclass(frozen=True)
class Answer:
    """What is right about an item.

    Attributes:
        text: the right answer.
        choices: what there is to choose from; empty where nothing is.
        right: place of the right one among the choices; -1 without any.
    """

    text: str
    choices: tuple[str, ...] = ()
    right: int = -1


class AnswerReader:
    """Reads the answers of a benchmark's rows as its score block says.

    Args:
        scoring: the block.
        at: its experiment field, for errors.

    Raises:
        UserError: a malformed template (TEMPLATE_MALFORMED) or regular expression (PATTERN_MALFORMED).
    """

    def __init__(self, scoring: ItemScoring, *, at: str = "") -> None:
        self._scoring = scoring
        self._answer = Template(scoring.answer, at=f"{at}.answer")
        self._choices = [
            Template(text, at=f"{at}.choices[{index}]", constant=True) for index, text in enumerate(scoring.choices)
        ]
        self._pattern = scoring.extract
        try:
            re.compile(scoring.extract)
        except re.error as error:
            raise UserError(
                f"The regular expression {scoring.extract!r} is malformed: {error}.",
                remedy="Write it as Python's re does, for example '-?[0-9][0-9,.]*'.",
                reason="PATTERN_MALFORMED",
                field=f"{at}.extract",
            ) from error

    def read(self, values: dict[str, Any]) -> Answer:
        """The answer of one row.

        Raises:
            KeyError: a column is not there, or is null.
            ValueError: it is no answer; the message says why.
        """
        text = self._answer.fill(values)
        if not text.strip():
            raise ValueError("its answer is empty")
        if self._scoring.measure == SCORE_MEASURE_EXACT and not extracted(text, self._pattern):
            raise ValueError("its answer holds nothing that 'extract' finds")
        if self._scoring.measure != SCORE_MEASURE_CHOICE:
            return Answer(text)
        choices = tuple(one for template in self._choices for one in template.fill_each(values))
        if len(choices) < 2:
            raise ValueError("fewer than two choices")
        if len(set(choices)) < len(choices) or not all(choice.strip() for choice in choices):
            raise ValueError("two of its choices are equal, or one is empty")
        return Answer(text, choices, right_choice(text, choices))


def right_choice(answer: str, choices: Sequence[str]) -> int:
    """Place of the right choice: the one with the answer's text, else by its number from 0, else by its letter.

    Raises:
        ValueError: none is meant.
    """
    answer = answer.strip()
    texts = [choice.strip() for choice in choices]
    if texts.count(answer) == 1:
        return texts.index(answer)
    if answer.isdecimal() and int(answer) < len(choices):
        return int(answer)
    if len(answer) == 1 and 0 <= ord(answer.upper()) - ord("A") < len(choices):
        return ord(answer.upper()) - ord("A")
    raise ValueError(f"its answer {answer[:40]!r} is none of its choices")
