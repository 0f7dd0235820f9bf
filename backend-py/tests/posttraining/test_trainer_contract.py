"""What our trainers count on inside transformers and TRL: an upgrade that moves it fails here, by name."""

from __future__ import annotations

import inspect
import re

import pytest
from accelerate.data_loader import SkipBatchSampler
from transformers import Trainer
from transformers.trainer_callback import CallbackHandler
from trl import GRPOTrainer, SFTTrainer
from trl.trainer.base_trainer import _BaseTrainer
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from qscope.posttraining.run_trainer import RunTrainer
from qscope.posttraining.sft_trainer import SftTrainer

#: Methods that are overridden: whose, name, parameters.
OVERRIDDEN = [
    (Trainer, "_save_checkpoint", ["self", "model", "trial"]),
    (Trainer, "_load_from_checkpoint", ["self", "resume_from_checkpoint", "model"]),
    (Trainer, "_load_optimizer_and_scheduler", ["self", "checkpoint"]),
    (Trainer, "_load_rng_state", ["self", "checkpoint"]),
    (Trainer, "_load_scaler", ["self", "checkpoint"]),
    (Trainer, "_get_grad_norm", ["self", "model", "grad_norm"]),
    (Trainer, "_get_num_items_in_batch", ["self", "batch_samples", "device"]),
    (Trainer, "get_train_dataloader", ["self"]),
    (Trainer, "compute_loss", ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]),
    (Trainer, "log", ["self", "logs", "start_time"]),
    (_BaseTrainer, "_send_telemetry", ["self"]),
    (_BaseTrainer, "create_model_card", ["self", "model_name", "dataset_name", "tags"]),
]


@pytest.mark.parametrize(("owner", "name", "parameters"), OVERRIDDEN, ids=[name for _, name, _ in OVERRIDDEN])
def test_what_is_overridden_is_there_with_its_parameters(owner: type, name: str, parameters: list[str]) -> None:
    found = getattr(owner, name, None)
    assert found is not None, f"{owner.__name__}.{name} is gone: what called it calls something else now"
    assert list(inspect.signature(found).parameters) == parameters, f"{owner.__name__}.{name} has other parameters"


@pytest.mark.parametrize("trainer", [SFTTrainer, GRPOTrainer])
def test_both_trainers_are_those_of_transformers(trainer: type) -> None:
    assert issubclass(trainer, Trainer)
    assert issubclass(trainer, _BaseTrainer)


def lines_in_order(function: object, *wanted: str) -> None:
    """That the source of a function holds these, one behind the other."""
    source = re.sub(r"\s+", " ", inspect.getsource(function))
    at = 0
    for piece in wanted:
        found = source.find(piece, at)
        assert found >= 0, f"{function.__qualname__} no longer has `{piece}` behind `{wanted[: wanted.index(piece)]}`"
        at = found + len(piece)


def test_a_resumed_run_is_put_back_in_the_order_we_count_on() -> None:
    # Weights before the optimiser is made; moments when it is.
    lines_in_order(Trainer.train, "self._load_from_checkpoint(resume_from_checkpoint)", "TrainerState.load_from_json(")
    lines_in_order(
        Trainer._prepare_for_training,
        "self.create_scheduler(",
        "self.model_wrapped = model",
        "self._load_optimizer_and_scheduler(resume_from_checkpoint)",
    )
    # The generators after the batches of the first step were read, which draws from them.
    lines_in_order(
        Trainer._run_epoch,
        "skip_first_batches(train_dataloader, steps_trained_in_current_epoch)",
        "self.get_batch_samples(",
        "if rng_to_sync: self._load_rng_state(resume_from_checkpoint)",
        "self.training_step(",
    )
    assert "skip_batches" in inspect.signature(SkipBatchSampler.__init__).parameters


def test_a_step_ends_in_the_order_we_count_on() -> None:
    lines_in_order(
        Trainer._run_epoch,
        "self._get_grad_norm(",
        "self.optimizer.step()",
        "self.lr_scheduler.step()",
        "model.zero_grad()",
        "self.state.global_step += 1",
        "self.callback_handler.on_step_end(",
        "self._maybe_log_save_evaluate(",
        "self.control.should_training_stop",
    )
    lines_in_order(
        Trainer._maybe_log_save_evaluate,
        "self.log(",
        "if self.control.should_save:",
        "self._save_checkpoint(model, trial)",
    )
    lines_in_order(CallbackHandler.on_save, "control.should_save = False")


def test_a_loss_over_the_tokens_of_the_step_is_not_divided_again() -> None:
    lines_in_order(Trainer.get_batch_samples, "self._get_num_items_in_batch(batch_samples, device)")
    lines_in_order(
        Trainer.training_step,
        "self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)",
        "num_items_in_batch is None",
        "loss = loss / self.current_gradient_accumulation_steps",
    )


def test_the_fused_output_layer_gives_what_the_loss_is_made_of() -> None:
    lines_in_order(SFTTrainer.__init__, "add_fused_lm_head(", 'outputs=("log_probs", "entropy", "is_top1")')
    assert next(iter(inspect.signature(add_fused_lm_head).parameters)) == "model"
    assert {"log_probs", "entropy"} <= set(FusedCausalLMOutput.__dataclass_fields__)
    lines_in_order(SFTTrainer.compute_loss, "model(**inputs, fused_lm_head=True)", "-outputs.log_probs")


def test_nothing_of_theirs_that_writes_or_sends_is_left() -> None:
    for owner, name, _ in OVERRIDDEN[:5] + OVERRIDDEN[-2:]:
        assert getattr(SftTrainer, name) is getattr(RunTrainer, name), f"{owner.__name__}.{name} is theirs"
