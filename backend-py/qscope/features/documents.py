"""Documents as the model reads them: rendered, tokenised, and with a class for every token that counts.

Documents stay apart: each is one sequence from its first token on, cut at the source's ``context``. A token's *group*
is the class it is counted under, -1 for none; padding, first tokens, special tokens and the like are -1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qscope.data import TextReader
from qscope.errors import UserError
from qscope.models.prompts import THINK_CLOSE, THINK_OPEN, special_ids, think_ids, thinking_of
from qscope.v1.features_pb2 import Rendering, TokenMasks

_AT_ONCE = 64
# Stands for the document while a template is looked at: a character no template and hardly any text holds.
_PLACEHOLDER = "\ue000"


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        number: its place in the source, counting those without text too.
        ids_T: token ids, int32.
        group_T: class of each token, int16; -1 where it does not count.
        label: value of the source's label column; empty without one.
        digest: for splits and duplicates: of the text, or of the tokens (:func:`digest_of`) where they are not the
            text's.
    """

    number: int
    ids_T: np.ndarray
    group_T: np.ndarray
    label: str
    digest: bytes

    def in_group(self, group: int) -> Document:
        """The same document with every token that counts in one class."""
        return replace(self, group_T=np.where(self.group_T >= 0, np.int16(group), np.int16(-1)))


def digest_of(ids_T: np.ndarray) -> bytes:
    """Digest of token ids, whatever integers hold them; 16 bytes."""
    return hashlib.blake2b(ids_T.astype("<i4").tobytes(), digest_size=16).digest()


def think_tags(tokenizer: Any, *, at: str) -> tuple[int, int]:
    """Ids of the tags around thinking.

    Raises:
        UserError: the tokenizer has none (THINKING_UNKNOWN), so nobody can say what is thinking.
    """
    opening, closing = think_ids(tokenizer)
    if opening is None or closing is None:
        raise UserError(
            f"The model's tokenizer has no token {THINK_OPEN} or {THINK_CLOSE}, so thinking cannot be left out.",
            remedy="Leave skip_thinking off.",
            reason="THINKING_UNKNOWN",
            field=at,
        )
    return opening, closing


