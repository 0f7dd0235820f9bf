"""Whether a model keeps the examples of a packed row apart."""

from __future__ import annotations

import torch

from qscope.errors import UserError
from qscope.models import LoadedModel

_TOKENS = 6


@torch.no_grad()
def refuse_mixing(loaded: LoadedModel) -> None:
    """Runs two short texts packed and the second alone: what the model says of it must be the same.

    Attention tells packed examples apart by positions that begin anew; linear attention and convolutions (Qwen3.5) do
    not, nor do models that make their masks by themselves.

    Raises:
        UserError: the first text reaches the second (PACKING_MIXES).
    """
    ids_2T = torch.arange(3, 3 + 2 * _TOKENS, device=loaded.device).reshape(2, _TOKENS)
    position_T = torch.arange(_TOKENS, device=loaded.device)
    together_TV = loaded.model(
        input_ids=ids_2T.reshape(1, -1), position_ids=torch.cat([position_T, position_T])[None], use_cache=False
    ).logits[0, _TOKENS:]
    alone_TV = loaded.model(input_ids=ids_2T[1:], position_ids=position_T[None], use_cache=False).logits[0]
    difference = float((together_TV.float() - alone_TV.float()).abs().max())
    # Two orders of adding up differ in the last digits, bfloat16 in the third.
    digits = 0.05 if loaded.dtype == torch.bfloat16 else 1e-3
    if difference > digits * float(alone_TV.float().abs().max()):
        raise UserError(
            f"{loaded.facts.name} does not keep packed rows apart: one would be read as the beginning of the next.",
            remedy="Set packing: false.",
            reason="PACKING_MIXES",
            field="sft.packing",
        )
