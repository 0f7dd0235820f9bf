"""When two texts are the same words."""

from __future__ import annotations

import hashlib


def text_key(text: str) -> bytes:
    """Digest of a text, 16 bytes: the same for the same words, whatever their case and the blanks between them."""
    return hashlib.blake2b(" ".join(text.split()).casefold().encode("utf-8", "replace"), digest_size=16).digest()
