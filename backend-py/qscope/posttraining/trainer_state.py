"""What a training step leaves behind, as tensors by name and JSON: enough to go on as if nothing had happened.

Weights and moments are taken and put back by the names of parameters, whole, so that it does not matter how they were
spread over ranks (DDP, FSDP2) or in which order an optimiser holds them. Only what is trained is kept: the rest is the
model the run began with.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from qscope.errors import UserError
from qscope.posttraining.collective import gathered, rank_and_count, shared

_MODEL, _MOMENTS, _RANDOM = "model", "optimizer", "random"


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """``model.<name>``: every trained tensor once, whole. A collective call where ranks share the model.

    Args:
        model: as it is trained, wrapped or not.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=shared(), ignore_frozen_params=True)
    found: dict[str, Tensor] = {}
    places: set[tuple[int, int]] = set()
    for name, tensor in get_model_state_dict(model, options=options).items():
        # Tied weights have several names; each is put back by any of them.
        place = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() and not shared() and place in places:
            continue
        places.add(place)
        found[f"{_MODEL}.{name}"] = tensor
    return found


def load_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what :func:`model_tensors` took.

    Raises:
        UserError: other parameters are trained than when the checkpoint was written (CHECKPOINT_MISMATCH).
    """
    kept = _part(tensors, _MODEL)
    trained = {_plain(name): p for name, p in model.named_parameters() if p.requires_grad}
    missing, foreign = set(trained) - set(kept), [name for name in kept if name in trained]
    tied = {id(trained[name]) for name in foreign}
    if any(id(trained[name]) not in tied for name in missing):
        raise UserError(
            f"The checkpoint has no weights of {sorted(missing)[0]}, which is trained now.",
            remedy="Resume with what was trained before, or start a new run.",
            reason="CHECKPOINT_MISMATCH",
        )
    set_model_state_dict(model, kept, options=StateDictOptions(full_state_dict=True, strict=False))


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """``optimizer.<moment>.<name>`` and the settings of parameter groups. Collective, as :func:`model_tensors`.

    Of several ranks the first is given them, the others nothing.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # A pass without a backward one, on held-out rows, leaves the whole weights of the root in the place of
            # this rank's part, which the optimiser knows.
            module.reshard()
    options = StateDictOptions(full_state_dict=True, cpu_offload=shared())
    state = get_optimizer_state_dict(model, optimizer, options=options)
    tensors = {
        f"{_MOMENTS}.{moment}.{name}": torch.as_tensor(value)
        for name, moments in state.get("state", {}).items()
        for moment, value in moments.items()
    }
    return tensors, state.get("param_groups", [])


def load_optimizer(
    model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Puts back what :func:`optimizer_state` took."""
    state: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _part(tensors, _MOMENTS).items():
        moment, _, name = key.partition(".")
        state.setdefault(name, {})[moment] = tensor
    # JSON has no tuples, and AdamW's betas are one.
    groups = [{**group, "betas": tuple(group["betas"])} if "betas" in group else group for group in groups]
    whole = {"state": state, "param_groups": groups}
    set_optimizer_state_dict(model, optimizer, whole, options=StateDictOptions(full_state_dict=True))


def random_states() -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """States of Python's, NumPy's and torch's generators of every rank, as tensors and JSON. Collective."""
    kind, words, position, has_gauss, gauss = np.random.get_state()
    assert kind == "MT19937"
    version, inner, spare = random.getstate()
    plain = {
        "python": [version, list(inner), spare],
        "numpy": [position, has_gauss, gauss],
    }
    own = {"numpy": torch.from_numpy(words.astype(np.int64)), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    everyone = gathered((plain, own))
    tensors = {
        f"{_RANDOM}.{rank}.{name}": tensor for rank, (_, owned) in enumerate(everyone) for name, tensor in owned.items()
    }
    return tensors, [said for said, _ in everyone]


def load_random_states(tensors: Mapping[str, Tensor], plain: list[dict[str, Any]]) -> None:
    """Puts this rank's generators back.

    Raises:
        UserError: the checkpoint was written by another number of ranks (CHECKPOINT_RANKS).
    """
    rank, ranks = rank_and_count()
    if len(plain) != ranks:
        raise UserError(
            f"The checkpoint was written by {len(plain)} processes, and this run has {ranks}.",
            remedy=f"Resume with compute.processes: {len(plain)}.",
            reason="CHECKPOINT_RANKS",
            field="compute.processes",
        )
    own = _part(tensors, f"{_RANDOM}.{rank}")
    version, inner, spare = plain[rank]["python"]
    random.setstate((version, tuple(inner), spare))
    position, has_gauss, gauss = plain[rank]["numpy"]
    np.random.set_state(("MT19937", own["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(own["torch"])
    if "cuda" in own and torch.cuda.is_available():
        torch.cuda.set_rng_state(own["cuda"])


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _plain(name: str) -> str:
    """A parameter's name as state dictionaries have it, without what wrappers put before it."""
    return name.removeprefix("module.").replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")
