"""A response with its place, as a row of a file: what `qscope eval` writes, and what it reads of others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qscope.data.template import look_up, shown
from qscope.posttraining.graders import Response

#: Columns of each part of a response, in the order they are looked for. The first are those this program writes.
COLUMNS: dict[str, tuple[str, ...]] = {
    "response": ("response", "completion", "output", "generated_text", "prediction", "text", "answer"),
    "ids": ("ids", "token_ids", "completion_ids", "output_ids"),
    "truncated": ("truncated", "finish_reason", "stop_reason"),
    "prompt": ("prompt", "question", "input", "instruction", "problem", "query"),
    "answer": ("answer", "target", "solution", "reference"),
    "language": ("language", "lang", "locale"),
}

#: What columns say of how a response ended: our own words, those of OpenAI's, Anthropic's and vLLM's servers, of TRL.
_CUT_OFF = frozenset(["true", "1", "1.0", "yes", "length", "max_tokens", "max_length", "max_output_tokens"])
_ENDED = frozenset(
    [
        *("false", "0", "0.0", "no"),
        *("stop", "eos", "eos_token", "end", "end_token", "end_turn"),
        *("stop_text", "stop_sequence", "stop_string", "tool_calls", "tool_use", "function_call"),
    ]
)


@dataclass(frozen=True)
class Answered:
    """One response.

    Attributes:
        row: the row it answers, its place in the source from 0; of saved responses, their own row.
        sample: which of the responses to that row.
        response: what was written, and what is known of it.
    """

    row: int
    sample: int
    response: Response

    def as_row(self) -> dict[str, Any]:
        """What stands in ``responses.jsonl``, under the names that :data:`COLUMNS` looks for first."""
        one = self.response
        return {
            "row": self.row,
            "sample": self.sample,
            "prompt": one.prompt,
            "response": one.text,
            "ids": list(one.ids),
            "truncated": one.truncated,
            "answer": one.answer,
            "language": one.language,
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Answered:
        """The inverse of :meth:`as_row`."""
        response = Response(
            row["response"], row["prompt"], tuple(row["ids"]), row["truncated"], row["answer"], row["language"]
        )
        return cls(row["row"], row["sample"], response)


def response_of(values: dict[str, Any], columns: Mapping[str, str]) -> Response:
    """The response of a row of somebody's file.

    Args:
        values: the row's columns.
        columns: the column of each part; a part without one is not known.

    Raises:
        ValueError: the row cannot be used; the message says why.
    """
    found: dict[str, Any] = {}
    for part, column in columns.items():
        try:
            found[part] = look_up(values, column)
        except KeyError:
            if part in ("response", "truncated", "ids"):
                raise ValueError(f"no column {column!r} with a value") from None
    return Response(
        written(found["response"], columns["response"]),
        prompt=written(found["prompt"], columns["prompt"]) if "prompt" in found else "",
        ids=_ids(found["ids"], columns["ids"]) if "ids" in found else (),
        truncated=_cut_off(found["truncated"], columns["truncated"]) if "truncated" in found else False,
        answer=shown(found["answer"]) if "answer" in found else "",
        language=shown(found["language"]).strip() if "language" in found else "",
    )


def written(value: Any, column: str) -> str:
    """Text of a cell: text as it is, of a conversation what its turns say, line by line.

    Raises:
        ValueError: it holds neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        said = [turn.get("content") for turn in value]
        if all(isinstance(one, str) for one in said):
            return "\n".join(said)
    raise ValueError(f"column {column!r} holds {json.dumps(value, default=str)[:40]}, which is no text")


def _ids(value: Any, column: str) -> tuple[int, ...]:
    if isinstance(value, str):
        # A cell of a table.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Sequence) or not all(type(one) is int and one >= 0 for one in value):
        raise ValueError(f"column {column!r} holds no list of token ids")
    return tuple(value)


def _cut_off(value: Any, column: str) -> bool:
    word = shown(value).strip().casefold()
    if word not in _CUT_OFF | _ENDED:
        raise ValueError(f"column {column!r} holds {word[:40]!r}, which does not say whether it was cut off")
    return word in _CUT_OFF
