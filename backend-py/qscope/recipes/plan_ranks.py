"""What several processes change in a plan: which verbs have them, and what they need together."""

from __future__ import annotations

import torch

from qscope.errors import UserError
from qscope.models.device import require_devices
from qscope.v1 import run_pb2
from qscope.v1.experiment_pb2 import SHARDING_FSDP2, Experiment

#: Verbs whose work is divided; what others compute is not worth a second model.
_WITH_RANKS = frozenset({"sft", "rl"})
#: What FSDP2 divides among ranks, by its name in a plan.
_DIVIDED = frozenset({"model", "adapters", "gradients", "Adam moments"})


def refuse_processes(experiment: Experiment) -> None:
    """Refuses more processes than a verb or a machine has use for.

    Raises:
        UserError: another verb than sft and rl (ONE_PROCESS), a model to be shared by one process (NOTHING_TO_SHARE),
            or fewer GPUs than processes (TOO_FEW_GPUS).
    """
    compute, task = experiment.compute, experiment.WhichOneof("task") or ""
    if compute.processes > 1 and task not in _WITH_RANKS:
        raise UserError(
            f"compute.processes is {compute.processes}, but {task.replace('_', '-')} runs in one process.",
            remedy="Set compute.processes to 1; compute.threads says how many cores a run has.",
            reason="ONE_PROCESS",
            field="compute.processes",
        )
    if compute.sharding == SHARDING_FSDP2 and compute.processes <= 1:
        raise UserError(
            "compute.sharding is fsdp2, which divides a model among processes, but compute.processes is 1.",
            remedy="Set compute.processes to the number of GPUs, or compute.sharding: replicated.",
            reason="NOTHING_TO_SHARE",
            field="compute.sharding",
        )
    require_devices(compute.device, max(1, compute.processes))


def add_ranks(planned: run_pb2.Plan, experiment: Experiment, device: torch.device) -> None:
    """Says how many ranks there are, and turns the memory of one into what its device has to hold, in place.

    On a CPU that is the memory of all ranks, on GPUs of one.
    """
    compute = experiment.compute
    count = compute.processes
    if count <= 1:
        return
    divided = compute.sharding == SHARDING_FSDP2
    how = "each holds a part of the model (FSDP2)" if divided else "each holds the model (DDP)"
    over = "NCCL, a GPU each" if device.type == "cuda" else "gloo, memory is that of all"
    planned.facts.append(run_pb2.PlanFact(name="processes", value=f"{count}, {how}; {over}"))
    if not divided:
        # DDP keeps a second copy, in which they travel.
        gradients = sum(item.bytes for item in planned.memory if item.name == "gradients")
        planned.memory.append(run_pb2.MemoryItem(name="gradients on their way", bytes=gradients))
    for item in planned.memory:
        share = count if divided and item.name in _DIVIDED else 1
        item.bytes = item.bytes * (1 if device.type == "cuda" else count) // share
