"""``qscope sft``: supervised fine-tuning, with an SAE loss that keeps answers from switching language."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from qscope import __version__
from qscope.models import LoadedModel, check_hooks, choose_device, load_model
from qscope.models.resolve import load_config, resolve
from qscope.posttraining.alarms import Alarm, AlarmBoard
from qscope.posttraining.dead_signal import refuse_nothing_trainable
from qscope.posttraining.examples import Examples, read_examples
from qscope.posttraining.packing_check import refuse_mixing
from qscope.posttraining.sae_loss import UNTAGGED
from qscope.posttraining.sft_batches import Row, packed, rows_of
from qscope.posttraining.sft_trainer import SftTrainer
from qscope.posttraining.sharding import whole
from qscope.posttraining.trainable import Output, count_parameters, formats_of, prepare, save_model, with_format
from qscope.posttraining.training_order import step_count
from qscope.posttraining.tuning import trainer_arguments
from qscope.recipes.admission import admit
from qscope.recipes.sft_parts import Arm, frozen_start, make_arm, needs_languages, with_start
from qscope.recipes.sft_report import sft_report
from qscope.recipes.shared import pin_revision
from qscope.runs import RunContext
from qscope.runs.files import write_json
from qscope.v1.experiment_pb2 import SHARDING_FSDP2
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.posttraining_pb2 import Alarms
from qscope.v1.sft_pb2 import Sft

AT = "sft"
MODEL, RECORD = "model", "training.json"


def run(context: RunContext) -> None:
    """Reads the rows, trains, and writes the model; goes on from the newest checkpoint, bit for bit."""
    experiment, task = context.experiment, context.experiment.sft
    planned = admit(context)
    facts = {fact.name: fact.value for fact in planned.facts}
    context.info(f"loading {facts['model']} on {facts['device']}")
    pin_revision(context, task.data, f"{AT}.data")
    pin_revision(context, task.held_out, f"{AT}.held_out")

    device = choose_device(experiment.compute.device)
    formats = formats_of(experiment.model_options.precision, device, task.trainable.method)
    options = with_format(experiment.model_options, formats)
    loaded = load_model(experiment.model, options, device)
    check_hooks(loaded)
    if task.packing:
        refuse_mixing(loaded)
    output = Output.of(loaded.model, _own_dtype(experiment.model, options, loaded))

    found = read_examples(
        task.data, loaded.tokenizer, task.format, context=task.context, at=f"{AT}.data", tag=needs_languages(task)
    )
    _tell_rows(context, found)
    arm = make_arm(context, task, loaded, found)
    start = frozen_start(task, loaded)
    model = prepare(loaded, task.trainable, seed=context.seed_for("adapters"), at=f"{AT}.trainable")
    with_start(arm, task, model, start)
    if arm.term is not None and arm.term.layers:
        refuse_nothing_trainable(model, loaded.decoder, arm.term.layers)
    rows = rows_of(arm.rows, arm.ids)
    if task.packing:
        rows = packed(rows, task.context)

    trainer = _trainer(context, task, loaded, model, rows, arm, found, formats.autocast, str(device))
    held_out = _held_out_rows(context, task, loaded)
    if held_out:
        trainer.hold_out(held_out, every=task.evaluate_every)
    if experiment.compute.sharding == SHARDING_FSDP2:
        trainer.divide(loaded.decoder)
    steps = trainer.train_run()
    trained = whole(model, lambda: _untrained(context, options), wanted=context.ranks.is_first)
    if trained is not None and context.ranks.is_first:
        _export(context, task, loaded, trained, output, trainer, arm, found, steps)


def _untrained(context: RunContext, options: ModelOptions) -> Any:
    """The model as it was before it was divided among ranks."""
    experiment, trainable = context.experiment, context.experiment.sft.trainable
    loaded = load_model(experiment.model, options)
    return prepare(loaded, trainable, seed=context.seed_for("adapters"), at=f"{AT}.trainable")


def _own_dtype(name: str, options: Any, loaded: LoadedModel) -> Any:
    """The number format of the model's own files, in which a trained one is written too."""
    return load_config(resolve(name, options)).dtype or loaded.dtype


