"""A model whose weights are divided among ranks (FSDP2), and looking at it whole.

transformers and accelerate have FSDP2 for GPUs: on a CPU accelerate 1.15 leaves their setting aside without a word and
replicates the model. ``fully_shard`` itself works on both, so it is called here, and accelerate is told that the model
is prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from qscope.models.architectures import Decoder
from qscope.posttraining import trainer_state


def divide(model: nn.Module, decoder: Decoder) -> None:
    """Gives every rank a part of each weight, in place; decoder blocks are gathered one at a time. Collective.

    Before an optimiser is made: it takes the parameters as they are then. Gradients are averaged over the ranks, as
    DDP averages them.

    Args:
        model: alike on every rank, adapters in place.
        decoder: its blocks.
    """
    for block in decoder.blocks:
        fully_shard(block)
    # The rest: embeddings, the last norm, the output layer.
    fully_shard(model)
    # Now, not in the first pass: rollouts run the model inside its adapters, and the first module that runs would take
    # itself for the root. torch has no public call for it.
    model._get_fsdp_state()._lazy_init()


def is_divided(model: nn.Module) -> bool:
    """Whether each rank holds but a part of the model."""
    return isinstance(model, FSDPModule)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Every rank holds the whole of a divided model meanwhile, and its passes wait for nobody. Collective.

    Without it every pass is collective: ranks that generate texts of different lengths would wait for each other for
    ever. Not for training: gradients are not taken here. Any other model is left as it is.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            # The root keeps its own from the forward to the backward pass: it would gather it again at once.
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def whole(model: nn.Module, make: Callable[[], nn.Module], *, wanted: bool) -> nn.Module | None:
    """A divided model in one piece, on the CPU of those who want it. Collective.

    Args:
        model: divided or not; one that is not is returned as it is.
        make: the model before training, as it was before it was divided; called where it is wanted.
        wanted: whether this rank is to have it. Others get None, and need no room for it.
    """
    if not is_divided(model):
        return model
    trained = trainer_state.model_tensors(model)
    if not wanted:
        return None
    made = make()
    trainer_state.load_model(made, trained)
    return made
