"""Which tokens a forward pass reads: the one place where a hook learns about positions, padding and phase.

Lengths mislead: a pass of one token may be a decoding step, a one-token prompt, or the last chunk of a chunked prefill,
and the cache's length inside a block depends on the kind of the block. True positions do not: a token is generated
exactly when its position is not below the length of its row's prompt.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch


class ForwardTokens:
    """The tokens of one forward pass, on the CPU.

    What is given is made an array when it is first asked for: most steps of decoding ask for none of it.

    Args:
        ids_BT: token ids; -1 where embeddings were given instead.
        position_BT: position in the row, from 0, left padding discounted; meaningless where not valid.
        valid_BT: nonzero where there is a token, 0 at padding. May be longer: its last T columns count.
        decoding: every row reads one token, and the model wrote it. What is chosen by phase alone is then the same in
            each such pass of a batch.
    """

    def __init__(
        self,
        ids_BT: np.ndarray | torch.Tensor,
        position_BT: np.ndarray | torch.Tensor,
        valid_BT: np.ndarray | torch.Tensor,
        *,
        decoding: bool = False,
    ) -> None:
        self._ids_BT, self._position_BT, self._valid_BL = ids_BT, position_BT, valid_BT
        self.decoding = decoding

    @cached_property
    def ids_BT(self) -> np.ndarray:
        """Token ids; -1 where embeddings were given instead."""
        return _numpy(self._ids_BT)

    @cached_property
    def position_BT(self) -> np.ndarray:
        """Position in the row, from 0, left padding discounted; meaningless where not valid."""
        return _numpy(self._position_BT)

    @cached_property
    def valid_BT(self) -> np.ndarray:
        """True where there is a token, False at padding."""
        valid_BL = _numpy(self._valid_BL) != 0
        return valid_BL[:, valid_BL.shape[1] - self._ids_BT.shape[1] :]


def read_tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> ForwardTokens:
    """The tokens of a call ``model(*args, **kwargs)`` of a Hugging Face causal language model.

    Positions are the ``position_ids`` of the call; without them they follow from the attention mask, and without that
    from the length of the cache before the pass.
    """
    ids = kwargs.get("input_ids", args[0] if args else None)
    embeds = kwargs.get("inputs_embeds")
    rows, width = (ids if ids is not None else embeds).shape[:2]
    ids_BT = np.full((rows, width), -1) if ids is None else _numpy(ids)
    mask = kwargs.get("attention_mask")
    assert mask is None or mask.dim() == 2, "the attention mask must be the two-dimensional one of the tokens"
    mask_BL = None if mask is None else _numpy(mask) != 0
    valid_BT = np.ones((rows, width), dtype=bool) if mask_BL is None else mask_BL[:, mask_BL.shape[1] - width :]
    position_ids = kwargs.get("position_ids")
    if position_ids is not None:
        # Models with rotary sections for text, time, height and width stack one plane of positions for each.
        plane = position_ids if position_ids.dim() == 2 else position_ids[0]
        position_BT = np.broadcast_to(_numpy(plane), (rows, width))
    elif mask_BL is not None:
        position_BT = (np.cumsum(mask_BL, axis=1) - 1)[:, mask_BL.shape[1] - width :]
    else:
        cache = kwargs.get("past_key_values")
        before = 0 if cache is None else int(cache.get_seq_length())
        position_BT = np.broadcast_to(np.arange(before, before + width), (rows, width))
    return ForwardTokens(ids_BT, position_BT, valid_BT)


def _numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
