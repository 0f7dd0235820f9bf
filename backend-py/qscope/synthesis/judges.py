"""What a language model is asked to decide; one whose answer is not understood is asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from qscope.features.chat_server import Question
from qscope.synthesis.questions import risk_question, same_question, word_of
from qscope.synthesis.writers import Asker

HARMFUL, BENIGN = "harmful", "benign"
_T = TypeVar("_T")


def judged_risks(asker: Asker, prompts: Sequence[str], tries: int) -> list[str]:
    """``harmful``, ``benign`` or empty for each prompt.

    Args:
        asker: the judge.
        prompts: what is judged.
        tries: how often an unclear judge is asked.
    """
    return _words(asker, [risk_question(prompt) for prompt in prompts], (HARMFUL, BENIGN), tries)


def judged_same(asker: Asker, pairs: Sequence[tuple[str, str]], tries: int) -> list[str]:
    """``yes``, ``no`` or empty for each prompt and its rewrite: whether both ask for the same."""
    return _words(asker, [same_question(*pair) for pair in pairs], ("yes", "no"), tries)


def _words(asker: Asker, asked: Sequence[tuple[str, str]], words: Sequence[str], tries: int) -> list[str]:
    def ask(places: Sequence[int], number: int) -> list[str]:
        answers = asker.answer_all([Question(*asked[place], number=number) for place in places])
        return [word_of(answer.text, words) for answer in answers]

    return ask_until(len(asked), tries, ask, bool, "")


def ask_until(
    count: int, tries: int, ask: Callable[[Sequence[int], int], list[_T]], good: Callable[[_T], bool], nothing: _T
) -> list[_T]:
    """Asks for all, then again for those that are not good.

    Args:
        count: how many.
        tries: times at most.
        ask: answers for some places, given which round it is, from 0.
        good: whether an answer will do.
        nothing: what stands where nobody was asked.
    """
    found = [nothing] * count
    waiting = list(range(count))
    for number in range(tries):
        if not waiting:
            break
        for place, one in zip(waiting, ask(waiting, number), strict=True):
            found[place] = one
        waiting = [place for place in waiting if not good(found[place])]
    return found
