"""What the trainer of ``qscope rl`` counts on inside TRL: an upgrade that moves it fails here, by name."""

from __future__ import annotations

import inspect

import pytest
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from qscope.posttraining.rl_trainer import RlTrainer
from qscope.posttraining.run_trainer import RunTrainer
from tests.posttraining.test_trainer_contract import lines_in_order

OVERRIDDEN = [
    ("_prepare_inputs", ["self", "generation_batch"]),
    ("_generate_and_score_completions", ["self", "inputs"]),
    ("_compute_loss", ["self", "model", "inputs"]),
    ("log", ["self", "logs", "start_time"]),
]


@pytest.mark.parametrize(("name", "parameters"), OVERRIDDEN, ids=[name for name, _ in OVERRIDDEN])
def test_what_is_overridden_is_there_with_its_parameters(name: str, parameters: list[str]) -> None:
    found = getattr(GRPOTrainer, name, None)
    assert found is not None, f"GRPOTrainer.{name} is gone: what called it calls something else now"
    assert list(inspect.signature(found).parameters) == parameters
    assert getattr(RlTrainer, name) is not found
    assert list(inspect.signature(getattr(RlTrainer, name)).parameters) == parameters


def test_every_micro_batch_asks_for_its_inputs_and_is_counted_once() -> None:
    lines_in_order(
        GRPOTrainer.training_step, "super().training_step(model, inputs, num_items_in_batch)", "self._step += 1"
    )
    lines_in_order(GRPOTrainer.__init__, "self._step = 0", "self._buffered_inputs = None")
    lines_in_order(
        GRPOTrainer._prepare_inputs,
        "generate_every = self.args.steps_per_generation * self.num_iterations",
        "self._step % generate_every == 0",
        "self._generate_and_score_completions(generation_batch)",
        "self._buffered_inputs[self._step % self.args.steps_per_generation]",
    )


def test_the_loss_is_ours_and_is_not_divided_again() -> None:
    lines_in_order(GRPOTrainer.compute_loss, "return self._compute_loss(model, inputs)")
    # Micro-batches are added up: what they are means of is theirs to say.
    assert GRPOTrainer.loss_is_scaled_for_ga is True


def test_the_output_layer_takes_log_probabilities_at_the_temperature_of_sampling() -> None:
    lines_in_order(
        GRPOTrainer.__init__,
        "add_fused_lm_head(",
        "temperature=self.temperature",
        'outputs=("log_probs", "entropy")',
    )
    lines_in_order(
        GRPOTrainer._get_per_token_logps_and_entropies,
        "model(**model_inputs, labels=labels, fused_lm_head=True)",
        "outputs.log_probs",
        "outputs.entropy",
    )


def test_one_pass_over_the_place_holder_is_the_whole_run() -> None:
    # As many batches as there are micro-batches of all updates on the rollouts of so many prompts.
    sampler = RepeatSampler(list(range(6)), mini_repeat_count=4, batch_size=3, repeat_count=5, shuffle=False, seed=0)
    assert len(list(sampler)) == len(sampler) == 2 * 5 * 3 * 4
    lines_in_order(
        GRPOTrainer._get_train_sampler,
        "batch_size=self.args.generation_batch_size // self.num_generations",
        "repeat_count=self.num_iterations * self.args.steps_per_generation",
    )
    lines_in_order(
        GRPOTrainer.get_train_dataloader, "batch_size=self._train_batch_size * self.args.steps_per_generation"
    )


def test_settings_that_would_add_to_the_loss_or_to_the_model_still_exist_to_be_switched_off() -> None:
    names = set(GRPOConfig.__dataclass_fields__)
    assert {"beta", "router_aux_loss_coef", "shuffle_dataset", "loss_type", "steps_per_generation"} <= names
    assert GRPOConfig.__dataclass_fields__["entropy_coef"].default == 0.0


def test_nothing_of_theirs_that_writes_or_sends_is_left() -> None:
    for name in ("_save_checkpoint", "_load_optimizer_and_scheduler", "_send_telemetry", "create_model_card"):
        assert getattr(RlTrainer, name) is getattr(RunTrainer, name), f"{name} is theirs"
