"""Where the decoder blocks live and what a block returns: the only place that knows architectures.

Qwen3, Qwen3-MoE, Qwen3.5 and Qwen3.5-MoE keep their blocks at ``model.layers``; their image wrappers at
``model.language_model.layers``. Other plain decoders are found by the same table: a path counts only when it holds as
many blocks as the text config says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qscope.errors import UserError


@dataclass(frozen=True)
class Layout:
    """Attribute paths of one family.

    Attributes:
        blocks: the list of decoder blocks.
        final_norm: the norm after the last block.
        families: model types known to be laid out so.
    """

    blocks: str
    final_norm: str
    families: str


LAYOUTS = (
    Layout(
        "model.language_model.layers",
        "model.language_model.norm",
        "image wrappers: qwen3_5, qwen3_5_moe, qwen3_vl, gemma3",
    ),
    Layout("model.layers", "model.norm", "qwen2, qwen3, qwen3_moe, qwen3_5, qwen3_5_moe, llama, mistral, gemma, phi"),
    Layout("transformer.h", "transformer.ln_f", "gpt2, gptj, bloom, falcon"),
    Layout("gpt_neox.layers", "gpt_neox.final_layer_norm", "gpt_neox (pythia)"),
    Layout("model.decoder.layers", "model.decoder.final_layer_norm", "opt"),
)


@dataclass(frozen=True)
class Decoder:
    """The parts of a loaded model that hooks need.

    Attributes:
        blocks: decoder blocks in order; block ``l`` outputs ``resid_post`` of layer ``l``.
        final_norm: the norm between the last block and the LM head.
    """

    blocks: nn.ModuleList
    final_norm: nn.Module


def find_decoder(model: nn.Module, n_layers: int) -> Decoder:
    """Finds the decoder blocks of a causal language model.

    Raises:
        UserError: no layout of the table fits (UNKNOWN_ARCHITECTURE).
    """
    for layout in LAYOUTS:
        blocks, norm = _follow(model, layout.blocks), _follow(model, layout.final_norm)
        if isinstance(blocks, nn.ModuleList) and len(blocks) == n_layers and isinstance(norm, nn.Module):
            return Decoder(blocks, norm)
    raise UserError(
        f"{type(model).__name__}: its {n_layers} decoder blocks are at none of the known places.",
        remedy="Known are " + "; ".join(f"{layout.blocks} ({layout.families})" for layout in LAYOUTS) + ".",
        reason="UNKNOWN_ARCHITECTURE",
        field="model",
    )


def _follow(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name, None)
    return root


def hidden_of(output: Any) -> torch.Tensor:
    """The residual stream [B, T, D] in what a block returned: the tensor itself, or the first of a tuple.

    Indexing without looking is the classic mistake: on a bare tensor ``[0]`` is batch row 0.
    """
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, torch.Tensor) or hidden.dim() != 3:
        what = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(hidden).__name__
        raise UserError(
            f"A decoder block returned {what} where a [batch, position, width] tensor was expected.",
            remedy="This architecture is not supported; please report it.",
            reason="UNKNOWN_ARCHITECTURE",
            field="model",
        )
    return hidden


def with_hidden(output: Any, resid_BTD: torch.Tensor) -> Any:
    """What the block returned, with its residual stream replaced."""
    return (resid_BTD, *output[1:]) if isinstance(output, tuple) else resid_BTD


def select_layers(layers: Sequence[int], n_layers: int, *, at: str = "train_sae.layers") -> list[int]:
    """The requested layers in ascending order; none requested means all.

    Args:
        layers: decoder blocks, from 0.
        n_layers: decoder blocks of the model.
        at: experiment field of ``layers``, for errors.

    Raises:
        UserError: a layer the model does not have (LAYER_OUT_OF_RANGE).
    """
    for index, layer in enumerate(layers):
        if not 0 <= layer < n_layers:
            raise UserError(
                f"Layer {layer} does not exist: the model has {n_layers} layers, numbered 0 to {n_layers - 1}.",
                remedy=f"Choose layers from 0 to {n_layers - 1}, or leave the list empty for all.",
                reason="LAYER_OUT_OF_RANGE",
                field=f"{at}[{index}]",
            )
    return sorted(set(layers)) or list(range(n_layers))
