"""A tiny trainer in a run that is not one: what tests of training share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qscope.models import LoadedModel, load_model
from qscope.posttraining.alarms import Alarm, AlarmBoard
from qscope.posttraining.examples import Example
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.sae_loss import HeldFeatures, SaeLoss
from qscope.posttraining.sft_batches import Row, packed, rows_of
from qscope.posttraining.sft_terms import SaeTerm
from qscope.posttraining.sft_trainer import SftTrainer
from qscope.posttraining.trainable import prepare
from qscope.posttraining.training_order import step_count
from qscope.posttraining.tuning import trainer_arguments
from qscope.runs import Ranks, RunStopped
from qscope.runs.checkpoints import Checkpoints, SharedCheckpoints
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.posttraining_pb2 import TRAIN_METHOD_FULL, TRAIN_METHOD_LORA, Lora, Trainable, TuningOptimizer

CPU = torch.device("cpu")
FULL = Trainable(method=TRAIN_METHOD_FULL)
STILL_LORA = Trainable(method=TRAIN_METHOD_LORA, lora=Lora(rank=4, alpha=8, merge=True))
LORA = Trainable(method=TRAIN_METHOD_LORA, lora=Lora(rank=4, alpha=8, dropout=0.1, merge=True))


class Killed(BaseException):
    """What stands for a kill: no handler of a trainer catches it."""


@dataclass
class Context:
    """Stands in for a run context: checkpoints in a folder, metrics in a list, a stop or a kill at a step."""

    folder: Path
    stop_at: int = -1
    kill_at: int = -1
    keep: int = 2
    metrics_seen: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    step: int = 0
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        folder = self.folder / "checkpoints"
        own = Checkpoints(folder, keep=self.keep) if self.ranks.is_first else None
        self.checkpoints = own if own and self.ranks.count == 1 else SharedCheckpoints(folder, self.ranks, own)

    @property
    def stop_requested(self) -> bool:
        return self.ranks.any(0 <= self.stop_at <= self.step)

    def metrics(self, step: int, values: dict[int, dict[str, float]]) -> None:
        self.metrics_seen.append((step, dict(values[-1])))

    def progress(self, phase: str, current: float, total: float, unit: str) -> None:
        if phase == "training":
            self.step = int(current)
            if self.step == self.kill_at:
                raise Killed

    def info(self, text: str) -> None:
        self.said.append(text)

    warning = info

    def stop(self, step: int) -> None:
        raise RunStopped(step)

    def series(self, name: str) -> dict[int, float]:
        """One number by step."""
        return {step: values[name] for step, values in self.metrics_seen if name in values}


def examples(count: int = 10, vocabulary: int = 300) -> list[Example]:
    """Rows of random tokens: prompts of two to four, answers of one to twelve."""
    noise = torch.Generator().manual_seed(8)
    found = []
    for row in range(count):
        prompt, answer = 2 + row % 3, 1 + row * 5 % 12
        ids = torch.randint(3, vocabulary, (prompt + answer,), generator=noise).tolist()
        found.append(Example(tuple(ids), (False,) * prompt + (True,) * answer, ("xx", "zh", "de")[row % 3], row))
    return found


LANGUAGES = {"zh": 0, "de": 1, "xx": 2}


@dataclass
class Tuned:
    """A trainer and what it trains."""

    trainer: SftTrainer
    loaded: LoadedModel
    model: nn.Module
    context: Context

    def weights(self) -> dict[str, bytes]:
        return {name: p.detach().numpy().tobytes() for name, p in self.model.named_parameters()}


def tune(
    model_folder: Path,
    folder: Path,
    *,
    trainable: Trainable = FULL,
    term: Callable[[LoadedModel, nn.Module], Any] | None = None,
    rows: list[Example] | None = None,
    steps: int = 0,
    epochs: float = 2,
    batch: int = 2,
    accumulate: int = 2,
    checkpoint_every: int = 0,
    packing: bool = False,
    alarms: list[Alarm] | None = None,
    learning_rate: float = 1e-2,
    max_grad_norm: float = 1.0,
    log_every: int = 1,
    facts: dict[str, Any] | None = None,
    exact: bool = False,
    divided: bool = False,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    **context: Any,
) -> Tuned:
    """The trainer of a tiny model in a folder that may hold the checkpoints of an earlier one.

    ``exact``: in float64; ``divided``: among the ranks of the context.
    """
    rows = examples() if rows is None else rows
    loaded = load_model(str(model_folder), ModelOptions())
    if exact:
        loaded.model.double()
    model = prepare(loaded, trainable, seed=4, at="sft.trainable")
    made: list[Row] = rows_of(rows, [LANGUAGES[row.language] if row.language else -1 for row in rows])
    if packing:
        made = packed(made, 40)
    count = step_count(len(made), steps=steps, epochs=epochs, rows_per_step=batch * accumulate * ranks.count)
    arguments = trainer_arguments(
        "sft",
        TuningOptimizer(
            learning_rate=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.1, max_grad_norm=max_grad_norm
        ),
        trainable,
        device=CPU,
        autocast=False,
        steps=count,
        batch=batch,
        accumulate=accumulate,
        log_every=log_every,
        seed=12,
        folder=str(folder),
    )
    trainer = SftTrainer(
        model,
        loaded.decoder,
        loaded.tokenizer,
        made,
        arguments,
        term=term(loaded, model) if term else None,
        packed=packing,
        order_seed=9,
    )
    run = Context(folder, ranks=ranks, **context)
    trainer.bind(
        run, AlarmBoard(alarms or [], run.warning, at="sft.alarms"), checkpoint_every=checkpoint_every, facts=facts
    )
    if divided:
        trainer.divide(loaded.decoder)
    return Tuned(trainer, loaded, model, run)


def gradients_of(tuned: Tuned) -> dict[str, Tensor]:
    """Gradients of the first step, by parameter, as the optimiser would take them."""
    found: dict[str, Tensor] = {}

    def keep(*_: Any, **__: Any) -> None:
        if not found:
            found.update({name: p.grad.clone() for name, p in tuned.model.named_parameters() if p.grad is not None})

    tuned.trainer.callback_handler.callbacks[-1].on_pre_optimizer_step = keep
    tuned.trainer.train_run()
    return found


def held_tiny(layer: int, features: int = 3) -> HeldFeatures:
    """Random features of the tiny model that stand for zh, with thresholds that about half the tokens exceed."""
    noise = torch.Generator().manual_seed(200 + layer)
    rows = FeatureRows(
        layer,
        tuple(range(features)),
        20 * torch.randn(features, 32, generator=noise),
        0.1 * torch.randn(features, generator=noise),
    )
    holds_GM = torch.ones(3, features, dtype=torch.bool)
    holds_GM[LANGUAGES["zh"]] = False
    alpha_GM = 0.3 * torch.randn(3, features, generator=noise)
    return HeldFeatures(rows, torch.zeros(features, dtype=torch.int64), alpha_GM, holds_GM)


def sae_term(weight: float = 0.5, layers: tuple[int, ...] = (1, 3), **options: Any) -> Callable[..., SaeTerm]:
    """For ``tune``: the SAE loss on random features."""
    return lambda loaded, model: SaeTerm(SaeLoss([held_tiny(layer) for layer in layers], weight=weight, **options))
