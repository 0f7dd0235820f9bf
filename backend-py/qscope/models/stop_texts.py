"""Tokens up to a stop text: what a row has written when a text that ends it is complete."""

from __future__ import annotations

from typing import Any


def tokens_of(tokenizer: Any, ids: list[int], text: str) -> list[int]:
    """The shortest beginning of ``ids`` whose decoding holds ``text``, which is a beginning of what all of them say."""

    def holds(count: int) -> bool:
        told = tokenizer.decode(ids[:count], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return told.startswith(text)

    count = len(ids)
    while count and holds(count - 1):
        count -= 1
    return ids[:count]
