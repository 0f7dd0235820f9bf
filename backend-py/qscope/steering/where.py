"""Which tokens an edit applies to: a set of tokens named in the spec, as a mask over the tokens of a forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qscope.errors import UserError
from qscope.models.forward_tokens import ForwardTokens
from qscope.models.prompts import (
    ANSWER,
    SPECIAL,
    TEMPLATE,
    THINK,
    Prompt,
    mark_thinking,
    special_ids,
    think_ids,
)
from qscope.v1 import steering_pb2 as pb

_FLAGS = {
    pb.TOKEN_CLASS_SPECIAL: SPECIAL,
    pb.TOKEN_CLASS_TEMPLATE: TEMPLATE,
    pb.TOKEN_CLASS_THINK: THINK,
    pb.TOKEN_CLASS_ANSWER: ANSWER,
}


class TokenKinds:
    """What every token of a batch is, by row and position: known for the prompt, worked out as tokens are generated.

    Keyed by position, not by call: a loop without a cache reads a row again from its start at every step, and must find
    what it found before.

    Args:
        prompts: the rows.
        tokenizer: tells special tokens and think tags.
    """

    def __init__(self, prompts: Sequence[Prompt], tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = np.array(sorted(special_ids(tokenizer)))
        self._flags = [prompt.flags_T.copy() for prompt in prompts]
        self._open = [prompt.thinking_open for prompt in prompts]

    def flags(self, tokens: ForwardTokens) -> np.ndarray:
        """SPECIAL | TEMPLATE | THINK | ANSWER of each token of the pass; 0 at padding."""
        flags_BT = np.zeros(tokens.ids_BT.shape, dtype=np.uint8)
        for row, known_L in enumerate(self._flags):
            valid_T = tokens.valid_BT[row]
            if not valid_T.any():
                continue
            positions = tokens.position_BT[row][valid_T]
            new = tokens.ids_BT[row][valid_T][positions >= len(known_L)]
            if len(new):
                known_L = self._flags[row] = np.concatenate([known_L, self._classify(row, new)])
            flags_BT[row][valid_T] = known_L[positions]
        return flags_BT

    def _classify(self, row: int, ids_T: np.ndarray) -> np.ndarray:
        flags_T = np.where(np.isin(ids_T, self._special), SPECIAL, 0).astype(np.uint8)
        self._open[row] = mark_thinking(self._tokenizer, ids_T, flags_T, self._open[row])
        tags = np.isin(ids_T, [tag for tag in think_ids(self._tokenizer) if tag is not None])
        flags_T[(flags_T == 0) & ~tags] = ANSWER
        return flags_T


class Selector:
    """A :class:`SteeringPlace` bound to the rows it is meant for.

    Args:
        place: where an edit applies.
        rows: rows of the batch under this edit.
        prompt_lengths_B: tokens of every row's prompt.
        token_ids: ids of the tokens named in ``only`` and ``except``, by text.
    """

    def __init__(
        self,
        place: pb.SteeringPlace,
        rows: Sequence[int],
        prompt_lengths_B: np.ndarray,
        token_ids: Mapping[str, int],
    ) -> None:
        self.place = place
        self._rows_B1 = np.isin(np.arange(len(prompt_lengths_B)), rows)[:, None]
        self._lengths_B1 = prompt_lengths_B[:, None]
        self._only = _Set.of(place.only, self._lengths_B1, token_ids)
        self._except = _Set.of(getattr(place, "except"), self._lengths_B1, token_ids)

    @property
    def needs_kinds(self) -> bool:
        """Whether classes of tokens are asked for."""
        return any(part is not None and part.needs_kinds for part in (self._only, self._except))

    @property
    def by_phase_alone(self) -> bool:
        """Whether all tokens that the model wrote are treated alike, whatever they are."""
        return self._only is None and self._except is None

    def __call__(self, tokens: ForwardTokens, flags_BT: np.ndarray | None) -> np.ndarray:
        """Mask [B, T] of the selected tokens; not to be changed in place.

        Args:
            tokens: what the pass reads.
            flags_BT: from :class:`TokenKinds`, when classes are asked for.
        """
        position_BT = tokens.position_BT
        mask_BT = tokens.valid_BT & self._rows_B1
        if not self.place.include_first_token:
            mask_BT = mask_BT & (position_BT > 0)
        if self.place.phase == pb.PHASE_PROMPT:
            mask_BT &= position_BT < self._lengths_B1
        elif self.place.phase == pb.PHASE_GENERATED:
            mask_BT &= position_BT >= self._lengths_B1 - int(self.place.include_last_prompt_token)
        if self._only is not None:
            mask_BT &= self._only(tokens, flags_BT)
        if self._except is not None:
            mask_BT &= ~self._except(tokens, flags_BT)
        return mask_BT


class _Set:
    """A :class:`TokenSet` over the rows of a batch."""

    @classmethod
    def of(cls, wanted: pb.TokenSet, lengths_B1: np.ndarray, token_ids: Mapping[str, int]) -> _Set | None:
        """None for a set that names nothing: an experiment holds every group, named or not."""
        named = wanted.positions or wanted.tokens or wanted.classes
        return cls(wanted, lengths_B1, token_ids) if named else None

    def __init__(self, wanted: pb.TokenSet, lengths_B1: np.ndarray, token_ids: Mapping[str, int]) -> None:
        self._bits = sum(_FLAGS[kind] for kind in wanted.classes)
        self._ids = np.array([token_ids[text] for text in wanted.tokens], dtype=np.int64)
        places = np.array(wanted.positions, dtype=np.int64)[None, :]
        # A negative place beyond the prompt's start would otherwise be read as one more position.
        self._places_BP = np.where(places < 0, np.where(places + lengths_B1 < 0, -1, places + lengths_B1), places)
        self._lengths_B1 = lengths_B1

    @property
    def needs_kinds(self) -> bool:
        return self._bits != 0

    def __call__(self, tokens: ForwardTokens, flags_BT: np.ndarray | None) -> np.ndarray:
        mask_BT = np.zeros(tokens.ids_BT.shape, dtype=bool)
        if self._bits:
            assert flags_BT is not None, "classes of tokens were asked for and not worked out"
            mask_BT |= (flags_BT & self._bits) != 0
        if len(self._ids):
            mask_BT |= np.isin(tokens.ids_BT, self._ids)
        if self._places_BP.shape[1]:
            here_BTP = tokens.position_BT[:, :, None] == self._places_BP[:, None, :]
            mask_BT |= here_BTP.any(-1) & (tokens.position_BT < self._lengths_B1)
        return mask_BT


def token_ids(place: pb.SteeringPlace, tokenizer: Any, *, at: str) -> dict[str, int]:
    """Ids of the tokens a place names by text.

    Raises:
        UserError: a text is not exactly one token (NOT_ONE_TOKEN).
    """
    found: dict[str, int] = {}
    for name in ("only", "except"):
        for index, text in enumerate(getattr(place, name).tokens):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                pieces = " ".join(repr(tokenizer.decode([one])) for one in ids[:8]) or "nothing"
                raise UserError(
                    f"{text!r} is not one token of this model: it reads {pieces}.",
                    remedy="Name single tokens; a leading space is part of a token.",
                    reason="NOT_ONE_TOKEN",
                    field=f"{at}.{name}.tokens[{index}]",
                )
            found[text] = ids[0]
    return found
