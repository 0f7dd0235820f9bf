"""A response for each kept prompt: help for benign ones, a refusal with a safe way for harmful ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from qscope.features.chat_server import Question
from qscope.synthesis.questions import refuses, response_question, risk_question, word_of
from qscope.synthesis.styles import PROMPT
from qscope.synthesis.writers import Asker

HARMFUL, BENIGN = "harmful", "benign"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Response:
    """The answer to one prompt.

    Attributes:
        risk: ``harmful`` or ``benign``; empty where the judge did not say.
        text: the response; empty where none is wanted.
        reason: why there is none; empty where all is well.
    """

    risk: str
    text: str = ""
    reason: str = ""


def judged_risks(asker: Asker, prompts: Sequence[str], tries: int) -> list[str]:
    """``harmful``, ``benign`` or empty for each prompt.

    Args:
        asker: the judge.
        prompts: what is judged.
        tries: how often an unclear judge is asked.
    """

    def ask(places: Sequence[int], number: int) -> list[str]:
        answers = asker.answer_all([Question(*risk_question(prompts[place]), number=number) for place in places])
        return [word_of(answer.text, (HARMFUL, BENIGN)) for answer in answers]

    return _until(len(prompts), tries, ask, bool, "")


def fixed_responses(prompts: Sequence[str], risks: Sequence[str], *, refusal: str, help_text: str) -> list[Response]:
    """A fixed text for each risk; ``{prompt}`` in the help stands for the prompt."""
    texts = {HARMFUL: lambda prompt: refusal, BENIGN: lambda prompt: help_text.replace(PROMPT, prompt)}
    return [
        Response(risk, texts[risk](prompt)) if risk else Response("", reason="risk unclear")
        for prompt, risk in zip(prompts, risks, strict=True)
    ]


def written_responses(asker: Asker, prompts: Sequence[str], risks: Sequence[str], tries: int) -> list[Response]:
    """Responses of a language model; those that refuse where they should help, or help where they should refuse, are
    asked for again."""

    def ask(places: Sequence[int], number: int) -> list[Response]:
        asked = [place for place in places if risks[place]]
        answers = asker.answer_all(
            [Question(*response_question(prompts[place], risks[place] == HARMFUL), number=number) for place in asked]
        )
        said = {place: _checked(risks[place], answer.text) for place, answer in zip(asked, answers, strict=True)}
        return [said.get(place, Response("", reason="risk unclear")) for place in places]

    return _until(
        len(prompts), tries, ask, lambda one: one.reason in ("", "risk unclear"), Response("", reason="empty")
    )


def _checked(risk: str, text: str) -> Response:
    if not text.strip():
        return Response(risk, reason="no response")
    if refuses(text) != (risk == HARMFUL):
        return Response(risk, text, "response helps with harm" if risk == HARMFUL else "response refuses")
    return Response(risk, text)


def _until(
    count: int, tries: int, ask: Callable[[Sequence[int], int], list[_T]], good: Callable[[_T], bool], nothing: _T
) -> list[_T]:
    """Asks for all, then again for those that are not good, so many times at most."""
    found = [nothing] * count
    waiting = list(range(count))
    for number in range(tries):
        if not waiting:
            break
        for place, one in zip(waiting, ask(waiting, number), strict=True):
            found[place] = one
        waiting = [place for place in waiting if not good(found[place])]
    return found
