"""Refusals of what would run without an error and train nothing: an auxiliary loss whose gradient is gone.

Each function looks at one fact. Those of settings are asked before a run, those of tensors at its first step. What no
setting can bring about needs no refusal: checkpointing is never reentrant, a packed token keeps its language, and no
parallelism that shards the residual stream is offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from qscope.errors import UserError

if TYPE_CHECKING:
    from qscope.models.architectures import Decoder

AT = "sft.sae_loss"


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
                remedy="Train something at or below that layer; where it is trained, this is a bug of qscope.",
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
