"""What the experiment leaves to the verb: number formats, learning rates, schedules, numbers of steps."""

from __future__ import annotations

import pytest
import torch

from qscope.posttraining.alarms import Alarm, AlarmBoard
from qscope.posttraining.trainable import Formats, formats_of
from qscope.posttraining.training_order import TrainingOrder, step_count
from qscope.posttraining.tuning import Schedule, schedule_of, trainer_arguments
from qscope.v1.model_pb2 import PRECISION_AUTO, PRECISION_BFLOAT16, PRECISION_FLOAT32
from qscope.v1.posttraining_pb2 import (
    ALARM_ACTION_OFF,
    ALARM_ACTION_STOP,
    ALARM_ACTION_WARN,
    LEARNING_RATE_DECAY_CONSTANT,
    LEARNING_RATE_DECAY_COSINE,
    LEARNING_RATE_DECAY_LINEAR,
    TRAIN_METHOD_FULL,
    TRAIN_METHOD_LORA,
    Trainable,
    TuningOptimizer,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FULL, LORA = Trainable(method=TRAIN_METHOD_FULL), Trainable(method=TRAIN_METHOD_LORA)


@pytest.mark.parametrize(
    ("precision", "device", "method", "weights", "autocast"),
    [
        (PRECISION_AUTO, GPU, TRAIN_METHOD_FULL, PRECISION_FLOAT32, True),
        (PRECISION_AUTO, GPU, TRAIN_METHOD_LORA, PRECISION_BFLOAT16, True),
        (PRECISION_AUTO, CPU, TRAIN_METHOD_FULL, PRECISION_FLOAT32, False),
        (PRECISION_AUTO, CPU, TRAIN_METHOD_LORA, PRECISION_FLOAT32, False),
        (PRECISION_FLOAT32, GPU, TRAIN_METHOD_FULL, PRECISION_FLOAT32, False),
        (PRECISION_BFLOAT16, GPU, TRAIN_METHOD_FULL, PRECISION_BFLOAT16, True),
        (PRECISION_BFLOAT16, CPU, TRAIN_METHOD_LORA, PRECISION_BFLOAT16, False),
    ],
)
def test_number_formats(precision: int, device: torch.device, method: int, weights: int, autocast: bool) -> None:
    assert formats_of(precision, device, method) == Formats(weights, autocast)


def test_what_is_left_out_of_the_optimizer_is_the_verbs_own() -> None:
    nothing = TuningOptimizer()
    assert schedule_of("sft", nothing, FULL) == Schedule(5e-5, LEARNING_RATE_DECAY_COSINE)
    assert schedule_of("sft", nothing, LORA) == Schedule(5e-4, LEARNING_RATE_DECAY_COSINE)
    assert schedule_of("rl", nothing, FULL) == Schedule(1e-6, LEARNING_RATE_DECAY_CONSTANT)
    assert schedule_of("rl", nothing, LORA) == Schedule(1e-5, LEARNING_RATE_DECAY_CONSTANT)
    given = TuningOptimizer(learning_rate=3e-4, decay=LEARNING_RATE_DECAY_LINEAR)
    assert schedule_of("rl", given, LORA) == Schedule(3e-4, LEARNING_RATE_DECAY_LINEAR)


def test_the_trainer_is_told_to_send_print_and_save_nothing() -> None:
    checkpointed = Trainable(method=TRAIN_METHOD_FULL, gradient_checkpointing=True)
    told = trainer_arguments(
        "sft",
        TuningOptimizer(),
        checkpointed,
        device=CPU,
        autocast=False,
        steps=3,
        batch=2,
        accumulate=4,
        log_every=1,
        seed=1 << 62,
        folder="x",
    )
    assert (told["report_to"], told["save_strategy"], told["push_to_hub"], told["disable_tqdm"]) == (
        "none",
        "no",
        False,
        True,
    )
    assert told["logging_nan_inf_filter"] is False
    assert told["gradient_checkpointing_kwargs"] == {"use_reentrant": False}
    assert 0 <= told["seed"] < 1 << 32


def test_steps_are_as_many_as_the_passes_need_and_every_one_is_full() -> None:
    assert step_count(100, steps=7, epochs=9, rows_per_step=8) == 7
    assert step_count(100, steps=0, epochs=1, rows_per_step=8) == 13
    assert step_count(100, steps=0, epochs=0.5, rows_per_step=10) == 5
    assert step_count(3, steps=0, epochs=1, rows_per_step=8) == 1
    batches = list(TrainingOrder(5, batch=2, steps=3, batches=2, seed=1))
    assert [len(batch) for batch in batches] == [2] * 6
    flat = [row for batch in batches for row in batch]
    # Each pass has every row once, in an order of its own.
    assert sorted(flat[:5]) == sorted(flat[5:10]) == list(range(5))
    assert flat != [row for batch in TrainingOrder(5, batch=2, steps=3, batches=2, seed=2) for row in batch]
    assert flat[:5] != flat[5:10]


def test_an_alarm_waits_for_its_patience_and_speaks_once() -> None:
    said: list[str] = []

    def board(action: int) -> AlarmBoard:
        return AlarmBoard([Alarm("collapse", action, 3, "It falls apart", "Stop.")], said.append, at="sft.alarms")

    warned = board(ALARM_ACTION_WARN)
    for bad in (True, True, False, True, True, True, True, False, True, True, True):
        warned.seen("collapse", bad, "0.5")
    assert said == ["It falls apart (0.5). Stop."] * 2
    assert warned.error is None
    # Going on from a checkpoint counts on.
    first, second = board(ALARM_ACTION_STOP), board(ALARM_ACTION_STOP)
    first.seen("collapse", True)
    first.seen("collapse", True)
    second.load_state(first.state())
    second.seen("collapse", True)
    assert second.error is not None
    assert second.error.reason == "ALARM_COLLAPSE"
    off = board(ALARM_ACTION_OFF)
    for _ in range(9):
        off.seen("collapse", True)
        off.seen("unknown", True)
    assert (off.error, len(said)) == (None, 2)
