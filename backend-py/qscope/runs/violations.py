"""The rules written on the messages (protovalidate), checked on this side."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from google.protobuf.message import Message

if TYPE_CHECKING:
    import protovalidate
    from protovalidate import ViolationPb


def violations(message: Message) -> list[tuple[str, str]]:
    """Field path ("train_sae.layers[2]"; empty for the message itself) and text of every broken rule of `message`."""
    return [(_path(found.proto), found.proto.message) for found in _validator().collect_violations(message)]


@cache
def _validator() -> protovalidate.Validator:
    # A tenth of a second to import: paid by those who validate, not by those who read a folder.
    import protovalidate

    return protovalidate.Validator()


def _path(violation: ViolationPb) -> str:
    names: list[str] = []
    for element in violation.field.elements if violation.field else []:
        name = element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            name += f"[{json.dumps(key)}]"
        names.append(name)
    return ".".join(names)
