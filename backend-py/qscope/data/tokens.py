"""The token stream: documents to fixed-length sequences, resumable at any batch.

Conventions:

* No beginning-of-sequence token is ever added: Qwen tokenizers have none.
* Special-token strings in the text (``<|im_start|>`` and the like) become the special tokens: pre-training text
  contains real chat markup, and the model saw it so.
* Packed: documents are joined as ``document, end-of-text, document, ...`` and cut every ``context`` tokens; attention
  crosses document borders, as in the usual pre-training of these models. Unpacked: every document starts a sequence.
* Padding is on the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qscope.data.readers import TextReader
from qscope.errors import UserError

END_OF_TEXT = "<|endoftext|>"
_DOCUMENTS_AT_ONCE = 64
_CHARACTERS_AT_ONCE = 1 << 18
# Encodings of one call hold about 100 bytes a token; a huge document is tokenised in pieces of this size.
_PIECE_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class TokenBatch:
    """Sequences for one pass of the language model, on the CPU.

    Attributes:
        input_ids_BT: token ids; padding on the right.
        attention_mask_BT: True where there is a token.
        first_token_BT: True at the first token of each sequence. That position attends to nothing but itself and is
            the attention sink; the first token of a later document in a packed sequence is not.
    """

    input_ids_BT: torch.Tensor
    attention_mask_BT: torch.Tensor
    first_token_BT: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens, without padding."""
        return int(self.attention_mask_BT.sum())


def end_of_text_id(tokenizer: Any) -> int:
    """The id that separates documents: ``<|endoftext|>``, else the tokenizer's end-of-sequence token.

    Qwen's instruct tokenizers name ``<|im_end|>`` as end of sequence, which ends a turn, not a document.

    Raises:
        UserError: the tokenizer has neither.
    """
    found = tokenizer.get_vocab().get(END_OF_TEXT, tokenizer.eos_token_id)
    if found is None:
        raise UserError(
            "The model's tokenizer has no end-of-text token, so documents cannot be packed.",
            remedy="Set pack: false in the text source.",
            reason="NO_END_OF_TEXT",
        )
    return int(found)


