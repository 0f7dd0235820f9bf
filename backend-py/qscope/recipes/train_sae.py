"""``qscope train-sae``: TopK SAEs at any set of layers from one pass of the language model."""

from __future__ import annotations

import time
from dataclasses import asdict

from google.protobuf import json_format

from qscope import __version__
from qscope.models import LoadedModel, check_hooks, choose_device, load_model, select_layers
from qscope.recipes.admission import admit
from qscope.recipes.shared import evaluate_into, open_tokens
from qscope.runs import RunContext
from qscope.sae import formats
from qscope.sae.activations import ActivationStream
from qscope.sae.settings import step_count
from qscope.sae.trainer import SaeTrainer


def run(context: RunContext) -> None:
    """Trains, checkpoints, exports and (when asked) evaluates; goes on from the newest checkpoint, bit for bit."""
    experiment, task = context.experiment, context.experiment.train_sae
    planned = admit(context)
    facts = {fact.name: fact.value for fact in planned.facts}
    context.info(f"loading {facts['model']} on {facts['device']}")

    device = choose_device(experiment.compute.device)
    loaded = load_model(experiment.model, experiment.model_options, device)
    layers = select_layers(task.layers, loaded.facts.n_layers, at="train_sae.layers")
    check_hooks(loaded)

    stream = ActivationStream(
        loaded,
        open_tokens(task.text, loaded, seed=context.seed_for("text"), at="train_sae.text"),
        layers,
        filter=task.filter,
        buffer=task.buffer,
        batch_tokens=task.batch_tokens,
        seed=context.seed_for("buffer"),
    )
    trainer = SaeTrainer(
        task,
        layers,
        loaded.facts.d_model,
        device=device,
        total_steps=step_count(task),
        seed=context.seed_for("sae"),
    )

    checkpoint = context.checkpoints.load_newest()
    if checkpoint is not None:
        trainer.load_state(_part(checkpoint.tensors, "trainer"), checkpoint.state["trainer"])
        stream.load_state(checkpoint.state["stream"], _part(checkpoint.tensors, "stream"))
        context.info(f"resumed at step {checkpoint.step:,} of {trainer.total_steps:,}")
    else:
        stream.require(trainer.total_steps * task.batch_tokens)

    _train(context, trainer, stream)
    _export(context, loaded, trainer, stream)
    if task.evaluate.tokens > 0:
        held_out = open_tokens(
            task.evaluate.text, loaded, seed=context.seed_for("held-out"), at="train_sae.evaluate.text"
        )
        evaluate_into(
            context,
            loaded,
            {layer: trainer.sae(layer) for layer in layers},
            held_out,
            count=task.evaluate.tokens,
            batch_tokens=task.buffer.model_batch_tokens,
            filter=task.filter,
            step=trainer.step_count,
        )


def _train(context: RunContext, trainer: SaeTrainer, stream: ActivationStream) -> None:
    task = context.experiment.train_sae
    report = _Reporter(context, trainer)
    total_tokens = trainer.total_steps * task.batch_tokens
    if trainer.step_count == trainer.total_steps:
        # Resumed after the last step: only the export or the evaluation was cut off.
        return
    stream.fill(lambda tokens, size: _tell_filling(context, trainer, tokens, size))
    while trainer.step_count < trainer.total_steps:
        if context.stop_requested:
            _save(context, trainer, stream)
            context.stop(trainer.step_count)
        trainer.step(stream.next_batch())
        step = trainer.step_count
        if step % task.metrics.every_steps == 0 or step == trainer.total_steps:
            report()
        context.progress("training", trainer.token_count, total_tokens, "tokens")
        if task.checkpoint.every_steps and step % task.checkpoint.every_steps == 0 and step < trainer.total_steps:
            _save(context, trainer, stream)
    _save(context, trainer, stream)
    stats = stream.stats()
    dropped = stats["dropped"]
    context.info(
        f"{stats['tokens_read']:,} tokens read, {stats['tokens_kept']:,} kept"
        f" (dropped: {dropped['first_token']:,} first tokens, {dropped['any_layer']:,} of extreme norm),"
        f" {stats['passes']:,} whole passes over the text"
    )


def _tell_filling(context: RunContext, trainer: SaeTrainer, tokens: int, size: int) -> None:
    context.progress("filling the buffer", min(tokens, size), size, "tokens")
    if context.stop_requested:
        # Nothing is lost but the part of a buffer; a large model on a CPU takes minutes for it.
        context.stop(trainer.step_count)


class _Reporter:
    """Metrics of the window since the last call, and each layer's warning once."""

    def __init__(self, context: RunContext, trainer: SaeTrainer) -> None:
        self._context, self._trainer = context, trainer
        self._time, self._tokens = time.monotonic(), trainer.token_count
        self._warned: set[int] = set()

    def __call__(self) -> None:
        read = self._trainer.metrics()
        now = time.monotonic()
        rate = (read.tokens - self._tokens) / max(now - self._time, 1e-9)
        self._time, self._tokens = now, read.tokens
        rows: dict[int, dict[str, float]] = {}
        for one in read.layers:
            row = asdict(one)
            rows[row.pop("layer")] = row
        rows[-1] = {name: sum(row[name] for row in rows.values()) / len(rows) for name in ("fvu", "l0", "dead_share")}
        rows[-1] |= {"learning_rate": read.learning_rate, "tokens": read.tokens, "tokens_per_second": rate}
        self._context.metrics(read.step, rows)
        for layer, warning in read.warnings.items():
            if layer not in self._warned:
                self._warned.add(layer)
                self._context.warning(warning)


def _save(context: RunContext, trainer: SaeTrainer, stream: ActivationStream) -> None:
    trainer.check_finite()
    context.checkpoints.save(
        trainer.step_count,
        {
            **{f"trainer.{name}": tensor for name, tensor in trainer.state_tensors().items()},
            **{f"stream.{name}": tensor for name, tensor in stream.state_tensors().items()},
        },
        {"trainer": trainer.state_json(), "stream": stream.state_json()},
    )


def _part(tensors: dict, name: str) -> dict:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _export(context: RunContext, loaded: LoadedModel, trainer: SaeTrainer, stream: ActivationStream) -> None:
    """Writes every layout asked for; the sidecar holds all that is needed to train the same SAEs again."""
    recipe = {
        "qscope_version": __version__,
        "model": loaded.facts.as_dict(),
        "experiment": json_format.MessageToDict(context.experiment, preserving_proto_field_name=True),
        "steps": trainer.step_count,
        "tokens": trainer.token_count,
        "kernel": trainer.kernel_name,
        "data": stream.stats(),
    }
    saes = {layer: trainer.sae(layer) for layer in trainer.layer_ids}
    for path in formats.save(saes, context.artifacts / "sae", list(context.experiment.train_sae.formats), recipe):
        context.artifact(path, kind="sae", description=f"SAEs of {len(saes)} layers, layout {path.name}")
