"""The plan of ``qscope sft``: rows are read and rendered, so that data and templates are checked; no model runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from qscope.features.files import load_features
from qscope.models import ModelShape, load_tokenizer
from qscope.posttraining.answer_head import HELD
from qscope.posttraining.examples import Examples, read_examples, samples
from qscope.posttraining.held_features import loss_layers
from qscope.posttraining.trainable import formats_of, refuse_layers
from qscope.posttraining.training_order import step_count
from qscope.posttraining.tuning import schedule_of
from qscope.recipes.feature_parts import language_run
from qscope.recipes.plan_features import Estimate
from qscope.recipes.plan_words import ranges
from qscope.recipes.sft_parts import ARM_WEIGHTS, ARM_WORDS, arm_of, needs_languages
from qscope.v1 import run_pb2
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.model_pb2 import PRECISION_BFLOAT16
from qscope.v1.posttraining_pb2 import TRAIN_METHOD_LORA, Trainable, TuningOptimizer
from qscope.v1.sft_pb2 import SFT_ARM_KL, SFT_ARM_RANDOM_FEATURES, SFT_ARM_SAE, SFT_ARM_TOKEN_PROBABILITY, Sft

AT = "sft"
FLOAT32, BFLOAT16 = 4, 2
#: Tensors as wide as the residual stream that a block keeps for its backward pass, with attention that is not stored.
KEPT_TENSORS = 34
#: Products of a training step over those of a forward pass: forward, and two products for every one backward.
STEP_OVER_FORWARD = 3
#: Linear layers of a decoder block, and how much wider than the residual stream they are together; for adapters.
_LINEAR, _WIDTHS = 7, 18


def plan_sft(experiment: Experiment, shape: ModelShape, device: torch.device, runs: Path) -> Estimate:
    """Plans a run; every row is read, so that what cannot be trained on is told before anything starts."""
    task = experiment.sft
    refuse_layers(task.trainable, shape.n_layers, at=f"{AT}.trainable")
    layers = _loss_layers(task, shape, runs)
    tokenizer = load_tokenizer(experiment.model, experiment.model_options)
    # Tagging every row would take a second for each thousand of them; what is shown is tagged.
    found = read_examples(
        task.data, tokenizer, task.format, context=task.context, at=f"{AT}.data", tag=needs_languages(task)
    )
    held = None
    if task.held_out.source:
        held = read_examples(
            task.held_out, tokenizer, task.format, context=task.context, at=f"{AT}.held_out", tag=False
        )
    size = _size(experiment, found)
    trained = trained_parameters(task.trainable, shape)
    planned = run_pb2.Plan(
        facts=[
            run_pb2.PlanFact(name=name, value=value) for name, value in _facts(task, shape, found, held, size, layers)
        ],
        memory=[
            run_pb2.MemoryItem(name=name, bytes=int(count))
            for name, count in training_memory(
                task.trainable,
                shape,
                experiment.model_options.precision,
                device,
                tokens=size.batch_tokens,
                whole_logits=task.arm in (SFT_ARM_KL, SFT_ARM_TOKEN_PROBABILITY),
                frozen_copy=task.arm == SFT_ARM_KL and task.trainable.method != TRAIN_METHOD_LORA,
            )
        ],
        disk_bytes=task.checkpoint.keep * trained * 3 * FLOAT32 + shape.parameters * FLOAT32,
        samples=samples(found.items, tokenizer),
        warnings=_warnings(task, found, size),
    )
    tokens = size.steps * size.rows_per_step * size.mean_tokens
    step = STEP_OVER_FORWARD + (1 if task.trainable.gradient_checkpointing else 0) + (task.arm == SFT_ARM_KL)
    evaluations = 0 if held is None else 2 + (size.steps // task.evaluate_every if task.evaluate_every else 0)
    evaluated = 0 if held is None else evaluations * sum(len(row.ids) for row in held.items)
    # The output layer reads the positions of answers only.
    read = sum(len(row.ids) for row in found.items)
    answers = sum(sum(row.answer) for row in found.items) / read
    forward = 2 * (shape.active_block_parameters + answers * shape.vocab_size * shape.d_model)
    return Estimate(planned, (step * tokens + evaluated) * forward)


@dataclass(frozen=True)
class _Size:
    steps: int
    rows_per_step: int
    mean_tokens: float
    batch_tokens: int
    processes: int


def _size(experiment: Experiment, found: Examples) -> _Size:
    task = experiment.sft
    lengths = [len(row.ids) for row in found.items]
    rows = math.ceil(sum(lengths) / task.context) if task.packing else len(lengths)
    per_step = task.micro_batch_rows * task.accumulate * max(1, experiment.compute.processes)
    longest = task.context if task.packing else max(lengths)
    return _Size(
        step_count(rows, steps=task.steps, epochs=task.epochs, rows_per_step=per_step),
        per_step,
        sum(lengths) / rows,
        task.micro_batch_rows * longest,
        max(1, experiment.compute.processes),
    )


def _loss_layers(task: Sft, shape: ModelShape, runs: Path) -> list[int]:
    if arm_of(task) not in (SFT_ARM_SAE, SFT_ARM_RANDOM_FEATURES):
        return []
    options, field = task.sae_loss, f"{AT}.sae_loss.features"
    found = load_features(language_run(options.features, runs, at=field), field=field)
    return loss_layers(options.layers, shape.n_layers, {entry.layer for entry in found.entries})


def trained_parameters(trainable: Trainable, shape: ModelShape) -> int:
    """Parameters that are trained, of adapters about."""
    blocks = len(trainable.layers) or shape.n_layers
    if trainable.method == TRAIN_METHOD_LORA:
        share = min(1.0, len(trainable.lora.targets) / _LINEAR) if trainable.lora.targets else 1.0
        return int(blocks * trainable.lora.rank * _WIDTHS * shape.d_model * share)
    if trainable.layers:
        return blocks * shape.block_parameters // shape.n_layers
    return shape.parameters


def trained_words(trainable: Trainable, shape: ModelShape) -> str:
    """How many parameters are trained, for a plan."""
    trained = trained_parameters(trainable, shape)
    lora = trainable.method == TRAIN_METHOD_LORA
    how = f"adapters of rank {trainable.lora.rank}, about " if lora else ""
    return f"{how}{trained:,} of {shape.parameters:,} parameters ({trained / shape.parameters:.1%})"


def rate_words(verb: str, optimizer: TuningOptimizer, trainable: Trainable) -> str:
    """The learning rate and its way over the steps, for a plan."""
    schedule = schedule_of(verb, optimizer, trainable)
    warm = f", {optimizer.warmup_steps:,} steps of warm-up" if optimizer.warmup_steps else ""
    return f"{schedule.learning_rate:g}, {schedule.word}{warm}"


def training_memory(
    trainable: Trainable,
    shape: ModelShape,
    precision: int,
    device: torch.device,
    *,
    tokens: int,
    whole_logits: bool = False,
    frozen_copy: bool = False,
) -> list[tuple[str, int]]:
    """What a training step holds on a device, use by use, in bytes.

    Args:
        trainable: what is trained.
        shape: of the model.
        precision: of the experiment.
        device: where it is.
        tokens: of a micro-batch, padding among them.
        whole_logits: whether the loss needs the whole distribution of each token at once.
        frozen_copy: whether the model before training is held too.
    """
    formats = formats_of(precision, device, trainable.method)
    weight = BFLOAT16 if formats.weights == PRECISION_BFLOAT16 else FLOAT32
    lora = trainable.method == TRAIN_METHOD_LORA
    trained = trained_parameters(trainable, shape)
    own = FLOAT32 if lora else weight
    kept = BFLOAT16 if formats.autocast else weight
    # With checkpointing each block keeps its input, and one block at a time all of it.
    tensors = shape.n_layers + KEPT_TENSORS if trainable.gradient_checkpointing else shape.n_layers * KEPT_TENSORS
    # Of answers alone, however many of the tokens they are. Elsewhere than on a CPU TRL's kernel goes through them in
    # tiles of 32,768 of the vocabulary.
    if whole_logits:
        logits = 3 * tokens * shape.vocab_size * FLOAT32
    elif device.type == "cpu":
        logits = 3 * min(tokens * shape.vocab_size, max(HELD, shape.vocab_size)) * FLOAT32
    else:
        logits = 2 * min(tokens, 4096) * min(shape.vocab_size, 1 << 15) * FLOAT32
    found = [("model", shape.parameters * weight)]
    if lora:
        found.append(("adapters", trained * own))
    found += [
        ("gradients", trained * own),
        ("Adam moments", 2 * trained * own),
        ("activations of a micro-batch, about", tokens * shape.d_model * tensors * kept),
        ("logits of a micro-batch, at most", logits),
    ]
    if frozen_copy:
        found.append(("model before training", shape.parameters * weight))
    return found


def _facts(
    task: Sft,
    shape: ModelShape,
    found: Examples,
    held: Examples | None,
    size: _Size,
    layers: list[int],
) -> list[tuple[str, str]]:
    lengths = [len(row.ids) for row in found.items]
    answers = sum(sum(row.answer) for row in found.items)
    facts = [
        ("rows", found.summary()),
        ("columns", found.template),
        (
            "tokens",
            f"{sum(lengths):,} a pass, {answers:,} of them answers; {min(lengths):,} to {max(lengths):,} a row",
        ),
        ("languages", _languages(found)),
        ("trained", trained_words(task.trainable, shape)),
        (
            "steps",
            f"{size.steps:,} of {size.rows_per_step:,} rows (micro-batches of {task.micro_batch_rows},"
            f" {task.accumulate} on each of {size.processes} {'process' if size.processes == 1 else 'processes'})",
        ),
        ("learning rate", rate_words(AT, task.optimizer, task.trainable)),
        ("arm", _arm(task, layers)),
    ]
    if held is not None:
        facts.append(("held out", held.summary()))
    return facts


def _languages(found: Examples) -> str:
    parts = []
    if found.given:
        parts.append("given: " + ", ".join(f"{name} {count:,}" for name, count in found.given.most_common(8)))
    if found.tagged:
        parts.append("tagged: " + ", ".join(f"{name} {count:,}" for name, count in found.tagged.most_common(8)))
    if found.untagged:
        parts.append(f"not known {found.untagged:,}")
    return "; ".join(parts)


def _arm(task: Sft, layers: list[int]) -> str:
    arm, options = arm_of(task), task.sae_loss
    said = ARM_WORDS[arm]
    if layers:
        targets = ", ".join(options.target_languages)
        return (
            f"{said} against {targets}, weight {options.weight:g}, {options.top_k} features a layer, layers"
            f" {ranges(layers)}"
        )
    weight = task.arm_weight or ARM_WEIGHTS.get(arm, 0.0)
    return f"{said}, weight {weight:g}" if weight else said


def _warnings(task: Sft, found: Examples, size: _Size) -> list[str]:
    warnings = []
    cut = sum(row.cut for row in found.items)
    if cut:
        warnings.append(f"{cut:,} of {len(found.items):,} rows lose their end to {AT}.context.")
    if 0 < size.steps <= task.optimizer.warmup_steps:
        warnings.append(f"All {size.steps:,} steps are warm-up: lower {AT}.optimizer.warmup_steps.")
    return warnings
