"""Labels from a language model: what it is asked, and how its answers are read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from qscope.v1.features_pb2 import FeatureContext

WRITER = (
    "You name features of a language model. You are shown excerpts of text in which one feature is active. The tokens "
    "on which it is active stand between << and >>. Say in one short phrase what the marked tokens, or what leads up "
    "to them, have in common. Be as specific as the excerpts allow. Answer with the phrase alone."
)
JUDGE = (
    "You are given the description of a feature of a language model, and numbered excerpts of text. For each excerpt "
    "decide whether the feature is active somewhere in it. Answer with one JSON list of 0 (not active) and 1 (active), "
    "one number for each excerpt, in their order, and nothing else."
)
#: Excerpts of one question of the judge.
EXCERPTS = 8
_LIST = re.compile(r"\[[\s01,truefals\"']*\]", re.IGNORECASE)


def writer_question(contexts: Sequence[FeatureContext], promotes: Sequence[str]) -> tuple[str, str]:
    """What is asked for a label."""
    lines = [f"{number}. {marked(context)}" for number, context in enumerate(contexts, 1)]
    if promotes:
        lines.append(f"The feature makes these tokens more likely: {', '.join(promotes)}")
    return WRITER, "\n".join(lines)


def judge_question(label: str, texts: Sequence[str]) -> tuple[str, str]:
    """What is asked of some excerpts."""
    lines = [f"{number}. {one_line(text)}" for number, text in enumerate(texts, 1)]
    return JUDGE, "\n".join([f"Feature: {label}", "", *lines])


def marked(context: FeatureContext) -> str:
    """A context as one line, with what the feature fires on between ``<<`` and ``>>``."""
    # An empty token is the beginning of a character that a later one ends: it parts nothing.
    pairs = [pair for pair in zip(context.tokens, context.activations, strict=True) if pair[0]]
    text = ""
    for fires, group in groupby(pairs, key=lambda pair: pair[1] > 0):
        part = "".join(token for token, _ in group)
        text += f"<<{part}>>" if fires else part
    return one_line(text)


def one_line(text: str) -> str:
    """Text without line breaks: an excerpt is one line of its question."""
    return " ".join(text.split())


def label_of(answer: str) -> str:
    """The label in an answer: its first line, without quotes and full stop."""
    line = next((line for line in answer.splitlines() if line.strip()), "")
    return line.strip().strip("\"'`*").strip().removesuffix(".").strip()[:300]


def verdicts(answer: str, count: int) -> list[bool | None]:
    """The judge's list; None for every excerpt when there is no list, or none of that length."""
    for text in reversed(_LIST.findall(answer)):
        try:
            values = json.loads(text.lower().replace("'", '"'))
        except ValueError:
            continue
        read = [_truth(value) for value in values]
        if len(read) == count and None not in read:
            return read
    return [None] * count


def _truth(value: Any) -> bool | None:
    if value in (0, "0", "false") or value is False:
        return False
    if value in (1, "1", "true") or value is True:
        return True
    return None
