"""Device, threads and number format of a run."""

from __future__ import annotations

from pathlib import Path

import torch

from qscope.errors import UserError
from qscope.v1.experiment_pb2 import DEVICE_CPU, DEVICE_CUDA, Device
from qscope.v1.model_pb2 import PRECISION_BFLOAT16, PRECISION_FLOAT32, Precision


def choose_device(device: Device) -> torch.device:
    """The device an experiment asks for; ``auto`` takes a GPU when there is one.

    Raises:
        UserError: a GPU was asked for and there is none (NO_GPU).
    """
    if device == DEVICE_CPU:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if device == DEVICE_CUDA:
        raise UserError(
            "compute.device is cuda, but PyTorch sees no GPU.",
            remedy="Check nvidia-smi and the installed PyTorch build, or set compute.device: auto.",
            reason="NO_GPU",
            field="compute.device",
        )
    return torch.device("cpu")


def take_device(device: Device, rank: int, ranks: int) -> torch.device:
    """As :func:`choose_device`, for one of several processes: on GPUs each has its own, which becomes its current one.

    Raises:
        UserError: fewer GPUs than processes (TOO_FEW_GPUS), or NO_GPU.
    """
    require_devices(device, ranks)
    if choose_device(device).type == "cuda":
        torch.cuda.set_device(rank)
    return choose_device(device)


def require_devices(device: Device, ranks: int) -> None:
    """Refuses more processes than there are GPUs for them.

    Raises:
        UserError: TOO_FEW_GPUS or NO_GPU.
    """
    if choose_device(device).type == "cuda" and (found := torch.cuda.device_count()) < ranks:
        raise UserError(
            f"compute.processes is {ranks}, each needs a GPU of its own, and PyTorch sees {found}.",
            remedy=f"Set compute.processes to {found} or less, or compute.device: cpu.",
            reason="TOO_FEW_GPUS",
            field="compute.processes",
        )


def use_threads(threads: int) -> int:
    """Sets PyTorch's CPU threads for this process (0 leaves its own choice) and returns their number."""
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format of weights and activations; ``auto`` is bfloat16 on a GPU and float32 on a CPU."""
    if precision == PRECISION_FLOAT32:
        return torch.float32
    if precision == PRECISION_BFLOAT16:
        return torch.bfloat16
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def available_memory(device: torch.device) -> int:
    """Bytes free on the device; for the CPU the smaller of free memory and what the control group still allows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = None
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        room = int(limit.read_text()) - int(used.read_text())
        free = room if free is None else min(free, room)
    return free if free is not None else 8 << 30
