"""What a measure found in single responses, each with the text around it: shares cannot be looked at, these can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qscope.posttraining.answered import Answered
from qscope.posttraining.evaluating import Measured
from qscope.posttraining.repetition import MIN_LOOPS
from qscope.text.loops import find_loop

#: Characters told on each side of a place.
AROUND = 60
#: Characters told of a place itself.
_LONGEST = 400
#: Characters of one turn of a loop that is looked for in a text.
_LONGEST_TURN = 2048


def findings(answered: Sequence[Answered], measured: Measured) -> Iterator[dict[str, Any]]:
    """One record for each loop, span and wrong answer: row, sample, place in the response, text around it."""
    if measured.repeats is not None:
        for number, loop in zip(measured.repeats.looping, measured.repeats.loops, strict=True):
            unit = "tokens" if measured.repeats.by_tokens else "characters"
            places = {"start": loop.start, "period": loop.period, "repetitions": loop.repetitions, "unit": unit}
            yield {**_head("repeat", answered[number]), **places, **_turn(answered[number].response.text)}
    for row in measured.switches or ():
        for number, span in row.spans:
            text = answered[number].response.text
            yield {
                **_head("codeswitch", answered[number]),
                "expected": row.expected,
                "target": row.target,
                "script": span.script,
                "language": span.language,
                **_around(text, span.start, span.end),
            }
    if measured.accuracy is not None:
        for number in measured.accuracy.wrong:
            response = answered[number].response
            start = max(0, len(response.text) - 2 * AROUND)
            yield {
                **_head("accuracy", answered[number]),
                "answer": response.answer,
                **_around(response.text, start, len(response.text)),
            }


def _head(measure: str, one: Answered) -> dict[str, Any]:
    return {"measure": measure, "row": one.row, "sample": one.sample}


def _around(text: str, start: int, end: int) -> dict[str, Any]:
    """A place in characters, and what stands there, before and behind."""
    return {
        "start": start,
        "end": end,
        "before": text[max(0, start - AROUND) : start],
        "text": text[start : min(end, start + _LONGEST)],
        "after": text[end : end + AROUND],
    }


def _turn(text: str) -> dict[str, str]:
    """One turn of the loop a text ends in, as characters, and what led to it; else just the end of the text."""
    characters = np.array([ord(character) for character in text], dtype=np.int32)
    loop = find_loop(characters, MIN_LOOPS, max_period=_LONGEST_TURN)
    start = len(text) - 2 * AROUND if loop is None else loop.start
    end = len(text) if loop is None else loop.start + loop.period
    start = max(0, start)
    return {"before": text[max(0, start - AROUND) : start], "text": text[start : min(end, start + _LONGEST)]}
