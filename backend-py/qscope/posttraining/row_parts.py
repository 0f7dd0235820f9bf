"""What the columns of a row are: a conversation, a prompt with a completion, or plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qscope.data.records import Record
from qscope.data.template import Template
from qscope.errors import UserError
from qscope.posttraining.conversations import Unusable, messages_of
from qscope.posttraining.row_language import known_code
from qscope.v1.posttraining_pb2 import TrainRows

#: Columns that are looked for where none is named, in this order.
MESSAGES = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "question", "input", "instruction", "problem", "query")
COMPLETIONS = ("completion", "response", "answer", "output", "target", "solution")
ANSWERS = ("answer", "target", "solution", "expected", "gold")
LANGUAGES = ("language", "lang", "locale")
TEXTS = ("text",)


@dataclass(frozen=True)
class RowParts:
    """Which columns are what, found once for all rows of a source.

    Attributes:
        messages: column of a conversation; empty where rows are none.
        prompt, completion: templates; None where rows have no such part.
        text: column of plain text; empty where rows are none.
        answer: template of the right answer; None where there is none.
        language: column of the language; empty where rows are tagged.
        language_given: whether that column was named rather than found.
    """

    messages: str
    prompt: Template | None
    completion: Template | None
    text: str
    answer: Template | None
    language: str
    language_given: bool

    @classmethod
    def of(cls, rows: TrainRows, first: Record, *, completions: bool, at: str) -> RowParts:
        """What the first row says of all, where the experiment does not.

        Args:
            rows: the source.
            first: its first row.
            completions: whether a prompt needs a completion, to be trained on.
            at: field of the source, for errors.

        Raises:
            UserError: no column to read (ROW_PARTS_UNKNOWN), or a malformed template (TEMPLATE_MALFORMED).
        """
        values = first.values
        asked = bool(rows.prompt or rows.completion)
        messages = rows.messages
        if not (messages or asked or rows.text):
            messages = next((name for name in MESSAGES if isinstance(values.get(name), list)), "")
        prompt = completion = None
        text = rows.text
        if not messages and not text:
            prompt = _template(rows.prompt, PROMPTS, values, at=f"{at}.prompt")
            # What is asked is not what is answered.
            taken = prompt.text[1:-1] if prompt is not None and not rows.prompt else ""
            guesses = [name for name in COMPLETIONS if name != taken]
            completion = _template(rows.completion, guesses, values, at=f"{at}.completion") if completions else None
            if prompt is None or (completions and completion is None):
                lacking = "prompt" if prompt is None else "completion"
                text = "" if asked else next((name for name in TEXTS if isinstance(values.get(name), str)), "")
                if not text:
                    raise _unknown(first, lacking, at)
                prompt = completion = None
        answer = _template(rows.answer, ANSWERS, values, at=f"{at}.answer")
        language = rows.language or next((name for name in LANGUAGES if isinstance(values.get(name), str)), "")
        return cls(messages, prompt, completion, text, answer, language, bool(rows.language))

    @property
    def shown(self) -> str:
        """The parts in words, for plans and reports."""
        if self.messages:
            return f"conversations in '{self.messages}'"
        if self.text:
            return f"text in '{self.text}'"
        assert self.prompt is not None
        return f"{self.prompt.text!r}" + (f" then {self.completion.text!r}" if self.completion is not None else "")

    def conversation(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The turns of a row of conversations.

        Raises:
            Unusable: it has none.
        """
        if values.get(self.messages) is None:
            raise Unusable(f"no column {self.messages!r} with a value")
        return messages_of(values[self.messages])

    def plain(self, values: Mapping[str, Any]) -> str:
        """The text of a row of plain text.

        Raises:
            Unusable: it has none.
        """
        found = values.get(self.text)
        if not isinstance(found, str) or not found.strip():
            raise Unusable(f"no text in column {self.text!r}")
        return found

    def language_of(self, values: Mapping[str, Any]) -> str | None:
        """The language a row gives itself; None where it gives none."""
        found = values.get(self.language) if self.language else None
        return known_code(found) if isinstance(found, str) and found.strip() else None


def filled(template: Template, values: dict[str, Any]) -> str:
    """A template's text of one row.

    Raises:
        Unusable: a column is missing, or holds no text.
    """
    try:
        return template.fill(values)
    except KeyError as error:
        raise Unusable(f"no column {error.args[0]!r} with a value") from error
    except ValueError as error:
        raise Unusable(str(error)) from error


def _template(written: str, guesses: Sequence[str], values: Mapping[str, Any], *, at: str) -> Template | None:
    if written:
        return Template(written, at=at)
    found = next((name for name in guesses if _is_cell(values.get(name))), None)
    return Template(f"{{{found}}}", at=at) if found is not None else None


def _is_cell(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _unknown(first: Record, what: str, at: str) -> UserError:
    known = ", ".join(map(str, list(first.values)[:12])) or "none"
    return UserError(
        f"{first.place}: which column holds the {what}?",
        remedy=f"Say so in '{what}', for example '{{question}}', or name a column of conversations in 'messages' or of "
        f"plain text in 'text'. Columns there: {known}.",
        reason="ROW_PARTS_UNKNOWN",
        field=f"{at}.{what}",
    )
