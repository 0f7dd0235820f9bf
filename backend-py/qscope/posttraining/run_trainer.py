"""A trainer of transformers (TRL's too) inside a run of ours.

``class Ours(RunTrainer, SFTTrainer)`` or ``class Ours(RunTrainer, GRPOTrainer)``: the loop, the optimiser and the
schedule are theirs. Ours are checkpoints (safetensors and JSON, whole or absent, of which a resumed run is bit-equal),
stopping within a step, metrics, alarms, and that nothing is sent anywhere or printed. What is overridden is private in
their libraries; ``tests/posttraining/test_trainer_contract.py`` says what each override counts on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from qscope.errors import UserError
from qscope.models.architectures import Decoder
from qscope.posttraining import sharding, trainer_state
from qscope.posttraining.alarms import AlarmBoard
from qscope.posttraining.collective import added, wait_for_all
from qscope.runs import RunContext
from qscope.runs.checkpoints import Checkpoint

_STATE_FILE = "trainer_state.json"


class RunTrainer:
    """Mixin before a trainer class; :meth:`bind` once after construction, then :meth:`train_run`.

    A subclass adds to a checkpoint with :meth:`extra_state` and :meth:`load_extra_state`, and to the log with
    :meth:`add_metric`. It calls ``self.alarms.seen`` where it has something to tell.
    """

    run_context: RunContext
    alarms: AlarmBoard

    def bind(
        self,
        context: RunContext,
        alarms: AlarmBoard,
        *,
        checkpoint_every: int = 0,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Joins the trainer to its run.

        Args:
            context: of the run; on ranks other than 0 one that writes nothing.
            alarms: of the experiment.
            checkpoint_every: steps between checkpoints; 0 writes one when stopped and at the end.
            facts: what must be the same when the run is resumed, such as the digest of the data.
        """
        self.run_context, self.alarms = context, alarms
        self._checkpoint_every = checkpoint_every
        self._facts = json.loads(json.dumps(dict(facts or {})))
        self._resumed: Checkpoint | None = None
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._tokens_seen = 0
        self._window = (time.monotonic(), 0)
        for shown in (PrinterCallback, ProgressCallback):
            self.remove_callback(shown)
        self.add_callback(_AtSteps(self))

    def divide(self, decoder: Decoder) -> None:
        """Divides the model among the ranks (FSDP2), before it trains. Collective.

        accelerate is told that the model is prepared: it would replicate it, or refuse one that is divided.
        """
        sharding.divide(self.model, decoder)
        # What is left of preparing a model: products in bfloat16.
        self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.model._is_accelerate_prepared = True

    # -- what a subclass uses ------------------------------------------------------------------------------------

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON that a subclass needs to go on, such as a buffer of rollouts. Collective."""
        return {}, {}

    def load_extra_state(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Puts back what :meth:`extra_state` gave."""

    def before_steps(self) -> None:
        """Called once before the first step of a run, not when it goes on."""

    def after_step(self, step: int) -> None:
        """Called after each optimiser step, before its checkpoint: held-out loss, evaluation."""

    def add_metric(self, name: str, total: Tensor | float, weight: Tensor | float = 1.0) -> None:
        """Adds to the mean that the next log tells: the sum of totals over the sum of weights, over all ranks.

        No device waits for it: numbers are read when they are logged.
        """
        for held, value in ((self._sums, total), (self._weights, weight)):
            part = torch.as_tensor(value).detach().to(self.args.device, torch.float64)
            held[name] = held[name] + part if name in held else part

    def count_tokens(self, tokens: int) -> None:
        """Adds tokens of this step, over all ranks, to the speed that is logged."""
        self._tokens_seen += tokens

    def stop_asked(self) -> bool:
        """Whether any rank was asked to stop; all of them leave after the same step. Collective."""
        return self.run_context.stop_requested

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of the whole run at a step, at once."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if finite:
            self.run_context.metrics(step, {-1: finite})

    # -- the run -------------------------------------------------------------------------------------------------

    def train_run(self) -> int:
        """Trains from the newest checkpoint, or from the start, to the end or to where it is asked to stop.

        Returns:
            The steps done.

        Raises:
            RunStopped: it was asked to stop; a checkpoint is written.
            UserError: an alarm that stops, a loss that is not finite (NOT_FINITE), or a checkpoint of other data or
                another model (CHECKPOINT_MISMATCH).
        """
        context = self.run_context
        checkpoint = context.checkpoints.load_newest()
        if checkpoint is None:
            if context.stop_requested:
                context.stop(0)
            self.train()
        else:
            self._refuse_changed(checkpoint.state["facts"])
            self._resumed = checkpoint
            with tempfile.TemporaryDirectory(prefix="qscope-resume-") as folder:
                Path(folder, _STATE_FILE).write_text(json.dumps(checkpoint.state["trainer"]), encoding="utf-8")
                context.info(f"resumed at step {checkpoint.step:,}")
                self.train(resume_from_checkpoint=folder)
            self._resumed = None
        step = self.state.global_step
        if self.alarms.error is not None:
            raise self.alarms.error
        if step < self.state.max_steps:
            context.stop(step)
        return step

    def _refuse_changed(self, facts: Mapping[str, Any]) -> None:
        changed = [name for name in {*facts, *self._facts} if facts.get(name) != self._facts.get(name)]
        if changed:
            raise UserError(
                f"The {sorted(changed)[0]} is another than when this run began.",
                remedy="Put back what it began with, or start a new run: this one cannot go on with anything else.",
                reason="CHECKPOINT_MISMATCH",
            )

    # -- checkpoints: in the place of theirs, which pickle and write model cards ------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """In the place of the trainer's own; collective."""
        wrapped, step = self.model_wrapped, self.state.global_step
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        moments, groups = trainer_state.optimizer_state(wrapped, optimizer)
        noise, generators = trainer_state.random_states()
        more, extra = self.extra_state()
        tensors = {
            **trainer_state.model_tensors(wrapped),
            **moments,
            **noise,
            **{f"extra.{name}": tensor for name, tensor in more.items()},
        }
        # Their history of logs would grow with every step; the journal has it.
        self.state.log_history = []
        state = {
            "trainer": dataclasses.asdict(self.state),
            "scheduler": self.lr_scheduler.state_dict(),
            "groups": groups,
            "generators": generators,
            "tokens": self._tokens_seen,
            "alarms": self.alarms.state(),
            "facts": self._facts,
            "extra": extra,
        }
        if self.args.process_index == 0:
            self.run_context.checkpoints.save(step, tensors, state)
        wait_for_all()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        trainer_state.load_model(self.model if model is None else model, self._kept.tensors)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        kept = self._kept
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        trainer_state.load_optimizer(self.model_wrapped, optimizer, kept.tensors, kept.state["groups"])
        self.lr_scheduler.load_state_dict(kept.state["scheduler"])
        self._tokens_seen = kept.state["tokens"]
        self._window = (time.monotonic(), self._tokens_seen)
        self.alarms.load_state(kept.state["alarms"])
        prefix = "extra."
        tensors = {k.removeprefix(prefix): t for k, t in kept.tensors.items() if k.startswith(prefix)}
        self.load_extra_state(tensors, kept.state["extra"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            trainer_state.load_random_states(self._kept.tensors, self._kept.state["generators"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Nothing: bfloat16 and float32 need no scaler of losses."""

    @property
    def _kept(self) -> Checkpoint:
        assert self._resumed is not None, "train_run knows the checkpoint"
        return self._resumed

    # -- metrics --------------------------------------------------------------------------------------------------

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Theirs, asked before the optimiser steps: what is not finite must not reach the weights."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(float(norm)):
            raise UserError(
                f"The gradient of step {self.state.global_step + 1:,} is not finite.",
                remedy="Lower optimizer.learning_rate or the weight of the auxiliary loss; the checkpoint before it is"
                " intact.",
                reason="NOT_FINITE",
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Theirs to our journal; their own history stays empty."""
        super().log(logs, start_time)
        self.state.log_history = []
        if "train_runtime" in logs:
            # Their summary at the end of training, which the journal has already.
            return
        names = sorted(self._sums)
        if names:
            pairs_N2 = torch.stack([torch.stack([self._sums[name], self._weights[name]]) for name in names])
            sums = zip(names, added(pairs_N2).tolist(), strict=True)
            found = {name: total / weight for name, (total, weight) in sums if weight}
            logs.update(found)
            self._sums, self._weights = {}, {}
        now, (before, tokens) = time.monotonic(), self._window
        logs |= {
            "tokens": self._tokens_seen,
            "tokens_per_second": (self._tokens_seen - tokens) / max(now - before, 1e-9),
        }
        self._window = (now, self._tokens_seen)
        numbers = {name: value for name, value in logs.items() if isinstance(value, int | float) and name != "epoch"}
        self.report(self.state.global_step, numbers)

    def _send_telemetry(self) -> None:
        """Nothing is sent."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card: the run folder says what a model is."""


class _AtSteps(TrainerCallback):
    """Progress, evaluation, checkpoints and stopping, where a step has ended."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._trainer.before_steps()
        self._trainer.run_context.progress("training", state.global_step, state.max_steps, "steps")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, step = self._trainer, state.global_step
        last = step >= state.max_steps
        trainer.after_step(step)
        trainer.run_context.progress("training", step, state.max_steps, "steps")
        stop = trainer.stop_asked() or trainer.alarms.error is not None
        every = trainer._checkpoint_every
        control.should_save = last or stop or bool(every and step % every == 0)
        control.should_log |= last or stop
        control.should_training_stop |= last or stop
