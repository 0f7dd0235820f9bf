"""The language of a row that does not say its own: the script first, then the words."""

from __future__ import annotations

from collections import Counter

import regex

from qscope.posttraining.code_switching import MIN_CONFIDENCE, MIN_LETTERS
from qscope.text.languages import language_of
from qscope.text.scripts import OTHER, SCRIPTS_OF, script_runs

_LETTER = regex.compile(r"\p{L}")
_KANA = ("Hiragana", "Katakana")


def tagged_language(text: str) -> str | None:
    """The language most of a text is written in, ISO 639-1; None where it cannot be told.

    Kana among Chinese characters make a text Japanese, Chinese characters without any make it Chinese. A script of one
    language is that language. Where languages share a script the words decide, if there are enough of them (20 letters)
    and the verdict is sure (0.8).
    """
    counts: Counter[str] = Counter()
    for run in script_runs(text):
        # Japanese is written in three scripts at once.
        counts["Han" if run.script in _KANA else run.script] += run.end - run.start
    if not counts:
        return None
    script = max(counts, key=lambda name: (counts[name], name))
    if script == OTHER:
        return None
    if script == "Han":
        return "ja" if any(run.script in _KANA for run in script_runs(text)) else "zh"
    among = sorted(code for code, scripts in SCRIPTS_OF.items() if script in scripts)
    if len(among) == 1:
        return among[0]
    if len(_LETTER.findall(text)) < MIN_LETTERS:
        return None
    language, confidence = language_of(text, among)
    return language if confidence >= MIN_CONFIDENCE else None


def known_code(name: str) -> str:
    """``zh-CN`` and ``ZH`` are ``zh``; a name that is no tag of a language we know stays as it is."""
    code = name.strip().lower().replace("_", "-").split("-")[0]
    return code if code in SCRIPTS_OF else name.strip()
