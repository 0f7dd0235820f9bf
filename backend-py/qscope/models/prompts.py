"""Prompts to tokens: plain text or one turn in the model's chat template, with what each token is.

The thinking flag is always passed: the defaults of Qwen3 and Qwen3.5 differ from size to size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qscope.errors import UserError
from qscope.v1 import generation_pb2

#: Flags of `Prompt.flags_T` and of generated tokens.
SPECIAL, TEMPLATE, THINK, ANSWER = 1, 2, 4, 8

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Prompt:
    """One row before generation.

    Attributes:
        text: the whole text that the model reads, template included.
        ids_T: token ids.
        flags_T: SPECIAL | TEMPLATE | THINK of each token, uint8.
        thinking_open: the prompt ends inside a think block.
        written: what the user wrote of it.
    """

    text: str
    ids_T: np.ndarray
    flags_T: np.ndarray
    thinking_open: bool = False
    written: str = ""

    def __len__(self) -> int:
        return len(self.ids_T)


def special_ids(tokenizer: Any) -> set[int]:
    """Ids that stand for no text: every token the tokenizer marks as special."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return set(tokenizer.all_special_ids) | {index for index, token in added.items() if token.special}


def render_prompt(tokenizer: Any, text: str, form: generation_pb2.PromptFormat, *, at: str = "") -> Prompt:
    """One prompt as the model reads it.

    Args:
        tokenizer: a Hugging Face tokenizer.
        text: what the user wrote.
        form: chat or plain, system turn, thinking.
        at: field of the text, for errors.

    Raises:
        UserError: nothing to read (PROMPT_EMPTY), no chat template (NO_CHAT_TEMPLATE), or one that rewrites the prompt
            (TEMPLATE_REWRITES).
    """
    if not text.strip():
        raise UserError(
            "The prompt is empty.",
            remedy="Write at least one word: a model continues text.",
            reason="PROMPT_EMPTY",
            field=at,
        )
    whole, written = _with_template(tokenizer, text, form, at) if form.chat else (text, [(0, len(text))])
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids_T = np.asarray(encoded["input_ids"], dtype=np.int64)
    flags_T, inside = _flags(tokenizer, ids_T)
    for index, (start, end) in enumerate(encoded["offset_mapping"]):
        # A token that joins template and content belongs to what was written.
        if not any(start < last and end > first for first, last in written):
            flags_T[index] |= TEMPLATE
    return Prompt(whole, ids_T, flags_T, inside, text)


def prompt_of_ids(tokenizer: Any, ids: Sequence[int]) -> Prompt:
    """A prompt that comes as token ids, without a template: what is special and what is thought is told from the ids.

    Args:
        tokenizer: a Hugging Face tokenizer.
        ids: at least one; the prompt's text stays empty.
    """
    ids_T = np.asarray(ids, dtype=np.int64)
    flags_T, inside = _flags(tokenizer, ids_T)
    return Prompt("", ids_T, flags_T, inside)


def _flags(tokenizer: Any, ids_T: np.ndarray) -> tuple[np.ndarray, bool]:
    """SPECIAL | THINK of each token, and whether a think block stays open."""
    flags_T = np.zeros(len(ids_T), dtype=np.uint8)
    flags_T[np.isin(ids_T, sorted(special_ids(tokenizer)))] |= SPECIAL
    return flags_T, mark_thinking(tokenizer, ids_T, flags_T, False)


def mark_thinking(tokenizer: Any, ids_T: np.ndarray, flags_T: np.ndarray, inside: bool) -> bool:
    """Sets THINK on the tokens between the think tags (tags excluded), in place; returns whether a block stays open."""
    opening, closing = think_ids(tokenizer)
    if opening is None:
        return False
    for index, token in enumerate(ids_T):
        if token == closing:
            inside = False
        elif token == opening:
            inside = True
        elif inside:
            flags_T[index] |= THINK
    return inside


def thinking_of(ids_T: np.ndarray, opening: int, closing: int) -> np.ndarray:
    """Which tokens of a finished text are thinking, the tags included, bool.

    A text whose first tag closes began inside thinking: responses are often stored without the opening tag, which the
    template wrote. Any other closing tag without an opening one is nothing but itself.

    Args:
        ids_T: token ids.
        opening, closing: ids of the tags.
    """
    opens_T, closes_T = ids_T == opening, ids_T == closing
    count_T = np.cumsum(opens_T.astype(np.int64) - closes_T)
    depth_T = count_T - np.minimum(np.minimum.accumulate(count_T), 0)
    thinking_T = (depth_T > 0) | closes_T
    tags = np.flatnonzero(opens_T | closes_T)
    if len(tags) and closes_T[tags[0]]:
        thinking_T[: tags[0]] = True
    return thinking_T


def think_ids(tokenizer: Any) -> tuple[int | None, int | None]:
    """Ids of the tags around thinking; None for tokenizers that have no such tokens."""
    vocabulary = tokenizer.get_added_vocab()
    return vocabulary.get(THINK_OPEN), vocabulary.get(THINK_CLOSE)


def _with_template(
    tokenizer: Any, text: str, form: generation_pb2.PromptFormat, at: str
) -> tuple[str, list[tuple[int, int]]]:
    """The chat prompt and the spans of characters in it that a person wrote."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "The model's tokenizer has no chat template.",
            remedy="Set chat: false, or name an instruct model.",
            reason="NO_CHAT_TEMPLATE",
            field=at,
        )
    contents = [*([form.system] if form.system else []), text]
    whole = _apply(tokenizer, contents, form)
    # Rendered once more with marks in the place of what was written: a search for the text itself would also find it
    # inside the template ("user", "assistant").
    marks = [f"QSCOPEMARK{index}X" for index in range(len(contents))]
    rest = _apply(tokenizer, marks, form)
    spans, position = [], 0
    for mark, content in zip(marks, contents, strict=True):
        scaffold, _, rest = rest.partition(mark)
        position += len(scaffold)
        # Templates may trim what they are given.
        found = next((c for c in (content, content.strip()) if whole.startswith(c, position)), None)
        if found is None:
            raise UserError(
                "The model's chat template rewrites the prompt, so its own tokens cannot be told from the template's.",
                remedy="Set chat: false and write the whole prompt, template included.",
                reason="TEMPLATE_REWRITES",
                field=at,
            )
        spans.append((position, position + len(found)))
        position += len(found)
    return whole, spans


def _apply(tokenizer: Any, contents: list[str], form: generation_pb2.PromptFormat) -> str:
    roles = ["system", "user"][-len(contents) :]
    return tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=form.thinking == generation_pb2.THINKING_ON,
    )