class TokenStream:
    """Cuts the documents of a reader into sequences.

    Memory is bounded by the largest document and 64 documents read ahead.

    Args:
        reader: the documents.
        tokenizer: a Hugging Face tokenizer.
        context: tokens per sequence.
        pack: join documents into full sequences.
        repeat: start the source again when it is exhausted.
        at: experiment field of the text source, for errors.
    """

    def __init__(
        self, reader: TextReader, tokenizer: Any, *, context: int, pack: bool, repeat: bool, at: str = "text"
    ) -> None:
        self._reader, self._tokenizer, self._at = reader, tokenizer, at
        self.context, self.pack, self.repeat = context, pack, repeat
        self._separator = np.array([end_of_text_id(tokenizer)] if pack else [], dtype=np.int32)
        pad = tokenizer.pad_token_id
        self._pad = int(pad if pad is not None else tokenizer.eos_token_id or 0)
        self.tokens = 0
        self.documents = 0
        self.empty_documents = 0
        self.passes = 0
        self._ended = False
        self._open_chunk(reader.state())

    def next_batch(self, sequences: int) -> TokenBatch | None:
        """The next ``sequences`` sequences, fewer at the end of the text, or None when it is exhausted.

        Raises:
            UserError: the source holds no text at all (NO_TEXT), or a row is bad.
        """
        rows = self._packed(sequences) if self.pack else self._one_document_each(sequences)
        if not rows:
            return None
        width = max(len(row) for row in rows)
        ids_BT = np.full((len(rows), width), self._pad, dtype=np.int64)
        mask_BT = np.zeros((len(rows), width), dtype=bool)
        for index, row in enumerate(rows):
            ids_BT[index, : len(row)] = row
            mask_BT[index, : len(row)] = True
        self.tokens += int(mask_BT.sum())
        first_BT = torch.zeros(mask_BT.shape, dtype=torch.bool)
        first_BT[:, 0] = True
        return TokenBatch(torch.from_numpy(ids_BT), torch.from_numpy(mask_BT), first_BT)

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as JSON: a reader state, a document after it, a token within that document."""
        return {
            "text": self._reader.identity(),
            "reader": self._chunk_start,
            "document": self._index,
            "token": self._offset,
            "tokens": self.tokens,
            "documents": self.documents,
            "empty_documents": self.empty_documents,
            "passes": self.passes,
            "ended": self._ended,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on exactly where ``state`` was taken.

        Raises:
            UserError: the text is not the one the state was taken on (TEXT_CHANGED).
        """
        if state["text"] != self._reader.identity():
            raise UserError(
                f"The text '{state['text'].get('source', '')}' has changed since the checkpoint was written.",
                remedy="Restore the text, or start a new run.",
                reason="TEXT_CHANGED",
                field=f"{self._at}.source",
            )
        self._reader.load_state(state["reader"])
        self._open_chunk(state["reader"])
        self.tokens, self.documents = int(state["tokens"]), int(state["documents"])
        self.empty_documents, self.passes = int(state["empty_documents"]), int(state["passes"])
        self._ended = bool(state["ended"])
        if state["document"] or state["token"]:
            self._read_chunk()
            self._index, self._offset = int(state["document"]), int(state["token"])

    def stats(self) -> dict[str, int]:
        """Tokens given out, documents finished, documents without text, whole passes over the source."""
        return {
            "tokens_read": self.tokens,
            "documents": self.documents,
            "empty_documents": self.empty_documents,
            "passes": self.passes,
        }

    def _packed(self, sequences: int) -> list[np.ndarray]:
        wanted = sequences * self.context
        parts: list[np.ndarray] = []
        while wanted and (part := self._take(wanted)) is not None:
            parts.append(part)
            wanted -= len(part)
        if not parts:
            return []
        ids = np.concatenate(parts)
        return [ids[start : start + self.context] for start in range(0, len(ids), self.context)]

    def _one_document_each(self, sequences: int) -> list[np.ndarray]:
        rows: list[np.ndarray] = []
        while len(rows) < sequences and (row := self._take(self.context)) is not None:
            rows.append(row)
        return rows

    def _take(self, most: int) -> np.ndarray | None:
        """Up to ``most`` tokens of the current document, or None at the end of the text."""
        while True:
            while self._index < len(self._chunk):
                ids = self._chunk[self._index]
                if self._offset < len(ids):
                    part = ids[self._offset : self._offset + most]
                    self._offset += len(part)
                    if self._offset == len(ids):
                        self._index, self._offset = self._index + 1, 0
                        self.documents += 1
                    return part
                self._index += 1
                self.empty_documents += 1
            if self._ended:
                return None
            self._open_chunk(self._reader.state())
            self._read_chunk()
            if not self._chunk:
                self._end_pass()

    def _end_pass(self) -> None:
        if self.documents == 0:
            raise UserError(
                f"'{self._reader.identity().get('source', '')}' holds no text: "
                f"{self.empty_documents:,} rows, none of them with text.",
                remedy="Check 'source' and 'field'.",
                reason="NO_TEXT",
                field=f"{self._at}.source",
            )
        self.passes += 1
        if self.repeat:
            self._reader.start_pass(self.passes)
        else:
            self._ended = True

    def _open_chunk(self, start: dict[str, Any]) -> None:
        self._chunk_start = start
        self._chunk: list[np.ndarray] = []
        self._index = self._offset = 0

    def _read_chunk(self) -> None:
        texts: list[str] = []
        characters = 0
        while len(texts) < _DOCUMENTS_AT_ONCE and characters < _CHARACTERS_AT_ONCE:
            text = self._reader.read()
            if text is None:
                break
            texts.append(text)
            characters += len(text)
        self._chunk = self._encode(texts)

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        pieces = [
            (index, text[start : start + _PIECE_CHARACTERS])
            for index, text in enumerate(texts)
            if text.strip()
            for start in range(0, len(text), _PIECE_CHARACTERS)
        ]
        ids: list[list[np.ndarray]] = [[] for _ in texts]
        for group in _groups(pieces):
            encoded = self._tokenizer(
                [text for _, text in group], add_special_tokens=False, return_attention_mask=False, verbose=False
            )["input_ids"]
            for (index, _), piece in zip(group, encoded, strict=True):
                ids[index].append(np.asarray(piece, dtype=np.int32))
        return [np.concatenate([*parts, self._separator]) if parts else np.empty(0, np.int32) for parts in ids]


def _groups(pieces: list[tuple[int, str]]) -> list[list[tuple[int, str]]]:
    """Pieces gathered into tokenizer calls of bounded size."""
    groups: list[list[tuple[int, str]]] = []
    held = _PIECE_CHARACTERS
    for piece in pieces:
        if held + len(piece[1]) > _PIECE_CHARACTERS:
            groups.append([])
            held = 0
        groups[-1].append(piece)
        held += len(piece[1])
    return groups


@dataclass(frozen=True)
class Supply:
    """How much text one pass holds.

    Attributes:
        tokens: tokens counted.
        sequences: sequences they make.
        complete: the whole source was counted; otherwise the numbers are lower bounds.
    """

    tokens: int
    sequences: int
    complete: bool


def measure_supply(stream: TokenStream, enough_tokens: int, limit_tokens: int = 4_000_000) -> Supply:
    """Counts the tokens of a fresh stream without ``repeat``, stopping at enough or at the limit.

    The limit keeps the check at a few seconds; a text beyond it is taken on trust.
    """
    sequences = 0
    while stream.tokens < min(enough_tokens, limit_tokens):
        batch = stream.next_batch(64)
        if batch is None:
            return Supply(stream.tokens, sequences, complete=True)
        sequences += len(batch.input_ids_BT)
    return Supply(stream.tokens, sequences, complete=False)
