"""Shares of responses that loop, switch or are right, with intervals: the same for trainers and for saved outputs.

Intervals take responses as independent. Several samples of one prompt are not quite, so theirs are somewhat too narrow.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qscope.errors import UserError
from qscope.features.intervals import NOTHING, Interval, needed_per_arm, wilson
from qscope.posttraining.accuracy import Check
from qscope.posttraining.code_switching import Span, SwitchRule, check_rule, language_code, switching
from qscope.posttraining.graders import Response
from qscope.posttraining.repetition import repetition_of, repetition_of_text
from qscope.text.loops import Loop


@dataclass(frozen=True)
class Repeats:
    """Repetition of some responses.

    Attributes:
        by_tokens: measured over tokens; else over characters, which does not compare.
        endless: share that was cut off in a loop.
        cut_off: share that ended at its limit, looping or not: the most that could be endless.
        repeated_3grams: mean share of 3-grams that occurred before, over responses; NaN without tokens.
        repeated_3grams_sd: their standard deviation; NaN with fewer than two.
        looping: numbers of the endless responses.
        loops: the loops they end in, in the same order; places are tokens, or characters.
    """

    by_tokens: bool
    endless: Interval
    cut_off: Interval
    repeated_3grams: float
    repeated_3grams_sd: float
    looping: tuple[int, ...]
    loops: tuple[Loop, ...] = ()


def repeats(responses: Sequence[Response], *, cut_off_known: bool = True, at: str = "") -> Repeats:
    """Repetition of responses, over tokens where they have them.

    Args:
        responses: what is measured.
        cut_off_known: ``truncated`` says something. Where it does not, every response that loops to its very end is
            endless, and the share that was cut off is not measured.
        at: experiment field of the tokens, for errors.

    Raises:
        UserError: some have tokens and some only text (TOKENS_MISSING).
    """
    with_ids = [bool(response.ids) or not response.text for response in responses]
    by_tokens = all(with_ids)
    if not by_tokens and any(response.ids for response in responses):
        raise UserError(
            f"{with_ids.count(False):,} of {len(responses):,} responses have no tokens.",
            remedy="Give the token ids of all responses, or of none: loops of tokens and of characters do not compare.",
            reason="TOKENS_MISSING",
            field=at,
        )
    found = []
    for response in responses:
        truncated = response.truncated or not cut_off_known
        found.append(
            repetition_of(response.ids, truncated=truncated)
            if by_tokens
            else repetition_of_text(response.text, truncated=truncated, anywhere=cut_off_known)
        )
    shares = [one.repeated_3grams for one in found if one.repeated_3grams is not None]
    looping = {number: one.loop for number, one in enumerate(found) if one.endless and one.loop is not None}
    n = len(responses)
    return Repeats(
        by_tokens,
        wilson(len(looping), n),
        wilson(sum(response.truncated for response in responses), n) if cut_off_known else NOTHING,
        statistics.fmean(shares) if shares else math.nan,
        statistics.stdev(shares) if len(shares) > 1 else math.nan,
        tuple(looping),
        tuple(looping.values()),
    )


@dataclass(frozen=True)
class Switches:
    """Code switching of the responses that should be in one language.

    Attributes:
        expected: that language.
        target: the language switched to; empty for any.
        ratio: share of the responses that switch.
        spans: number of the response, and where; in order.
    """

    expected: str
    target: str
    ratio: Interval
    spans: tuple[tuple[int, Span], ...]

    @property
    def switched(self) -> int:
        """How many of the responses switch."""
        return len({number for number, _ in self.spans})


def switches(responses: Sequence[Response], rule: SwitchRule, *, at: str = "") -> list[Switches]:
    """Code switching by expected language, and by target where the rule names some: one row for each pair.

    Responses whose language is a target of its own are no row; those without a language are none either.

    Raises:
        UserError: a language that is not known, or a pair that the rule cannot tell apart.
    """
    by_language: dict[str, list[int]] = {}
    for number, response in enumerate(responses):
        if response.language:
            by_language.setdefault(language_code(response.language, at=at), []).append(number)
    rows = []
    for expected, numbers in sorted(by_language.items()):
        for target in rule.targets or ("",):
            if target == expected:
                continue
            alone = replace(rule, targets=(target,) if target else ())
            check_rule(alone, expected, at=at)
            found = [
                (number, switching(responses[number].text, expected, alone, prompt=responses[number].prompt))
                for number in numbers
            ]
            spans = tuple((number, span) for number, one in found for span in one.spans)
            rows.append(Switches(expected, target, wilson(sum(one.switched for _, one in found), len(found)), spans))
    return rows


def micro_average(rows: Sequence[Switches]) -> list[Switches]:
    """One row for each target of :func:`switches`, over all its expected languages: every response counts the same."""
    targets = dict.fromkeys(row.target for row in rows)
    pooled = []
    for target in targets:
        mine = [row for row in rows if row.target == target]
        spans = sorted((one for row in mine for one in row.spans), key=lambda one: one[0])
        ratio = wilson(sum(row.switched for row in mine), sum(row.ratio.n for row in mine))
        pooled.append(Switches("", target, ratio, tuple(spans)))
    return pooled


def accuracy(responses: Sequence[Response], check: Check) -> Interval:
    """Share of the responses that are right, of those whose right answer is known."""
    known = [response for response in responses if response.answer.strip()]
    return wilson(sum(check(response.text, response.answer) for response in known), len(known))


def power_note(share: Interval, *, fall: float = 0.7) -> str:
    """How many responses an arm takes to show that a share falls, in one sentence.

    Args:
        share: what was measured.
        fall: part of it that a change is hoped to remove, above 0 and at most 1.
    """
    if not share.n:
        return "There are no responses to measure."
    if share.value == 0:
        return f"None of {share.n:,}: any share below {share.high:.2%} may look like this, so a fall cannot be shown."
    needed = needed_per_arm(share.value, share.value * (1 - fall))
    enough = "enough" if share.n >= needed else "too few"
    return (
        f"To show that {share.value:.2%} falls by {fall:.0%} takes {needed:,} responses an arm "
        f"(5 %, two-sided, found 80 times of 100); {share.n:,} are {enough}."
    )
