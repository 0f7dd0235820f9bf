"""Reading and replacing the residual stream at the output of decoder blocks.

Hook point: ``resid_post`` of layer l, the output of decoder block l, before the final norm. A module hook is global to
the process, so every hook lives inside a ``with`` block or a single call and is gone when that ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from qscope.errors import UserError
from qscope.models.architectures import hidden_of, with_hidden
from qscope.models.forward_tokens import ForwardTokens, read_tokens
from qscope.models.loading import LoadedModel
from qscope.models.resolve import brief

#: Maps resid_BTD and the tokens of the pass to a tensor of the same shape, out of place.
TokenEdit = Callable[[torch.Tensor, ForwardTokens], torch.Tensor]


class _LastLayerReached(Exception):
    """Ends a forward pass above the last hooked layer."""


def capture_residuals(
    loaded: LoadedModel,
    layers: Sequence[int],
    input_ids_BT: torch.Tensor,
    attention_mask_BT: torch.Tensor | None = None,
) -> dict[int, torch.Tensor]:
    """The residual stream after each of ``layers``, from one forward pass.

    No block above the last requested one runs, nor the final norm, nor the LM head. The tensors stay on the model's
    device and in its dtype; nothing is copied.

    Args:
        loaded: the model.
        layers: decoder blocks, from 0.
        input_ids_BT: token ids, on any device.
        attention_mask_BT: nonzero where there is a token; None when nothing is padded (spares the mask).

    Returns:
        ``{layer: resid_BTD}``.
    """
    captured: dict[int, torch.Tensor] = {}
    last = max(layers)

    def reader(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            captured[layer] = hidden_of(output)
            if layer == last:
                raise _LastLayerReached

        return hook

    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            handle = loaded.decoder.blocks[layer].register_forward_hook(reader(layer))
            stack.callback(handle.remove)
        try:
            _forward(loaded, input_ids_BT, attention_mask_BT)
        except _LastLayerReached:
            return captured
    raise AssertionError("the hook of the last layer was never called")


def logits_of(
    loaded: LoadedModel, input_ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None
) -> torch.Tensor:
    """Next-token logits [B, T, vocabulary] of a full forward pass, through whatever edits are in place."""
    with torch.no_grad():
        return _forward(loaded, input_ids_BT, attention_mask_BT).logits


def _forward(loaded: LoadedModel, input_ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None) -> Any:
    device = loaded.device
    mask = None if attention_mask_BT is None else attention_mask_BT.to(device, torch.long, non_blocking=True)
    return loaded.model(input_ids=input_ids_BT.to(device, non_blocking=True), attention_mask=mask, use_cache=False)


class UpperBlocks:
    """Forward passes that start at the output of a decoder block: neither that block nor any below it runs.

    Many passes over the same tokens that differ at one layer only need the blocks above it. The replaced forwards live
    inside a single call, as hooks do.

    Args:
        loaded: the model; one token is run through it, to see what its blocks return.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._returned: Any = None

        def remember(module: nn.Module, inputs: Any, output: Any) -> None:
            self._returned = output

        handle = loaded.decoder.blocks[0].register_forward_hook(remember)
        try:
            logits_of(loaded, torch.zeros(1, 1, dtype=torch.long))
        finally:
            handle.remove()

    def logits(
        self,
        layer: int,
        resid_BTD: torch.Tensor,
        input_ids_BT: torch.Tensor,
        attention_mask_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Next-token logits [B, T, vocabulary] with ``resid_BTD`` as the output of block ``layer``.

        Args:
            layer: decoder block, from 0.
            resid_BTD: takes the place of the block's output; cast to the model's dtype.
            input_ids_BT: the tokens, for positions and masks.
            attention_mask_BT: as in :func:`capture_residuals`.
        """
        replaced_BTD = resid_BTD.to(self._loaded.device, self._loaded.dtype)

        def skipped(hidden_BTD: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return with_hidden(self._returned, hidden_BTD)

        def replaced(hidden_BTD: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return with_hidden(self._returned, replaced_BTD)

        blocks = self._loaded.decoder.blocks
        with ExitStack() as stack:
            for index in range(layer + 1):
                # An attribute of the instance hides the class's method; deleting it brings that back.
                blocks[index].forward = replaced if index == layer else skipped
                stack.callback(delattr, blocks[index], "forward")
            return logits_of(self._loaded, input_ids_BT, attention_mask_BT)


@contextmanager
def edit_residual(loaded: LoadedModel, layer: int, edit: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Replaces the output of a decoder block, in every forward pass inside the ``with`` block.

    Args:
        loaded: the model.
        layer: decoder block, from 0.
        edit: maps resid_BTD to a tensor of the same shape, out of place (an edit in place would also change what was
            captured before); its result is cast to the residual's dtype. Returning its argument changes nothing at
            all.
    """

    handle = loaded.decoder.blocks[layer].register_forward_hook(_editing(edit))
    try:
        yield
    finally:
        handle.remove()


class ResidualEdits:
    """Edits the output of several decoder blocks inside each of its ``with`` blocks, told which tokens a pass reads.

    Works under any driver of the model: an own loop, ``generate`` with or without a cache, chunked prefill, training.

    Args:
        loaded: the model.
        edits: by layer. Each sees what the edits of lower layers made of the stream.
        tokens: tells which tokens the pass under way reads, where the driver knows; left out, they are read off its
            arguments, which a step of decoding feels.
    """

    def __init__(
        self, loaded: LoadedModel, edits: Mapping[int, TokenEdit], tokens: Callable[[], ForwardTokens] | None = None
    ) -> None:
        self._model = loaded.model
        self._current: ForwardTokens
        self._reads = bool(edits) and tokens is None
        asked = tokens or (lambda: self._current)

        def told(edit: TokenEdit) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda resid_BTD: edit(resid_BTD, asked())

        self._hooks = [(loaded.decoder.blocks[layer], _editing(told(edit))) for layer, edit in edits.items()]
        self._handles: list[Any] = []

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._current = read_tokens(args, kwargs)

    def __enter__(self) -> None:
        # Written out, as is leaving: a context manager made from a generator, with a stack of its own, is felt by every
        # step of decoding.
        assert not self._handles, "these edits are in place already"
        try:
            if self._reads:
                self._handles.append(self._model.register_forward_pre_hook(self._before, with_kwargs=True))
            for block, hook in self._hooks:
                self._handles.append(block.register_forward_hook(hook))
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()


def _editing(edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        resid_BTD = hidden_of(output)
        version = resid_BTD._version
        edited_BTD = edit(resid_BTD)
        assert resid_BTD._version == version, "the edit changed the residual stream in place"
        if edited_BTD is resid_BTD:
            return None
        assert edited_BTD.shape == resid_BTD.shape, f"{tuple(edited_BTD.shape)} is not {tuple(resid_BTD.shape)}"
        return with_hidden(output, edited_BTD.to(resid_BTD))

    return hook


# bfloat16 kernels may sum in another order from one call to the next; another layer's output is off by far more.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}


def check_hooks(loaded: LoadedModel) -> None:
    """Compares every hook with the model's own ``output_hidden_states`` on a short input.

    ``hidden_states[l + 1]`` is the output of block l, save the last, which is after the final norm.

    Raises:
        UserError: the model cannot run at all (MODEL_INCOMPLETE), computes non-finite numbers (MODEL_NOT_FINITE), or
            a hook reads something else (HOOK_MISMATCH).
    """
    n_layers = len(loaded.decoder.blocks)
    ids_BT = (torch.arange(1, 25) * 7919 % loaded.facts.vocab_size).view(2, 12)
    try:
        captured = capture_residuals(loaded, range(n_layers), ids_BT)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(
            f"The model fails on a short input ({brief(error)}).",
            remedy="Its config does not fit its weights; download or save the model again.",
            reason="MODEL_INCOMPLETE",
            field="model",
        ) from error
    with torch.no_grad():
        states = loaded.model(input_ids=ids_BT.to(loaded.device), use_cache=False, output_hidden_states=True)
        normed_BTD = loaded.decoder.final_norm(captured[n_layers - 1])
    hooked = [*(captured[layer] for layer in range(n_layers - 1)), normed_BTD]
    for layer, resid_BTD in enumerate(hooked):
        own_BTD = states.hidden_states[layer + 1]
        scale = own_BTD.float().norm()
        if not torch.isfinite(scale):
            raise UserError(
                f"The model computes infinite or undefined numbers at layer {layer}.",
                remedy="Try precision: float32, or download the model again.",
                reason="MODEL_NOT_FINITE",
                field="model",
            )
        if (resid_BTD.float() - own_BTD.float()).norm() > _TOLERANCE.get(loaded.dtype, 2e-2) * scale:
            raise UserError(
                f"The hook at layer {layer} does not read the model's hidden state, so SAEs would see something else.",
                remedy="This architecture or version of transformers is not supported; please report it.",
                reason="HOOK_MISMATCH",
                field="model",
            )
