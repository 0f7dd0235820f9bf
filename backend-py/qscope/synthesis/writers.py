"""Who writes: templates, a chat server, or a model on this machine. All of them are handed the same briefs."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qscope.data.template import Template
from qscope.errors import UserError
from qscope.features.chat_server import Answer, Question
from qscope.synthesis.questions import rewriting_question, untargeted_question, writing_question, written_text
from qscope.synthesis.styles import Style
from qscope.synthesis.targets import Target
from qscope.v1.features_pb2 import FeatureContext

_FAILURES_SHOWN = 3
_TOKENS_NAMED = 5


@dataclass(frozen=True)
class Brief:
    """One text to be written.

    Attributes:
        slot: name of the place it is for.
        number: which of the texts of its target.
        attempt: tries before this one.
        target: the feature that must fire; None for a text without a target.
        contexts: excerpts to go by.
        failures: earlier texts for this place that did not do.
        style, parent: of a rewrite, its style and what is rewritten.
    """

    slot: str
    number: int
    attempt: int
    target: Target | None
    contexts: tuple[FeatureContext, ...] = field(default=(), compare=False)
    failures: tuple[str, ...] = ()
    style: Style | None = None
    parent: str = ""


#: Reasons why there is no text, and why the one there is will not do. After the first no other try will do better.
NO_MATERIAL, UNFILLED, FAILED, CUT = "no material", "template unfilled", "writer failed", "cut short"


@dataclass(frozen=True)
class Draft:
    """What came of a brief.

    Attributes:
        text: what was written; empty where nothing was.
        reason: :data:`NO_MATERIAL`, :data:`UNFILLED`, :data:`FAILED` or :data:`CUT`; empty for a text that may do.
        detail: more of it.
    """

    text: str
    reason: str = ""
    detail: str = ""


_EXHAUSTED = Draft("", NO_MATERIAL, "nothing else to try")


class Writer(Protocol):
    """Writes texts.

    Attributes:
        at_once: briefs that are best handed over together.
    """

    at_once: int

    def write(self, briefs: Sequence[Brief]) -> list[Draft]:
        """One draft for each brief, in their order.

        Raises:
            UserError: nothing can be written at all.
            Stopped: when asked to stop.
        """
        ...


class Asker(Protocol):
    """A language model that answers questions: a chat server, or one on this machine."""

    def answer_all(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers in the order of the questions."""
        ...


class AskingWriter:
    """Asks a language model for each text.

    Args:
        asker: the model.
        purpose: what is written.
        attempts: tries at most for one place.
        shown: contexts shown.
        at_once: questions handed over together.
    """

    def __init__(self, asker: Asker, *, purpose: str, attempts: int, shown: int, at_once: int) -> None:
        self._asker, self._purpose, self._attempts, self._shown = asker, purpose, attempts, shown
        self.at_once = at_once

    def question(self, brief: Brief) -> Question:
        """What is asked for one text."""
        # Every text of a feature begins with another excerpt.
        first = brief.number % max(1, len(brief.contexts))
        shown = [*brief.contexts[first:], *brief.contexts[:first]][: self._shown]
        failures = brief.failures[-_FAILURES_SHOWN:]
        label = brief.target.label if brief.target else ""
        if brief.style is not None:
            words = rewriting_question(brief.style.instruction, brief.parent, label, shown, failures)
        elif brief.target is None:
            words = untargeted_question(self._purpose, shown)
        else:
            words = writing_question(self._purpose, label, shown, failures)
        return Question(*words, number=brief.number * self._attempts + brief.attempt)

    def write(self, briefs: Sequence[Brief]) -> list[Draft]:
        """See :class:`Writer`."""
        answers = self._asker.answer_all([self.question(brief) for brief in briefs])
        return [_draft_of(answer) for answer in answers]


def _draft_of(answer: Answer) -> Draft:
    if answer.fault:
        return Draft("", FAILED, answer.fault)
    return Draft(written_text(answer.text), CUT if answer.cut else "")


#: What a template may name.
COLUMNS = ("context", "before", "token", "tokens", "label")


