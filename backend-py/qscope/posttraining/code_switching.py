"""Code switching: a response that leaves the language it should be in.

Two rules, the sharp one first. *Script*: any character of a script that the expected language is not written in
(Qwen-Scope equation 24; SASFT's `cs_detect.py` counts the scripts of one target language). It is blind between
languages of one script, so *sentences* of 20 letters or more are identified among the languages that share the expected
one's script; a single foreign word of the same script is found by neither.

The paper counts every character; ``PAPER`` is that. The default leaves out what is no switch (see
:class:`~.exemptions.Exemptions`), so its ratios are lower and do not compare with the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import regex

from qscope.errors import UserError
from qscope.posttraining.exemptions import BLANK, STANDARD, Exemptions, blanked, is_name, said_in
from qscope.text.languages import language_of
from qscope.text.scripts import SCRIPTS_OF, joined_runs, languages_sharing, script_runs, share_in

#: Shorter sentences, and less sure verdicts on them, say nothing.
MIN_LETTERS, MIN_CONFIDENCE = 20, 0.8
#: Characters without a script (blanks, digits, punctuation) within one run of words.
_GAP = 8

_SENTENCE = regex.compile(r".+?(?:[.!?…]+(?=\s|\Z)|[。！？]+|\Z|(?=\n))")
_LETTER = regex.compile(r"\p{L}")


@dataclass(frozen=True)
class SwitchRule:
    """What counts as a switch.

    Attributes:
        targets: only switches to these languages, codes of :func:`language_code`; empty means to any.
        sentences: sentences in another language of the same script count.
        among: codes of the languages that sentences can be in, beside the expected one and the targets; empty means all
            of the table of scripts.
        exempt: what is left out.
    """

    targets: tuple[str, ...] = ()
    sentences: bool = True
    among: tuple[str, ...] = ()
    exempt: Exemptions = STANDARD


#: The paper's measure: any character of the script, wherever it stands.
PAPER = SwitchRule(sentences=False, exempt=Exemptions(code=False, quotes=False, names=False))


@dataclass(frozen=True)
class Span:
    """Where a response is in another language: ``text[start:end]``.

    Attributes:
        start, end: its characters.
        script: of a run in another script; empty for a sentence.
        language: of a sentence in another language; empty for a run.
    """

    start: int
    end: int
    script: str = ""
    language: str = ""


@dataclass(frozen=True)
class Switching:
    """What was found in a response.

    Attributes:
        expected: language it should be in.
        spans: where it is not, in order; script runs first.
        judged: sentences long enough to be identified.
    """

    expected: str
    spans: tuple[Span, ...]
    judged: int

    @property
    def switched(self) -> bool:
        """Whether it left its language at all."""
        return bool(self.spans)


def language_code(name: str, *, at: str = "") -> str:
    """The language of a tag (``zh``, ``zh-CN``, ``PT_br``), ISO 639-1.

    Args:
        name: the tag.
        at: experiment field of it, for the error.

    Raises:
        UserError: none we know the script of (LANGUAGE_UNKNOWN).
    """
    code = name.strip().lower().replace("_", "-").split("-")[0]
    if code not in SCRIPTS_OF:
        raise UserError(
            f"The language {name!r} is not known.",
            remedy=f"Give an ISO 639-1 code of {', '.join(sorted(SCRIPTS_OF))}.",
            reason="LANGUAGE_UNKNOWN",
            field=at,
        )
    return code


def check_rule(rule: SwitchRule, expected: str, *, at: str = "") -> None:
    """Refuses a rule that could find nothing in responses of a language.

    Raises:
        UserError: a target that is the language itself (LANGUAGE_IS_TARGET), or one that only sentences could tell
            apart while they do not count (SCRIPT_SHARED).
    """
    for target in rule.targets:
        if target == expected:
            raise UserError(
                f"Responses in {expected!r} cannot switch to {target!r}.",
                remedy="Leave these responses out, or name another target.",
                reason="LANGUAGE_IS_TARGET",
                field=at,
            )
        if not SCRIPTS_OF[target] - SCRIPTS_OF[expected] and not rule.sentences:
            raise UserError(
                f"{target!r} is written in the script of {expected!r}, so scripts do not tell a switch.",
                remedy="Count sentences too, or leave these responses out.",
                reason="SCRIPT_SHARED",
                field=at,
            )


def switching(text: str, expected: str, rule: SwitchRule | None = None, *, prompt: str = "") -> Switching:
    """Where a response leaves its language.

    Args:
        text: the response.
        expected: the language it should be in, a code of :func:`language_code`.
        rule: what counts.
        prompt: what it answers; read only where ``rule.exempt.prompt`` is set.
    """
    rule = rule or SwitchRule()
    exempt = rule.exempt
    kept = blanked(text, exempt)
    runs = list(_foreign_runs(kept, expected, rule))
    sentences, judged = _foreign_sentences(kept, expected, rule)
    spans = [
        span for span in (*runs, *sentences) if not (exempt.prompt and said_in(prompt, text[span.start : span.end]))
    ]
    return Switching(expected, tuple(spans), judged)


def consistency(text: str, expected: str) -> float:
    """Share of the characters with a script that are in one of the language's, code left out; 1 without any.

    The reward of SASFT's GRPO baseline.
    """
    return share_in(blanked(text, Exemptions(quotes=False)), SCRIPTS_OF[expected])


def _foreign_runs(kept: str, expected: str, rule: SwitchRule) -> Iterator[Span]:
    """Runs in scripts that the language is not written in, or of the targets alone; names left out."""
    own = SCRIPTS_OF[expected]
    wanted = frozenset[str]().union(*(SCRIPTS_OF[target] for target in rule.targets))
    for run in joined_runs(kept, script_runs(kept), gap=_GAP, breaks="\n" + BLANK):
        if run.script in own or (rule.targets and run.script not in wanted):
            continue
        if not (rule.exempt.names and is_name(kept[run.start : run.end], run.script)):
            yield Span(run.start, run.end, script=run.script)


def _foreign_sentences(kept: str, expected: str, rule: SwitchRule) -> tuple[list[Span], int]:
    """Sentences in another language of the same script, and how many were long enough to tell."""
    among = languages_sharing(expected, rule.among and (*rule.among, *rule.targets))
    if not rule.sentences or len(among) < 2:
        return [], 0
    # What is of another script has been told already, and would mislead the classifier.
    characters = list(kept)
    for run in script_runs(kept):
        if run.script not in SCRIPTS_OF[expected]:
            characters[run.start : run.end] = BLANK * (run.end - run.start)
    found, judged = [], 0
    for match in _SENTENCE.finditer("".join(characters)):
        sentence = match.group().replace(BLANK, " ").strip()
        if len(_LETTER.findall(sentence)) < MIN_LETTERS:
            continue
        judged += 1
        language, confidence = language_of(sentence, among)
        if language == expected or confidence < MIN_CONFIDENCE or (rule.targets and language not in rule.targets):
            continue
        found.append(Span(*match.span(), language=language))
    return found, judged