def _tell_rows(context: RunContext, found: Examples) -> None:
    context.info(f"{found.summary()}: {found.template}")
    if found.tagged or found.untagged:
        tagged = ", ".join(f"{name} {count:,}" for name, count in found.tagged.most_common())
        said = f"languages tagged by their text: {tagged}" if found.tagged else "no language is told"
        context.info(f"{said}; untagged {found.untagged:,}")
    if found.left_out:
        first = found.faults[0]
        context.warning(
            f"{sum(found.left_out.values()):,} of {found.read:,} rows left out, the first: {first.place}: {first.why}."
        )
    cut = sum(row.cut for row in found.items)
    if cut:
        context.warning(f"{cut:,} rows lose their end to {AT}.context.")


def _held_out_rows(context: RunContext, task: Sft, loaded: LoadedModel) -> list[Row]:
    if not task.held_out.source:
        return []
    found = read_examples(
        task.held_out, loaded.tokenizer, task.format, context=task.context, at=f"{AT}.held_out", tag=False
    )
    context.info(f"held out: {found.summary()}")
    rows = rows_of(found.items, [UNTAGGED] * len(found.items))
    return packed(rows, task.context) if task.packing else rows


def _trainer(
    context: RunContext,
    task: Sft,
    loaded: LoadedModel,
    model: Any,
    rows: list[Row],
    arm: Arm,
    found: Examples,
    autocast: bool,
    device: str,
) -> SftTrainer:
    import torch

    per_step = task.micro_batch_rows * task.accumulate * context.ranks.count
    steps = step_count(len(rows), steps=task.steps, epochs=task.epochs, rows_per_step=per_step)
    counts = count_parameters(model)
    context.info(f"training {counts.trained:,} of {counts.total:,} parameters for {steps:,} steps")
    arguments = trainer_arguments(
        AT,
        task.optimizer,
        task.trainable,
        device=torch.device(device),
        autocast=autocast,
        steps=steps,
        batch=task.micro_batch_rows,
        accumulate=task.accumulate,
        log_every=task.metrics.every_steps,
        seed=context.seed_for("trainer"),
        folder=str(context.artifacts),
    )
    trainer = SftTrainer(
        model,
        loaded.decoder,
        loaded.tokenizer,
        rows,
        arguments,
        term=arm.term,
        packed=task.packing,
        order_seed=context.seed_for("order"),
    )
    # What two attempts of a run must agree on.
    facts = {
        "model": loaded.facts.fingerprint,
        "data": [found.identity, len(rows)],
        "arm": arm.record.get("layers", []),
        "number of steps": steps,
    }
    board = AlarmBoard(_alarms(task.alarms), context.warning, at=f"{AT}.alarms")
    trainer.bind(context, board, checkpoint_every=task.checkpoint.every_steps, facts=facts)
    return trainer


def _alarms(alarms: Alarms) -> list[Alarm]:
    return [
        Alarm(
            "dead_signal",
            alarms.dead_signal,
            alarms.patience,
            "No token is above its threshold any more, so the SAE loss has no gradient",
            "With mean thresholds that is what success looks like; from the first step on, check features and layers.",
        ),
        # A measurement is an event of its own: one is enough.
        Alarm(
            "collapse",
            alarms.collapse,
            1,
            "The held-out loss is above twice its first value",
            "Lower optimizer.learning_rate or the weight of the auxiliary loss.",
        ),
    ]


def _export(
    context: RunContext,
    task: Sft,
    loaded: LoadedModel,
    model: Any,
    output: Output,
    trainer: SftTrainer,
    arm: Arm,
    found: Examples,
    steps: int,
) -> None:
    """The model, and a record of all that is needed to train it again."""
    record = {
        "qscope_version": __version__,
        "model": loaded.facts.as_dict(),
        "experiment": json_format.MessageToDict(context.experiment, preserving_proto_field_name=True),
        "steps": steps,
        "data": {
            **found.identity,
            "rows": len(arm.rows),
            "left_out": dict(found.left_out),
            "languages_given": dict(found.given),
            "languages_tagged": dict(found.tagged),
            "untagged": found.untagged,
        },
        "arm": arm.record,
        "held_out_loss": {str(step): loss for step, loss in trainer.held_out_losses.items()},
    }
    write_json(context.artifacts / RECORD, record)
    context.artifact(context.artifacts / RECORD, kind="training-record", description="what the model was trained on")
    folder = context.artifacts / MODEL
    lora = task.trainable.lora
    save_model(model, loaded.tokenizer, folder, output, merge=lora.merge)
    adapter = hasattr(model, "peft_config") and not lora.merge
    context.artifact(folder, kind="adapter" if adapter else "model", description=f"after {steps:,} steps")
    context.report(sft_report(context.experiment.name, task, arm.record, found, trainer.held_out_losses, steps))