class TemplateWriter:
    """Fills templates from the contexts of a feature; every try takes another template or another context.

    Args:
        templates: text with the names of :data:`COLUMNS` in braces.
        per_feature: texts of each feature.
        at: experiment field of the templates, for errors.

    Raises:
        UserError: a malformed template (TEMPLATE_MALFORMED), or one that names something else (TEMPLATE_COLUMN).
    """

    at_once = 256

    def __init__(self, templates: Sequence[str], *, per_feature: int, at: str) -> None:
        self._templates = [Template(text, at=f"{at}[{index}]") for index, text in enumerate(templates)]
        self._per_feature = per_feature
        for index, text in enumerate(templates):
            names = {name for _, name, _, _ in string.Formatter().parse(text) if name}
            if unknown := sorted(names - set(COLUMNS)):
                raise UserError(
                    f"The template {text!r} names {unknown[0]!r}, which no feature has.",
                    remedy=f"Templates may name {', '.join(COLUMNS)}.",
                    reason="TEMPLATE_COLUMN",
                    field=f"{at}[{index}]",
                )

    def write(self, briefs: Sequence[Brief]) -> list[Draft]:
        """See :class:`Writer`."""
        return [self._draft(brief) for brief in briefs]

    def _draft(self, brief: Brief) -> Draft:
        if brief.style is not None:
            # A frame is what it is: another try would be the same text.
            return Draft(brief.style.framed(brief.parent)) if brief.attempt == 0 else _EXHAUSTED
        turn = brief.number + brief.attempt * self._per_feature if brief.target else brief.attempt
        if turn >= len(self._templates) * max(1, len(brief.contexts)):
            return _EXHAUSTED
        context = brief.contexts[turn // len(self._templates)] if brief.contexts else None
        values = _columns(context, brief)
        # A random text takes its templates in turn, as those of the targets do.
        chosen = self._templates[(turn if brief.target else brief.number + turn) % len(self._templates)]
        try:
            return Draft(chosen.fill(values).strip())
        except KeyError as missing:
            return Draft("", UNFILLED, f"the feature has no {missing.args[0]}")


def _columns(context: FeatureContext | None, brief: Brief) -> dict[str, str | None]:
    named = list(dict.fromkeys(one.tokens[one.peak].strip() for one in brief.contexts if one.tokens))
    tokens = [token for token in named if token and "\ufffd" not in token][:_TOKENS_NAMED]
    label = brief.target.label if brief.target else ""
    if context is None:
        return {"label": label or None, "context": None, "before": None, "token": None, "tokens": None}
    return {
        "context": context.text.strip(),
        "before": "".join(context.tokens[: context.peak + 1]).strip(),
        "token": context.tokens[context.peak].strip() or None,
        "tokens": ", ".join(tokens) or None,
        "label": label or None,
    }


#: Continues beginnings: ``(beginnings as token ids, targets, names) -> texts``; names decide the random numbers.
Continue = Callable[[Sequence[Sequence[int]], Sequence[Target | None], Sequence[str]], list[str]]


class ContinuingWriter:
    """Has a model go on from the beginning of a context, where the feature is about to fire; for models that follow no
    instructions.

    Args:
        go_on: the model.
        tokenizer: its tokenizer.
        start_tokens: tokens before the peak that a text begins with.
        at_once: texts written side by side.
    """

    def __init__(self, go_on: Continue, tokenizer: object, *, start_tokens: int, at_once: int) -> None:
        self._go_on, self._tokenizer, self._start_tokens = go_on, tokenizer, start_tokens
        self.at_once = at_once

    def write(self, briefs: Sequence[Brief]) -> list[Draft]:
        """See :class:`Writer`."""
        drafts: list[Draft | None] = [None] * len(briefs)
        waiting: list[int] = []
        starts: list[list[int]] = []
        for index, brief in enumerate(briefs):
            if brief.style is not None:
                framed = brief.style.framed(brief.parent)
                drafts[index] = Draft(framed) if brief.attempt == 0 else _EXHAUSTED
            elif not brief.contexts:
                drafts[index] = Draft("", NO_MATERIAL, "the feature has no context")
            else:
                context = brief.contexts[(brief.number + brief.attempt) % len(brief.contexts)]
                start = "".join(context.tokens[max(0, context.peak - self._start_tokens) : context.peak]).lstrip()
                # A context may begin with its peak: then that is what there is to go on from.
                ids = self._tokenizer(start or context.tokens[context.peak], add_special_tokens=False)["input_ids"]
                starts.append(ids)
                waiting.append(index)
        texts = self._go_on(
            starts,
            [briefs[index].target for index in waiting],
            [f"{briefs[i].slot}/{briefs[i].attempt}" for i in waiting],
        )
        for index, text in zip(waiting, texts, strict=True):
            drafts[index] = Draft(text.strip())
        assert all(drafts), "every brief has its draft"
        return drafts
