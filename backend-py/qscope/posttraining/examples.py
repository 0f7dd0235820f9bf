"""Rows as tokens: examples to train on with what of them is the answer, and prompts to be answered.

A row is left out, and counted with its reason, where nothing could be learnt from it; no row is left out silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

from qscope.data.hub import SourceName
from qscope.data.records import Fault, Layout, Record, remedy_of
from qscope.data.wanted import WantedRows
from qscope.errors import UserError
from qscope.posttraining.conversations import ChatTemplate, Segment, Unusable
from qscope.posttraining.row_language import tagged_language
from qscope.posttraining.row_parts import RowParts, filled
from qscope.v1.generation_pb2 import PromptFormat
from qscope.v1.posttraining_pb2 import TrainRows
from qscope.v1.run_pb2 import PlanSample, PlanSegment

UNREADABLE, NO_ANSWER, CUT_OFF, TOO_LONG = (
    "the row cannot be read",
    "no answer",
    "the answer is cut off by the context",
    "the prompt is longer than the context",
)


@dataclass(frozen=True)
class Example:
    """A row to train on.

    Attributes:
        ids: tokens.
        answer: which of them are trained on, each at its own index; at least one, and never the first token.
        language: given by the row, else tagged by what it answers; None where that cannot be told.
        row: number in the source, from 0, counting those left out too.
        tagged: whether the language is a verdict on the text.
        cut: whether its end was lost to the context.
    """

    ids: tuple[int, ...]
    answer: tuple[bool, ...]
    language: str | None
    row: int
    tagged: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Prompt:
    """A row to be answered.

    Attributes:
        ids: tokens, template included.
        text: those tokens as text.
        answer: the right answer; empty where the row has none.
        language: that it should be answered in: given, else that of the question; empty where it cannot be told.
        row: number in the source, from 0, counting those left out too.
        fields: the row's columns.
        asked: what was asked, without a template.
        tagged: whether the language is a verdict on the text.
    """

    ids: tuple[int, ...]
    text: str
    answer: str
    language: str
    row: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    asked: str = ""
    tagged: bool = False


Item = TypeVar("Item", Example, Prompt)


@dataclass
class Rows(Generic[Item]):
    """What was read of a source.

    Attributes:
        items: usable rows, in order.
        read: rows looked at, left out ones among them.
        left_out: reason to count.
        template: which columns are what, in words.
        given: rows by the language they give themselves.
        tagged: rows by the language their text was tagged with; the rest are untagged.
        untagged: rows of no known language.
        identity: what was read: enough to notice on resume that it has changed.
        faults: the first rows that were left out, with their places.
    """

    items: list[Item]
    read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    template: str = ""
    given: Counter[str] = field(default_factory=Counter)
    tagged: Counter[str] = field(default_factory=Counter)
    untagged: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people: rows, and why some are not among them."""
        reasons = ", ".join(f"{count:,} ({reason})" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.items):,} rows" + (f"; left out: {reasons}" if reasons else "")


Examples = Rows[Example]
Prompts = Rows[Prompt]

#: Faults that are kept for messages.
_FAULTS = 5


def read_examples(
    task_rows: TrainRows, tokenizer: Any, fmt: PromptFormat, *, context: int, at: str, tag: bool = True
) -> Examples:
    """Rows to train on.

    Conversations are rendered by the chat template, and the assistant's turns with their end tokens are the answer. Of
    a prompt with a completion that is the completion and the end token. Of plain text it is all but the first token.

    Args:
        task_rows: the source and its columns.
        tokenizer: of the model.
        fmt: how prompts with completions are rendered; thinking and the system turn of conversations.
        context: tokens of a row at most; a longer one loses its end.
        at: field of the source, for errors.
        tag: whether rows that give no language are tagged, a millisecond each.

    Raises:
        UserError: nothing readable is there, no column is found, the tokenizer has no chat template that can be used,
            or no row is left (ROWS_EMPTY).
    """
    render = _Renderer(tokenizer, fmt, at)

    def example(parts: RowParts, record: Record, number: int) -> Example:
        segments, written = render.example(parts, record.values)
        pieces = [(render.ids(part.text), part.answer) for part in segments]
        ids = list(chain.from_iterable(piece for piece, _ in pieces))
        answer = [flag for piece, flag in pieces for _ in piece]
        if answer:
            # Nothing stands before the first token to predict it from.
            answer[0] = False
        if not any(answer):
            raise Unusable(NO_ANSWER)
        last = max(index for index, flag in enumerate(answer) if flag) + 1
        end = min(last, context)
        if not any(answer[:end]):
            raise Unusable(CUT_OFF)
        given = parts.language_of(record.values)
        language = given or (tagged_language(written) if tag else None)
        tagged = given is None and language is not None
        return Example(tuple(ids[:end]), tuple(answer[:end]), language, number, tagged, end < last)

    return _read(task_rows, example, completions=True, at=at)


def read_prompts(task_rows: TrainRows, tokenizer: Any, fmt: PromptFormat, *, context: int, at: str) -> Prompts:
    """Rows to be answered; of a conversation, what stands before its last answer.

    Args:
        task_rows: the source and its columns.
        tokenizer: of the model.
        fmt: how prompts are rendered.
        context: tokens of a prompt at most; longer ones are left out.
        at: field of the source, for errors.

    Raises:
        UserError: as :func:`read_examples`.
    """
    render = _Renderer(tokenizer, fmt, at)

    def prompt(parts: RowParts, record: Record, number: int) -> Prompt:
        text, asked = render.prompt(parts, record.values)
        ids = render.ids(text)
        if len(ids) > context:
            raise Unusable(TOO_LONG)
        try:
            answer = filled(parts.answer, record.values) if parts.answer is not None else ""
        except Unusable:
            # Graders count a prompt without an answer; it is no reason not to ask.
            answer = ""
        given = parts.language_of(record.values)
        language = given or tagged_language(asked) or ""
        tagged = given is None and bool(language)
        return Prompt(tuple(ids), text, answer, language, number, record.values, asked, tagged)

    return _read(task_rows, prompt, completions=False, at=at)


