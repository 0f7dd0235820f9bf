"""Unicode scripts: which a language is written in, and which stand in a text.

Script properties are those of the Unicode version of `regex`. Characters common to many scripts (digits, punctuation,
blanks, emoji) have none and never count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import regex

_WRITTEN_IN = {
    "Latin": "af az bs ca cs cy da de en eo es et eu fi fr ga gl hr hu id is it la lt lv ms mt nl nn no pl pt ro sk sl"
    " sq sv sw tl tr uz vi zu",
    "Cyrillic": "be bg kk ky mk mn ru tg uk",
    "Arabic": "ar fa ps ug ur",
    "Devanagari": "hi mr ne",
    "Bengali": "as bn",
    "Armenian": "hy",
    "Ethiopic": "am",
    "Georgian": "ka",
    "Greek": "el",
    "Gujarati": "gu",
    "Gurmukhi": "pa",
    "Hangul": "ko",
    "Han": "zh",
    "Hebrew": "he",
    "Kannada": "kn",
    "Khmer": "km",
    "Lao": "lo",
    "Malayalam": "ml",
    "Myanmar": "my",
    "Oriya": "or",
    "Sinhala": "si",
    "Tamil": "ta",
    "Telugu": "te",
    "Thai": "th",
    "Hiragana": "",
    "Katakana": "",
}
#: Scripts of each language, ISO 639-1. Korean text of today is Hangul; the Han in it is a quotation or a switch.
SCRIPTS_OF: dict[str, frozenset[str]] = {
    code: frozenset([script]) for script, codes in _WRITTEN_IN.items() for code in codes.split()
} | {"ja": frozenset(["Han", "Hiragana", "Katakana"]), "sr": frozenset(["Cyrillic", "Latin"])}
#: Of a character of no script above.
OTHER = "Other"

_CHARACTER = regex.compile(
    "|".join(rf"(?P<{script}>\p{{Script={script}}}+)" for script in _WRITTEN_IN)
    + rf"|(?P<{OTHER}>[^\p{{Script=Common}}\p{{Script=Inherited}}\p{{Script=Unknown}}])"
)


@dataclass(frozen=True)
class ScriptRun:
    """Characters of one script next to each other: ``text[start:end]``."""

    start: int
    end: int
    script: str


def script_runs(text: str) -> list[ScriptRun]:
    """The scripts of a text in order; characters without one are left out."""
    return [ScriptRun(*found.span(), str(found.lastgroup)) for found in _CHARACTER.finditer(text)]


def joined_runs(text: str, runs: Iterable[ScriptRun], *, gap: int, breaks: str = "\n") -> list[ScriptRun]:
    """Runs of one script as one where at most ``gap`` characters are between, none with a script or of ``breaks``."""
    joined: list[ScriptRun] = []
    for run in runs:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.script == run.script
            and run.start - last.end <= gap
            and not any(character in breaks for character in text[last.end : run.start])
        ):
            joined[-1] = ScriptRun(last.start, run.end, run.script)
        else:
            joined.append(run)
    return joined


def share_in(text: str, scripts: Iterable[str]) -> float:
    """Share of the characters with a script that are in one of ``scripts``; 1 for a text without any."""
    wanted = frozenset(scripts)
    runs = script_runs(text)
    whole = sum(run.end - run.start for run in runs)
    return sum(run.end - run.start for run in runs if run.script in wanted) / whole if whole else 1.0


def languages_sharing(code: str, among: Sequence[str] = ()) -> tuple[str, ...]:
    """Languages with a script in common with ``code``, itself among them, sorted; of ``among`` or all in the table."""
    mine = SCRIPTS_OF[code]
    return tuple(sorted({code, *(other for other in among or SCRIPTS_OF if mine & SCRIPTS_OF[other])}))
