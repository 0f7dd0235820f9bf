"""Settings of fine-tuning that the experiment may leave to the verb, and those of the trainers underneath."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from qscope.v1.posttraining_pb2 import (
    LEARNING_RATE_DECAY_CONSTANT,
    LEARNING_RATE_DECAY_COSINE,
    LEARNING_RATE_DECAY_LINEAR,
    TRAIN_METHOD_LORA,
    Trainable,
    TuningOptimizer,
)

#: What is taken where the experiment says nothing: learning rate with all weights, with adapters, and decay.
DEFAULTS: dict[str, tuple[float, float, int]] = {
    "sft": (5e-5, 5e-4, LEARNING_RATE_DECAY_COSINE),
    "rl": (1e-6, 1e-5, LEARNING_RATE_DECAY_CONSTANT),
}
#: As transformers calls them.
_SCHEDULES = {
    LEARNING_RATE_DECAY_CONSTANT: "constant_with_warmup",
    LEARNING_RATE_DECAY_COSINE: "cosine",
    LEARNING_RATE_DECAY_LINEAR: "linear",
}
_WORDS = {
    LEARNING_RATE_DECAY_CONSTANT: "constant",
    LEARNING_RATE_DECAY_COSINE: "cosine",
    LEARNING_RATE_DECAY_LINEAR: "linear",
}


@dataclass(frozen=True)
class Schedule:
    """Learning rate and its way over the steps."""

    learning_rate: float
    decay: int

    @property
    def word(self) -> str:
        """The decay, in a word."""
        return _WORDS[self.decay]


def schedule_of(verb: str, optimizer: TuningOptimizer, trainable: Trainable) -> Schedule:
    """What the experiment says, or DEFAULTS."""
    full, adapters, decay = DEFAULTS[verb]
    usual = adapters if trainable.method == TRAIN_METHOD_LORA else full
    return Schedule(optimizer.learning_rate or usual, optimizer.decay or decay)


def trainer_arguments(
    verb: str,
    optimizer: TuningOptimizer,
    trainable: Trainable,
    *,
    device: torch.device,
    autocast: bool,
    steps: int,
    batch: int,
    accumulate: int,
    log_every: int,
    seed: int,
    folder: str,
) -> dict[str, Any]:
    """Arguments of ``transformers.TrainingArguments`` and of what TRL derives from it; nothing is left to its defaults
    that sends, prints, saves or evaluates.

    Args:
        verb: sft or rl.
        optimizer, trainable: of the experiment.
        device: where the run is.
        autocast: whether products are computed in bfloat16.
        steps: optimiser steps in all.
        batch: rows of a micro-batch on each rank.
        accumulate: micro-batches of a step on each rank.
        log_every: steps between two logs.
        seed: any size.
        folder: that trainers want to exist; nothing is written there.
    """
    schedule = schedule_of(verb, optimizer, trainable)
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulate,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": _SCHEDULES[schedule.decay],
        "warmup_steps": optimizer.warmup_steps,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "max_grad_norm": optimizer.max_grad_norm,
        "optim": "adamw_torch_fused",
        "bf16": autocast,
        "fp16": False,
        "use_cpu": device.type == "cpu",
        "gradient_checkpointing": trainable.gradient_checkpointing,
        # A reentrant one runs the pass that the SAE loss reads without autograd.
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if trainable.gradient_checkpointing else None,
        # set_seed also seeds NumPy, which takes 32 bits.
        "seed": seed % (1 << 32),
        "data_seed": seed % (1 << 32),
        "logging_strategy": "steps",
        "logging_steps": log_every,
        "logging_first_step": True,
        # It would replace a loss that is not finite by the mean of those before it.
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device.type == "cuda",
        "ddp_find_unused_parameters": False,
    }
