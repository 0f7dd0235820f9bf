"""Rows whose answer leaves its language, for the arm that trains without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qscope.posttraining.code_switching import SwitchRule, switching
from qscope.posttraining.examples import Example
from qscope.text.scripts import SCRIPTS_OF


@dataclass(frozen=True)
class Filtered:
    """What is left.

    Attributes:
        kept: rows without a switch, those in a target language, and those whose language nobody knows.
        dropped: rows with one, by language.
        unjudged: rows whose language is not known.
    """

    kept: list[Example]
    dropped: Counter[str]
    unjudged: int


def without_switches(rows: Sequence[Example], tokenizer: Any, targets: Sequence[str]) -> Filtered:
    """Leaves out rows whose answer switches to a target language, by the detector of ``qscope eval codeswitch``.

    Args:
        rows: examples; the answer is their tokens as text.
        tokenizer: of the model.
        targets: languages, ISO 639-1.
    """
    kept, dropped, unjudged = [], Counter[str](), 0
    for row in rows:
        others = tuple(target for target in targets if target != row.language)
        if row.language not in SCRIPTS_OF:
            unjudged += 1
            kept.append(row)
            continue
        answer = [token for token, flag in zip(row.ids, row.answer, strict=True) if flag]
        text = tokenizer.decode(answer, skip_special_tokens=True)
        if others and switching(text, row.language, SwitchRule(targets=others)).switched:
            dropped[row.language] += 1
        else:
            kept.append(row)
    return Filtered(kept, dropped, unjudged)
