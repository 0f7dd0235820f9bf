"""What a set of responses does, by the measures of an experiment; and what could not be measured on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from qscope.errors import UserError
from qscope.features.intervals import Interval, wilson
from qscope.posttraining.accuracy import check_of
from qscope.posttraining.code_switching import PAPER, SwitchRule, check_rule, language_code
from qscope.posttraining.exemptions import Exemptions
from qscope.posttraining.grader_pool import GraderPool
from qscope.posttraining.graders import Grader, Response
from qscope.posttraining.measures import Repeats, Switches, micro_average, repeats, switches
from qscope.v1.eval_pb2 import (
    RESPONSE_MEASURE_ACCURACY,
    RESPONSE_MEASURE_CODESWITCH,
    RESPONSE_MEASURE_REPEAT,
    EvalResponses,
    SwitchDetection,
)

#: Rules that somebody else's code decides by: it may hang, so it runs in processes of its own.
_GUARDED = ("pattern", "math")


@dataclass(frozen=True)
class Accuracy:
    """Right answers.

    Attributes:
        rule: by which answers are compared.
        share: of the responses that were graded.
        wrong: numbers of the responses that are not right.
        unknown: responses to which no right answer is known.
        ungraded: responses that could not be graded, by reason.
    """

    rule: str
    share: Interval
    wrong: tuple[int, ...]
    unknown: int
    ungraded: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Measured:
    """What was asked for, None where it was not.

    Attributes:
        n: responses.
        repeats: endless repetition.
        switches: code switching by language and target.
        micro: the same over all languages, by target.
        no_language: responses without a language, which cannot switch.
        accuracy: right answers.
    """

    n: int
    repeats: Repeats | None = None
    switches: tuple[Switches, ...] | None = None
    micro: tuple[Switches, ...] = ()
    no_language: int = 0
    accuracy: Accuracy | None = None


def switch_rule(detection: SwitchDetection, *, at: str) -> SwitchRule:
    """The rule of an experiment.

    Raises:
        UserError: a target that is not known (LANGUAGE_UNKNOWN).
    """
    targets = tuple(
        dict.fromkeys(
            language_code(name, at=f"{at}.targets[{number}]") for number, name in enumerate(detection.targets)
        )
    )
    if detection.paper:
        exempt = Exemptions(
            False, False, False, prompt=detection.ignore_prompt, words=tuple(dict.fromkeys(detection.words))
        )
        return SwitchRule(targets, PAPER.sentences, exempt=exempt)
    exempt = Exemptions(prompt=detection.ignore_prompt, words=tuple(dict.fromkeys(detection.words)))
    return SwitchRule(targets, exempt=exempt)


@dataclass(frozen=True)
class Places:
    """Experiment fields of what a measure needs: of saved responses or of prompts."""

    task: str
    rows: str


def refuse_unmeasurable(task: EvalResponses, languages: Iterable[str], answers: Iterable[str], places: Places) -> None:
    """Refuses what could not be measured, before anything is generated for it.

    Args:
        task: what is measured.
        languages: language of every row, empty where it is not known.
        answers: right answer of every row, empty where it is not known.
        places: fields, for errors.

    Raises:
        UserError: no row has a language (LANGUAGE_MISSING), one is not known (LANGUAGE_UNKNOWN), scripts do not tell a
            pair apart (SCRIPT_SHARED), all are in the only target (LANGUAGE_IS_TARGET); no row has a right answer
            (ANSWER_MISSING), or the rule cannot work (see :func:`~.accuracy.check_of`).
    """
    if RESPONSE_MEASURE_CODESWITCH in task.measures:
        _refuse_languages(task, Counter(filter(None, languages)), places)
    if RESPONSE_MEASURE_ACCURACY in task.measures:
        check_of(task.rule, pattern=task.pattern, at=_rule_field(task, places))
        if not any(answer.strip() for answer in answers):
            raise UserError(
                "No row has a right answer, so none can be right.",
                remedy=f"Name its column in '{places.rows}.answer'.",
                reason="ANSWER_MISSING",
                field=f"{places.rows}.answer",
            )


def _refuse_languages(task: EvalResponses, languages: Counter[str], places: Places) -> None:
    at = f"{places.task}.codeswitch"
    rule = switch_rule(task.codeswitch, at=at)
    if not languages:
        raise UserError(
            "No row says which language its response should be in.",
            remedy=f"Name the column of the language in '{places.rows}.language'.",
            reason="LANGUAGE_MISSING",
            field=f"{places.rows}.language",
        )
    codes = {_code(name, count, places) for name, count in languages.items()}
    if len(codes) == 1 and codes == set(rule.targets):
        raise UserError(
            f"All {languages.total():,} rows are in {rule.targets[0]!r}, the only target: none can switch to it.",
            remedy="Name another target, or rows in other languages.",
            reason="LANGUAGE_IS_TARGET",
            field=f"{at}.targets",
        )
    for code in sorted(codes):
        others = tuple(target for target in rule.targets if target != code)
        check_rule(SwitchRule(others, rule.sentences), code, at=f"{at}.paper" if task.codeswitch.paper else at)


def _code(name: str, rows: int, places: Places) -> str:
    """The language of some rows; what is none can be left out, which a remedy for one name does not say."""
    field = f"{places.rows}.language"
    try:
        return language_code(name, at=field)
    except UserError as error:
        raise UserError(
            f"{rows:,} rows are in {name!r}, which is no language that is known.",
            remedy=f"Leave them out with '{places.rows}.where', for example language!={name}. {error.remedy}",
            reason=error.reason,
            field=field,
        ) from error


def measure(
    responses: Sequence[Response],
    task: EvalResponses,
    places: Places,
    *,
    cut_off_known: bool = True,
    should_stop: Callable[[], bool] = lambda: False,
) -> Measured:
    """Measures responses.

    Args:
        responses: what is measured.
        task: how.
        places: fields, for errors.
        cut_off_known: see :func:`~.measures.repeats`.
        should_stop: asked while answers are graded.

    Raises:
        UserError: see :func:`refuse_unmeasurable`; or some responses have tokens and others none (TOKENS_MISSING).
        Stopped: when asked to stop.
    """
    found, rows, micro, right = None, None, (), None
    if RESPONSE_MEASURE_REPEAT in task.measures:
        found = repeats(responses, cut_off_known=cut_off_known, at=f"{places.rows}.ids")
    if RESPONSE_MEASURE_CODESWITCH in task.measures:
        rule = switch_rule(task.codeswitch, at=f"{places.task}.codeswitch")
        rows = tuple(switches(responses, rule, at=f"{places.rows}.language"))
        micro = tuple(micro_average(rows))
    if RESPONSE_MEASURE_ACCURACY in task.measures:
        right = _accuracy(responses, task, places, should_stop)
    without = sum(not response.language for response in responses)
    return Measured(len(responses), found, rows, micro, without if rows is not None else 0, right)


def _accuracy(
    responses: Sequence[Response], task: EvalResponses, places: Places, should_stop: Callable[[], bool]
) -> Accuracy:
    known = [number for number, response in enumerate(responses) if response.answer.strip()]
    check = check_of(task.rule, pattern=task.pattern, at=_rule_field(task, places))
    ungraded: Counter[str] = Counter()
    verdicts: dict[int, bool] = {}
    if task.rule in _GUARDED:
        grader = Grader("answer", "answer", rule=task.rule, pattern=task.pattern)
        with GraderPool([grader]) as pool:
            grades = pool.grade([responses[number] for number in known], should_stop=should_stop)
        for number, (grade,) in zip(known, grades, strict=True):
            if grade.value is None:
                ungraded[grade.reason] += 1
            else:
                verdicts[number] = bool(grade.value)
    else:
        verdicts = {number: check(responses[number].text, responses[number].answer) for number in known}
    return Accuracy(
        task.rule,
        wilson(sum(verdicts.values()), len(verdicts)),
        tuple(number for number, right in verdicts.items() if not right),
        len(responses) - len(known),
        ungraded,
    )


def _rule_field(task: EvalResponses, places: Places) -> str:
    return f"{places.task}.{'pattern' if task.rule == 'pattern' else 'rule'}"
