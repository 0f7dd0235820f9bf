"""Which tokens a forward pass reads: the one place where a hook learns about positions, padding and phase.

Lengths mislead: a pass of one token may be a decoding step, a one-token prompt, or the last chunk of a chunked prefill,
and the cache's length inside a block depends on the kind of the block. True positions do not: a token is generated
exactly when its position is not below the length of its row's prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class ForwardTokens:
    """The tokens of one forward pass, on the CPU.

    Attributes:
        ids_BT: token ids; -1 where embeddings were given instead.
        position_BT: position in the row, from 0, left padding discounted; meaningless where not valid.
        valid_BT: True where there is a token, False at padding.
    """

    ids_BT: np.ndarray
    position_BT: np.ndarray
    valid_BT: np.ndarray


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


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
