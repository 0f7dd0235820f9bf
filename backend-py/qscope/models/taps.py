"""The residual stream as training sees it: outputs of decoder blocks with their graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from qscope.models.architectures import Decoder, hidden_of


@contextmanager
def tap_residuals(decoder: Decoder, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Keeps the outputs of a few decoder blocks of the last forward pass inside the ``with`` block.

    The pass itself is left alone. ``backward`` belongs after the block: gradient checkpointing runs the decoder blocks
    again then, and what it computes must not take the place of what the loss was built on.

    Args:
        decoder: the blocks of the model that is trained, wrapped (LoRA, FSDP2, DDP) or not.
        layers: decoder blocks, from 0.

    Yields:
        ``{layer: resid_BTD}``, filled by the pass: the tensors themselves, on their device, in the model's dtype.
    """
    tapped: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tapped[layer] = hidden_of(output)

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(decoder.blocks[layer].register_forward_hook(keep(layer)).remove)
        yield tapped
