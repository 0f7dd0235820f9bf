"""A conversation as the model reads it, and which of its text the assistant writes.

Chat templates do not say where an assistant's turn begins and ends: it is found by rendering the conversation a second
time with marks in the place of what was said. The text is cut there and each part becomes tokens by itself, so that the
prompt has the very tokens that a generation would begin with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from qscope.errors import UserError
from qscope.models.prompts import THINK_CLOSE, THINK_OPEN, special_ids
from qscope.v1.generation_pb2 import THINKING_ON, PromptFormat

#: Roles of data sets in the layout of ShareGPT.
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class Segment:
    """Text of a row, all of it the assistant's or none."""

    text: str
    answer: bool


class Unusable(Exception):
    """Why a row cannot be used, in words that stand behind a count."""


def messages_of(value: object) -> list[dict[str, Any]]:
    """A column's conversation as chat templates take it: role and content as text, other keys of a turn kept.

    Raises:
        Unusable: it is none.
    """
    if not isinstance(value, list) or not value:
        raise Unusable("the conversation is no list of turns")
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping):
            raise Unusable("a turn is no object")
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if isinstance(content, list):
            if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
                raise Unusable("a turn holds something other than text")
            content = "".join(part["text"] for part in content)
        if content is None and turn.get("tool_calls"):
            content = ""
        if not isinstance(role, str) or not isinstance(content, str):
            raise Unusable("a turn has no role or no content")
        rest = {key: kept for key, kept in turn.items() if key not in ("role", "from", "content", "value")}
        # Tables give every turn every column, with nothing in most.
        rest = {key: kept for key, kept in rest.items() if kept is not None}
        turns.append({"role": _ROLES.get(role, role), "content": content, **rest})
    return turns


