"""Which language a text is in, by py3langid: its model is in the wheel, so nothing is downloaded."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any


def language_of(text: str, among: Sequence[str] = ()) -> tuple[str, float]:
    """Most likely language of a text, ISO 639-1, and its probability; empty and 0 for a text without letters.

    Args:
        text: the text.
        among: languages to choose from; empty means all the classifier knows.

    Raises:
        ValueError: the classifier does not know one of them.
    """
    if not any(map(str.isalpha, text)):
        return "", 0.0
    return _identifier(tuple(among)).classify(text)


def languages(texts: Iterable[str], among: Sequence[str] = ()) -> list[str]:
    """Most likely language of each text, see :func:`language_of`."""
    return [language_of(text, among)[0] for text in texts]


@cache
def _identifier(among: tuple[str, ...]) -> Any:
    if not among:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        # Probabilities in place of log-likelihoods: the order is the same, and a threshold has a meaning.
        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Reading the model takes a second; a choice of languages is columns of it.
    identifier = copy.copy(_identifier(()))
    identifier.set_languages(list(among))
    return identifier
