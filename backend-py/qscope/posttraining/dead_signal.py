"""Refusals of what would run without an error and train nothing: an auxiliary loss whose gradient is gone.

Each function looks at one fact. Those of settings are asked before a run, those of tensors at its first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from qscope.errors import UserError

if TYPE_CHECKING:
    from qscope.models.architectures import Decoder

AT = "sft.sae_loss"


def refuse_reentrant_checkpointing(gradient_checkpointing: bool, use_reentrant: bool | None) -> None:
    """Reentrant checkpointing runs the first forward pass without autograd: what is computed inside it has no graph.

    A block's output gets one when the block is left (torch 2.13, transformers 5.18: the gradient is the right one), but
    only as long as that very tensor is what the checkpointed function returns; a cast or an adapter around the block
    ends it.

    Args:
        gradient_checkpointing: whether it is on.
        use_reentrant: as it is set; None leaves it to the library, whose default has changed between versions.

    Raises:
        UserError: it is on and not said to be non-reentrant (REENTRANT_CHECKPOINTING).
    """
    if gradient_checkpointing and use_reentrant is not False:
        raise UserError(
            "Reentrant gradient checkpointing runs the pass that the SAE loss reads without autograd, so the loss may "
            "have no gradient.",
            remedy="Set use_reentrant: false.",
            reason="REENTRANT_CHECKPOINTING",
            field="sft.gradient_checkpointing.use_reentrant",
        )


def refuse_nothing_trainable(model: nn.Module, decoder: Decoder, layers: Sequence[int]) -> None:
    """The loss at a layer reaches the embedding and the blocks up to that layer, and nothing else.

    Every layer must have something to train, so that no term of the loss is dead.

    Args:
        model: as it is trained, frozen parts frozen, LoRA in place.
        decoder: its blocks.
        layers: of the loss.

    Raises:
        UserError: all that is trained lies above a layer (NOTHING_TRAINABLE_BELOW).
    """
    # An output embedding tied to the input's is trained from below as well.
    parts: list[nn.Module] = [model.get_input_embeddings()]
    reached = [any(p.requires_grad for part in parts for p in part.parameters())]
    for block in decoder.blocks:
        reached.append(reached[-1] or any(p.requires_grad for p in block.parameters()))
    dead = [layer for layer in sorted(layers) if not reached[layer + 1]]
    if dead:
        first = next((index for index, found in enumerate(reached[1:]) if found), None)
        raise UserError(
            f"Nothing that is trained lies at or below layer {dead[0]}, so the SAE loss there has no effect.",
            remedy="Train a part of the decoder."
            if first is None
            else f"Train lower layers too, or choose loss layers from {first} on.",
            reason="NOTHING_TRAINABLE_BELOW",
            field=f"{AT}.layers",
        )


def refuse_mixed_rows(packing: bool, language_per_token: bool) -> None:
    """A packed row has texts of several languages in it, and one language for all of them would be wrong.

    Raises:
        UserError: rows are packed and each has one language (PACKED_LANGUAGES).
    """
    if packing and not language_per_token:
        raise UserError(
            "Packed rows mix languages, and each row has only one.",
            remedy="Set packing: false, or give the language of every token.",
            reason="PACKED_LANGUAGES",
            field="sft.packing",
        )


def refuse_sharded_hidden(parallel: Mapping[str, int]) -> None:
    """Tensor, sequence and context parallelism leave each rank a part of the residual stream.

    Args:
        parallel: sizes by field name, such as ``tensor_parallel``; 1 is none.

    Raises:
        UserError: one of them is above 1 (SHARDED_RESIDUAL).
    """
    for name, size in parallel.items():
        if size > 1:
            raise UserError(
                f"{name} {size} shards the residual stream, which the SAE loss needs whole.",
                remedy=f"Set {name}: 1; data parallelism and FSDP2 leave the residual stream whole.",
                reason="SHARDED_RESIDUAL",
                field=f"cluster.{name}",
            )


def refuse_nothing_held(rows_by_language: Mapping[str, int], targets: Sequence[str]) -> None:
    """The loss acts on rows of other languages than the one held down.

    Args:
        rows_by_language: rows of the data by language; untagged ones left out.
        targets: languages that are held down, with the target's own rows excluded.

    Raises:
        UserError: no row of another language for one of them (NOTHING_HELD).
    """
    for index, target in enumerate(targets):
        if not any(rows for name, rows in rows_by_language.items() if name != target):
            raise UserError(
                f"No row is in another language than {target}, so the SAE loss against {target} has nothing to act on.",
                remedy="Add rows in other languages, tag the languages of rows, or leave the SAE loss out.",
                reason="NOTHING_HELD",
                field=f"{AT}.target_languages[{index}]",
            )


def refuse_dead_capture(resids: Mapping[int, Tensor], layers: Iterable[int]) -> None:
    """Of the first step: what was captured must carry a gradient, and be a whole tensor.

    Raises:
        UserError: a layer was not captured or has no graph (DEAD_SAE_LOSS), or is sharded (SHARDED_RESIDUAL).
    """
    for layer in layers:
        resid_BTD = resids.get(layer)
        if resid_BTD is not None and hasattr(resid_BTD, "placements"):
            raise UserError(
                f"The residual stream of layer {layer} is spread over ranks, and the SAE loss needs it whole.",
                remedy="Leave tensor, sequence and context parallelism off.",
                reason="SHARDED_RESIDUAL",
                field="cluster",
            )
        if resid_BTD is None or not resid_BTD.requires_grad:
            what = "was not captured" if resid_BTD is None else "carries no gradient"
            raise UserError(
                f"The residual stream of layer {layer} {what}, so the SAE loss there trains nothing.",
                remedy="Set use_reentrant: false, train something at or below that layer, and leave no forward pass of "
                "the training under no_grad.",
                reason="DEAD_SAE_LOSS",
                field=f"{AT}.layers",
            )


def refuse_no_answer(tokens: int) -> None:
    """Of the first step: a batch without an answer token trains nothing at all.

    Raises:
        UserError: there is none (NO_ANSWER_TOKENS).
    """
    if tokens == 0:
        raise UserError(
            "No token of the first step is an answer: every label is masked.",
            remedy="Look at the samples of --dry-run: a context that is too short cuts answers off, and a template "
            "without an assistant's turn has none.",
            reason="NO_ANSWER_TOKENS",
            field="sft",
        )