def _read(
    task_rows: TrainRows, make: Callable[[RowParts, Record, int], Item], *, completions: bool, at: str
) -> Rows[Item]:
    layout = Layout(tuple(task_rows.columns), task_rows.records, at)
    wanted = WantedRows(SourceName.of(task_rows, at), layout, where=task_rows.where)
    found: Rows[Item] = Rows([], identity=wanted.identity())
    parts: RowParts | None = None
    skipped = 0
    for number, record in wanted.records():
        # Counted before they are looked at, so that `skip` of one source begins where `limit` of another ended.
        if skipped < task_rows.skip:
            skipped += 1
            continue
        if task_rows.limit and found.read == task_rows.limit:
            wanted.check_condition()
            break
        found.read += 1
        try:
            if isinstance(record, Fault):
                raise Unusable(UNREADABLE)
            if parts is None:
                parts = RowParts.of(task_rows, record, completions=completions, at=at)
                found.template = parts.shown
            item = make(parts, record, number)
        except Unusable as why:
            found.left_out[str(why)] += 1
            if len(found.faults) < _FAULTS:
                found.faults.append(record if isinstance(record, Fault) else Fault(record.place, str(why)))
            continue
        found.items.append(item)
        if not item.language:
            found.untagged += 1
        else:
            (found.tagged if item.tagged else found.given)[item.language] += 1
    if not found.items:
        raise _empty(task_rows, found, at)
    return found


def _empty(task_rows: TrainRows, found: Rows, at: str) -> UserError:
    message = f"'{task_rows.source}' has no row that can be used."
    if found.faults:
        message += f" The first of {found.read:,}: {found.faults[0].place}: {found.faults[0].why}."
    usual = "Check the source, its columns and the context."
    return UserError(message, remedy=remedy_of(found.faults, usual), reason="ROWS_EMPTY", field=f"{at}.source")


class _Renderer:
    """Rows as text, by one tokenizer and format."""

    def __init__(self, tokenizer: Any, form: PromptFormat, at: str) -> None:
        self._tokenizer, self._form, self._at = tokenizer, form, at
        self._chat: ChatTemplate | None = None

    @property
    def chat(self) -> ChatTemplate:
        # Made when it is needed: plain text does without a template.
        if self._chat is None:
            self._chat = ChatTemplate(self._tokenizer, self._form, at=self._at)
        return self._chat

    def ids(self, text: str) -> list[int]:
        # Not verbose: it would warn of rows longer than the model reads, which are cut later.
        return self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def example(self, parts: RowParts, values: dict[str, Any]) -> tuple[list[Segment], str]:
        """The segments of a row, and what is answered in it, by which its language is told."""
        if parts.messages:
            turns = parts.conversation(values)
            answers = "\n".join(turn["content"] for turn in turns if turn["role"] == "assistant")
            return self.chat.segments(turns), answers
        if parts.text:
            text = parts.plain(values)
            return [Segment(text, True)], text
        assert parts.prompt is not None
        assert parts.completion is not None
        prompt, completion = filled(parts.prompt, values), filled(parts.completion, values)
        if not completion.strip():
            raise Unusable(NO_ANSWER)
        if self._form.chat:
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
            return self.chat.segments(turns), completion
        end = self._tokenizer.eos_token or ""
        whole = completion if end and completion.endswith(end) else completion + end
        return [Segment(prompt, False), Segment(whole, True)], completion

    def prompt(self, parts: RowParts, values: dict[str, Any]) -> tuple[str, str]:
        """What the model reads, and what was asked in it."""
        if parts.messages:
            turns = parts.conversation(values)
            while turns and turns[-1]["role"] == "assistant":
                turns.pop()
            if not turns:
                raise Unusable("no turn of a user")
            asked = "\n".join(turn["content"] for turn in turns if turn["role"] == "user")
            return self.chat.prompt(turns), asked
        text = parts.plain(values) if parts.text else filled(parts.prompt, values) if parts.prompt else ""
        if not text.strip():
            raise Unusable("the prompt is empty")
        chat = self._form.chat and not parts.text
        return (self.chat.prompt([{"role": "user", "content": text}]) if chat else text), text


def samples(items: Iterable[Example | Prompt], tokenizer: Any, count: int = 3) -> list[PlanSample]:
    """The first rows for a plan: their tokens as text, parted where the answer begins and ends."""
    found = []
    for item, _ in zip(items, range(count), strict=False):
        answer: Sequence[bool] = item.answer if isinstance(item, Example) else (False,) * len(item.ids)
        sample = PlanSample(tokens=len(item.ids), answer_tokens=sum(answer), language=item.language or "", row=item.row)
        begin = 0
        for end in range(1, len(item.ids) + 1):
            if end == len(item.ids) or answer[end] != answer[begin]:
                text = tokenizer.decode(item.ids[begin:end], skip_special_tokens=False)
                sample.segments.append(PlanSegment(text=text, answer=answer[begin]))
                begin = end
        if isinstance(item, Prompt):
            sample.right_answer = item.answer
        found.append(sample)
    return found