class DocumentReader:
    """Reads documents from a text source.

    Args:
        reader: the source.
        tokenizer: the model's.
        context: tokens kept of a document; the rest is cut off.
        rendering: how a document becomes the model's input.
        masks: tokens that do not count.
        at: experiment field of the text source, for errors.
        rendering_at, masks_at: experiment fields of the rendering and the masks, for errors.

    Attributes:
        read: documents given out.
        cut: those of them that were longer than the context.
        empty: documents without a token that counts; they are not given out.

    Raises:
        UserError: a chat template is asked for and there is none, or it changes documents; thinking is to be left out
            and the tokenizer has no tags for it (THINKING_UNKNOWN).
    """

    def __init__(
        self,
        reader: TextReader,
        tokenizer: Any,
        *,
        context: int,
        rendering: Rendering,
        masks: TokenMasks,
        at: str = "text",
        rendering_at: str = "rendering",
        masks_at: str = "masks",
    ) -> None:
        self._reader, self._tokenizer, self._context, self._masks, self._at = reader, tokenizer, context, masks, at
        self._template = DocumentTemplate(tokenizer, rendering, rendering_at)
        self._special = np.array(sorted(special_ids(tokenizer)), dtype=np.int32)
        self._think = think_tags(tokenizer, at=f"{masks_at}.skip_thinking") if masks.skip_thinking else None
        self.read = self.cut = self.empty = self._number = 0

    def identity(self) -> dict[str, Any]:
        """What is read."""
        return self._reader.identity()

    def state(self) -> dict[str, Any]:
        """Where the reader stands, as JSON; only between two calls of :meth:`take`."""
        return {
            "reader": self._reader.state(),
            "number": self._number,
            "read": self.read,
            "cut": self.cut,
            "empty": self.empty,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on where ``state`` was taken."""
        self._reader.load_state(state["reader"])
        self._number, self.read = int(state["number"]), int(state["read"])
        self.cut, self.empty = int(state["cut"]), int(state["empty"])

    def take(self, count: int, should_stop: Callable[[], bool] = lambda: False) -> list[Document]:
        """The next ``count`` documents, fewer at the end of the source or once ``should_stop`` says so.

        It is asked for every row passed over too: a ``where`` that nothing fits reads to the end. After a stop the
        reader does not go on.
        """
        taken: list[Document] = []
        while len(taken) < count and not should_stop():
            rows = []
            while len(rows) < min(_AT_ONCE, count - len(taken)):
                row = self._reader.read_document(should_stop)
                if row is None:
                    break
                rows.append((self._number, row))
                self._number += 1
            if not rows:
                break
            for number, document in self._tokenised(rows):
                if document is None or not (document.group_T >= 0).any():
                    self.empty += 1
                    continue
                taken.append(replace(document, number=number))
        self.read += len(taken)
        return taken

    def require(self, count: int) -> list[Document]:
        """:meth:`take`, or an error when there is nothing."""
        taken = self.take(count)
        if not taken:
            raise UserError(
                f"'{self.identity().get('source', '')}' holds no document that counts"
                f" ({self.empty:,} rows without text or with masked tokens only).",
                remedy="Check 'source', 'field' and 'where', or relax the masks.",
                reason="NO_TEXT",
                field=f"{self._at}.source",
            )
        return taken

    def _tokenised(self, rows: list[tuple[int, Any]]) -> Iterator[tuple[int, Document | None]]:
        texts = [self._template.render(row.text) if row.text.strip() else ("", (0, 0)) for _, row in rows]
        encoded = self._tokenizer(
            [text for text, _ in texts],
            add_special_tokens=False,
            return_attention_mask=False,
            return_offsets_mapping=self._template.used,
            verbose=False,
        )
        for index, ((number, row), (_, span)) in enumerate(zip(rows, texts, strict=True)):
            ids_T = np.asarray(encoded["input_ids"][index], dtype=np.int32)
            if not len(ids_T):
                yield number, None
                continue
            counts_T = np.ones(len(ids_T), dtype=bool)
            if self._template.used and self._masks.skip_special_tokens:
                offsets_T2 = np.asarray(encoded["offset_mapping"][index])
                counts_T &= (offsets_T2[:, 0] >= span[0]) & (offsets_T2[:, 1] <= span[1])
            self._mask(ids_T, counts_T)
            self.cut += len(ids_T) > self._context
            yield (
                number,
                Document(
                    number,
                    ids_T[: self._context],
                    np.where(counts_T[: self._context], np.int16(0), np.int16(-1)),
                    row.label,
                    hashlib.blake2b(row.text.encode(), digest_size=16).digest(),
                ),
            )

    def _mask(self, ids_T: np.ndarray, counts_T: np.ndarray) -> None:
        if self._masks.skip_first_token:
            counts_T[0] = False
        if self._masks.skip_special_tokens:
            counts_T &= ~np.isin(ids_T, self._special)
        if self._think:
            counts_T &= ~thinking_of(ids_T, *self._think)


class DocumentTemplate:
    """Wraps a document in the chat template, and knows where in the result the document stands."""

    def __init__(self, tokenizer: Any, rendering: Rendering, at: str) -> None:
        self.used = rendering.chat
        if rendering.thinking and not rendering.chat:
            raise UserError(
                "Thinking mode belongs to the chat template, and chat is off.",
                remedy="Set chat: true as well, or leave thinking out.",
                reason="THINKING_WITHOUT_CHAT",
                field=f"{at}.thinking",
            )
        if not self.used:
            return
        try:
            rendered = tokenizer.apply_chat_template(
                [{"role": "user", "content": _PLACEHOLDER}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=rendering.thinking,
            )
        except Exception as error:  # a template is a program, and raises what it likes
            raise UserError(
                "The model's tokenizer has no chat template that takes a user's message.",
                remedy="Leave rendering.chat off, or use an instruction-tuned model.",
                reason="NO_CHAT_TEMPLATE",
                field=f"{at}.chat",
            ) from error
        self._before, found, self._after = rendered.partition(_PLACEHOLDER)
        if not found:
            raise UserError(
                "The model's chat template does not hold the user's message as it is.",
                remedy="Leave rendering.chat off.",
                reason="NO_CHAT_TEMPLATE",
                field=f"{at}.chat",
            )

    def render(self, text: str) -> tuple[str, tuple[int, int]]:
        """The model's input, and from where to where (in characters) it is the document."""
        if not self.used:
            return text, (0, len(text))
        start = len(self._before)
        return f"{self._before}{text}{self._after}", (start, start + len(text))


@dataclass(frozen=True)
class DocumentBatch:
    """Documents for one pass of the model, on the CPU; padding on the right.

    Attributes:
        input_ids_BT: token ids.
        attention_mask_BT: True where there is a token.
        group_BT: class of each token; -1 where it does not count.
        rows_B: which of the documents these are.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    group_BT: Tensor
    rows_B: Tensor


def batches(documents: Sequence[Document], batch_tokens: int) -> Iterator[DocumentBatch]:
    """Batches of documents of like length, longest first, of at most ``batch_tokens`` with padding (one document at
    least). A function of the documents alone."""
    order = sorted(range(len(documents)), key=lambda row: -len(documents[row].ids_T))
    start = 0
    while start < len(order):
        width = len(documents[order[start]].ids_T)
        rows = order[start : start + max(1, batch_tokens // width)]
        start += len(rows)
        ids_BT = np.zeros((len(rows), width), dtype=np.int64)
        mask_BT = np.zeros((len(rows), width), dtype=bool)
        group_BT = np.full((len(rows), width), -1, dtype=np.int64)
        for index, row in enumerate(rows):
            length = len(documents[row].ids_T)
            ids_BT[index, :length] = documents[row].ids_T
            mask_BT[index, :length] = True
            group_BT[index, :length] = documents[row].group_T
        yield DocumentBatch(
            torch.from_numpy(ids_BT), torch.from_numpy(mask_BT), torch.from_numpy(group_BT), torch.tensor(rows)
        )


@dataclass(frozen=True)
class Split:
    """Documents by whether the ranking sees them; ``duplicates`` counts those left out as equal to another."""

    ranking: list[Document]
    held_out: list[Document]
    duplicates: int


def split(documents: Sequence[Document], held_out_share: float, seed: int) -> Split:
    """Holds out a share of the documents (at least two on either side where there are four).

    Equal texts are taken once. Which are held out depends on the texts and the seed, not on their order.
    """
    unique = {document.digest: document for document in reversed(documents)}
    key = seed.to_bytes(8, "big")
    ordered = sorted(unique.values(), key=lambda document: hashlib.blake2b(document.digest, key=key).digest())
    held_out = min(max(round(held_out_share * len(ordered)), 2), max(len(ordered) - 2, 0))
    return Split(ordered[held_out:], ordered[:held_out], len(documents) - len(unique))
