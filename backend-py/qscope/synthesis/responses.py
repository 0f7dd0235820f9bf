"""A response for each kept prompt: help for benign ones, a refusal with a safe way for harmful ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qscope.features.chat_server import Answer, Question
from qscope.synthesis.judges import BENIGN, HARMFUL, ask_until
from qscope.synthesis.questions import refuses, response_question
from qscope.synthesis.styles import PROMPT
from qscope.synthesis.writers import Asker


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
        said = {place: _checked(risks[place], answer) for place, answer in zip(asked, answers, strict=True)}
        return [said.get(place, Response("", reason="risk unclear")) for place in places]

    return ask_until(
        len(prompts), tries, ask, lambda one: one.reason in ("", "risk unclear"), Response("", reason="empty")
    )


def _checked(risk: str, answer: Answer) -> Response:
    text = answer.text
    if not text.strip():
        return Response(risk, reason="no response")
    if answer.cut:
        # Whoever is trained on it would learn to stop there.
        return Response(risk, text, "response cut short")
    if refuses(text) != (risk == HARMFUL):
        return Response(risk, text, "response helps with harm" if risk == HARMFUL else "response refuses")
    return Response(risk, text)
