"""The answer in a text, and when two answers are the same."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_NUMBER = re.compile(r"[-+]?[$€£]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?", re.ASCII)
#: A sign after a letter or a digit is a dash, and digits after a Latin letter are part of a name (`x2`, `H2O`).
_NUMBER_IN_TEXT = re.compile(
    r"(?<![A-Za-z0-9_.])(?:(?<!\w)[-+])?[$€£]?(?:\d{1,3}(?:,\d{3})+(?!\d|,\d)|\d+)(?:\.\d+)?", re.ASCII
)


def extracted(text: str, pattern: str) -> str:
    """The last match of a regular expression, its first group if it has one; empty where nothing matches.

    Without a pattern the whole text.
    """
    if not pattern:
        return text
    matches = list(re.finditer(pattern, text))
    if not matches:
        return ""
    last = matches[-1]
    return (last.group(1) if last.re.groups else last.group()) or ""


def last_number(text: str) -> str:
    """The last number of a text as :func:`plain` writes it; empty where there is none.

    The comma groups and the point parts, as in English. Signs count, units, percent signs and powers of ten do not:
    of ``1/2`` the last number is 2.
    """
    found = _NUMBER_IN_TEXT.findall(_folded(text))
    return plain(found[-1]) if found else ""


def plain(text: str) -> str:
    """A text as answers are compared: Unicode compatibility form, lower case, single spaces, no mark at its end.

    Numbers are their value: ``1,000.50`` and ``$1000.5`` are equal. The comma groups, the point parts, as in English.
    """
    text = " ".join(_folded(text).casefold().split()).rstrip(".,;:!?。")
    found = _NUMBER.fullmatch(text)
    if found is None or not (found[1] or found[3]):
        return text
    value = Decimal(re.sub(r"[,$€£]", "", text))
    # By its digits: `normalize` would round to the context's 28.
    digits = format(value, "f") if value else "0"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def equal_answers(written: str, right: str, pattern: str = "") -> bool:
    """Whether what was written is the right answer; both are looked through for ``pattern`` first."""
    found = plain(extracted(written, pattern))
    return bool(found) and found == plain(extracted(right, pattern))


def _folded(text: str) -> str:
    """Unicode compatibility form; the minus sign, which it leaves alone, is written as in ASCII."""
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-")
