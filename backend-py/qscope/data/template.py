"""Text made of the columns of a row."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from typing import Any

from qscope.data.records import Record
from qscope.errors import UserError


class Template:
    """Text with columns in braces: ``Question: {question}``; ``{a.b}`` looks inside, ``{{`` is a brace.

    Args:
        text: the template.
        at: its experiment field, for errors.
        constant: whether it may name no column.

    Raises:
        UserError: braces that do not match, or that hold anything but a column (TEMPLATE_MALFORMED).
    """

    def __init__(self, text: str, *, at: str = "", constant: bool = False) -> None:
        self.text = text
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise _malformed(text, str(error), at) from error
        self._parts: list[tuple[str, str | None]] = []
        for literal, name, form, conversion in parts:
            if name is not None and (form or conversion or not name.strip()):
                raise _malformed(text, f"'{{{name}}}' names no column" if not name.strip() else "no formats here", at)
            self._parts.append((literal, name))
        if not constant and not any(name for _, name in self._parts):
            raise _malformed(text, "it names no column, so every item would be the same", at)

    def fill(self, values: dict[str, Any]) -> str:
        """The text of one row.

        Raises:
            KeyError: a column is not there, or is null.
            ValueError: a column holds what is no text, such as a picture.
        """
        return "".join(literal + (_text(look_up(values, name), name) if name else "") for literal, name in self._parts)

    def fill_each(self, values: dict[str, Any]) -> list[str]:
        """The texts of one row: one for each entry where the only column holds a list, else one.

        Raises:
            KeyError: a column is not there, or is null.
        """
        names = [name for _, name in self._parts if name]
        found = look_up(values, names[0]) if len(names) == 1 else None
        if not isinstance(found, list):
            return [self.fill(values)]
        return ["".join(literal + (shown(entry) if name else "") for literal, name in self._parts) for entry in found]


def _malformed(text: str, why: str, at: str) -> UserError:
    return UserError(
        f"The template {text!r} is malformed: {why}.",
        remedy="Write columns in braces, for example 'Question: {question}'; {{ and }} are braces themselves.",
        reason="TEMPLATE_MALFORMED",
        field=at,
    )


def look_up(values: dict[str, Any], name: str) -> Any:
    """The value of a column; ``a.b`` looks inside, ``a.0`` into a list.

    Raises:
        KeyError: it is not there, or is null.
    """
    # A column may itself have a dot in its name.
    if values.get(name) is not None:
        return values[name]
    found: Any = values
    for key in name.split("."):
        if isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and found.get(key) is not None:
            found = found[key]
        else:
            raise KeyError(name)
    return found


def _text(value: Any, name: str) -> str:
    if isinstance(value, bytes | bytearray):
        raise ValueError(f"column {name!r} holds bytes, not text")
    return shown(value)


def shown(value: Any) -> str:
    """A cell as text: text as it is, lists of text line by line, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def guessed_template(row: Record, columns: Sequence[str], *, at: str) -> Template:
    """The template of the first of ``columns`` that a row has as text.

    Args:
        row: the first row of a source.
        columns: names, in the order they are looked for.
        at: experiment field of the template, for errors.

    Raises:
        UserError: the row has none of them (PROMPT_UNKNOWN).
    """
    for name in columns:
        if isinstance(row.values.get(name), str):
            return Template(f"{{{name}}}", at=at)
    known = ", ".join(map(str, list(row.values)[:12])) or "none"
    raise UserError(
        f"{row.place}: which column holds what is asked?",
        remedy=f"Say so in '{at.rpartition('.')[2]}', for example '{{question}}'. Columns there: {known}.",
        reason="PROMPT_UNKNOWN",
        field=at,
    )