class ChatTemplate:
    """Renders conversations with a tokenizer's chat template, the thinking flag always given.

    Args:
        tokenizer: a Hugging Face tokenizer.
        form: system turn of conversations that have none, and thinking.
        at: field of the rows, for errors.

    Raises:
        UserError: the tokenizer has no chat template (NO_CHAT_TEMPLATE).
    """

    def __init__(self, tokenizer: Any, form: PromptFormat, *, at: str) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "The model's tokenizer has no chat template.",
                remedy="Name prompt and completion columns with format.chat: false, or an instruct model.",
                reason="NO_CHAT_TEMPLATE",
                field=at,
            )
        self._tokenizer, self._form, self._at = tokenizer, form, at
        self._special = [tokenizer.decode([index]) for index in sorted(special_ids(tokenizer))]
        self._openings = self._generation_prompts()

    def segments(self, messages: Sequence[Mapping[str, Any]]) -> list[Segment]:
        """The parts of a conversation in order; the assistant's turns end with their end token.

        What of a turn is the template's (its header, an empty think block with ``thinking: off``) is what a generation
        would be given, so it is no answer.

        Raises:
            Unusable: the template refuses the conversation.
            UserError: the template rewrites what was said (TEMPLATE_REWRITES).
        """
        turns = self._with_system(messages)
        marked = [{**turn, "content": _marked(turn["content"], index)} for index, turn in enumerate(turns)]
        whole, marked_whole = self._apply(turns), self._apply(marked)
        cuts = [0]
        end = 0
        for index, (turn, before, first, last) in enumerate(self._walk(turns, whole, marked_whole)):
            if turn["role"] != "assistant":
                continue
            assert first >= end, f"turn {index} begins inside another"
            start = max(first - len(before) + self._header_end(before), end)
            end = self._turn_end(whole, last)
            cuts += [start, end]
        cuts.append(len(whole))
        parts = [Segment(whole[a:b], bool(i % 2)) for i, (a, b) in enumerate(pairwise(cuts))]
        return [part for part in parts if part.text]

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """A conversation up to where the assistant is to write.

        Raises:
            Unusable: the template refuses it.
        """
        return self._apply(self._with_system(messages), generate=True)

    def _with_system(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        system = self._form.system and messages[0]["role"] != "system"
        return [{"role": "system", "content": self._form.system}, *messages] if system else list(messages)

    def _walk(
        self, turns: Sequence[Mapping[str, Any]], whole: str, marked: str
    ) -> Iterator[tuple[Mapping[str, Any], str, int, int]]:
        """Each turn with the template's text right before it, and where what was said in it begins and ends."""
        position = 0
        for index, turn in enumerate(turns):
            before, first = "", -1
            for mark, said in _pieces(turn["content"], index):
                scaffold, found, rest = marked.partition(mark)
                if not found:
                    # Templates leave the thinking of earlier turns out.
                    continue
                marked = rest
                if whole[position : position + len(scaffold)] != scaffold:
                    raise self._rewrites()
                position += len(scaffold)
                kept = next(
                    (one for one in (said, said.strip("\n"), said.strip()) if whole.startswith(one, position)), None
                )
                if kept is None:
                    raise self._rewrites()
                if first < 0:
                    before, first = scaffold, position
                position += len(kept)
            if first < 0:
                raise self._rewrites()
            yield turn, before, first, position

    def _header_end(self, before: str) -> int:
        """Where the answer begins in the template's text before an assistant's words."""
        for opening in self._openings:
            if opening and (found := before.rfind(opening)) >= 0:
                return found + len(opening)
        return len(before)

    def _turn_end(self, whole: str, last: int) -> int:
        """Where the end token of a turn ends, of which ``last`` is the end of what was said."""
        found = [(place, token) for token in self._special if (place := whole.find(token, last)) >= 0]
        if not found:
            return last
        place, token = min(found, key=lambda one: (one[0], -len(one[1])))
        return place + len(token)

    def _generation_prompts(self) -> list[str]:
        """What the template writes before an answer, as the thinking flag is set and then as it is not."""
        turn = [{"role": "user", "content": "Q"}]
        without = self._apply(turn)
        found = []
        for thinking in (self._thinking, not self._thinking):
            whole = self._apply(turn, generate=True, thinking=thinking)
            found.append(whole.removeprefix(without) if whole.startswith(without) else "")
        return found

    @property
    def _thinking(self) -> bool:
        return self._form.thinking == THINKING_ON

    def _apply(
        self, messages: Sequence[Mapping[str, Any]], *, generate: bool = False, thinking: bool | None = None
    ) -> str:
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=generate,
                enable_thinking=self._thinking if thinking is None else thinking,
            )
        except TemplateError as error:
            raise Unusable(f"the chat template refuses the conversation ({error})") from error

    def _rewrites(self) -> UserError:
        return UserError(
            "The model's chat template rewrites what was said, so the answer cannot be told from the template.",
            remedy="Name prompt and completion columns with format.chat: false and write the template into the prompt.",
            reason="TEMPLATE_REWRITES",
            field=self._at,
        )


def _mark(index: int, part: str) -> str:
    return f"QSCOPE{part}{index}X"


def _thought(content: str) -> tuple[str, str] | None:
    """Thinking and answer of a turn that has both in its content."""
    before, found, after = content.partition(THINK_CLOSE)
    return (before.split(THINK_OPEN)[-1], after) if found else None


def _marked(content: str, index: int) -> str:
    thought = _thought(content)
    if thought is None:
        return _mark(index, "MARK")
    # Templates ask whether there is any thinking: an empty block stays empty.
    inside = _mark(index, "THINK") if thought[0].strip() else ""
    return f"{THINK_OPEN}\n{inside}\n{THINK_CLOSE}\n\n{_mark(index, 'MARK')}"


def _pieces(content: str, index: int) -> list[tuple[str, str]]:
    """Marks of a turn and what stands in their place."""
    thought = _thought(content)
    if thought is None:
        return [(_mark(index, "MARK"), content)]
    thinking = [(_mark(index, "THINK"), thought[0])] if thought[0].strip() else []
    return [*thinking, (_mark(index, "MARK"), thought[1])]
