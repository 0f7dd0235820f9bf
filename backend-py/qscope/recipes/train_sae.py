"""``qscope train-sae``: TopK SAEs at any set of layers from one pass of the language model."""

from __future__ import annotations

import json
import time
from pathlib import Path

from qscope import __version__
from qscope.data import TokenStream, open_text
from qscope.models import check_hooks, load_model, resolve_device, resolve_layers
from qscope.recipes.plan import plan, refuse_if_too_large
from qscope.runs import RunContext
from qscope.sae import formats
from qscope.sae.activations import ActivationStream
from qscope.sae.evaluation import evaluate
from qscope.sae.trainer import SaeTrainer, resolve_config
from qscope.v1 import sae_pb2


def run(context: RunContext) -> None:
    """Trains, checkpoints, exports and (when asked) evaluates; resumes from the newest checkpoint, bit for bit."""
    experiment, task = context.experiment, context.experiment.train_sae
    planned = plan(experiment, str(context.folder.parent))
    refuse_if_too_large(planned)
    for warning in planned.warnings:
        context.warning(warning)

    device = resolve_device(experiment.compute.device)
    loaded = load_model(experiment.model, experiment.model_options, device)
    layers = resolve_layers(task.layers, loaded.facts.n_layers, field="train_sae.layers")
    check_hooks(loaded, layers)
    config = resolve_config(task, d_in=loaded.facts.d_model)

    stream = ActivationStream(
        loaded,
        token_stream(task.text, loaded, seed=context.seed_for("text"), field="train_sae.text"),
        layers,
        filter=task.filter,
        buffer_tokens=config.buffer_tokens,
        model_batch_tokens=task.buffer.model_batch_tokens,
        batch_tokens=task.batch_tokens,
        seed=context.seed_for("buffer"),
    )
    trainer = SaeTrainer(task, layers, d_in=loaded.facts.d_model, device=device, seed=context.seed_for("sae"))

    checkpoint = context.checkpoints.load_newest()
    if checkpoint is not None:
        trainer.load_state(_part(checkpoint.tensors, "trainer"), checkpoint.state["trainer"])
        stream.load_state(_part(checkpoint.tensors, "stream"), checkpoint.state["stream"])
        context.info(f"resumed at step {checkpoint.step:,} of {config.total_steps:,}")

    def save() -> None:
        trainer.refuse_if_not_finite()
        context.checkpoints.save(
            trainer.steps_done,
            {
                **{f"trainer.{name}": tensor for name, tensor in trainer.state_tensors().items()},
                **{f"stream.{name}": tensor for name, tensor in stream.state_tensors().items()},
            },
            {"trainer": trainer.state_json(), "stream": stream.state_json()},
        )

    _train(context, task, trainer, stream, config.total_steps, save)

    recipe = _recipe(context, loaded, config, trainer, stream)
    for path in formats.save(trainer.saes(), context.artifacts_folder / "sae", list(task.formats), recipe):
        context.artifact(path, kind="sae", description=f"SAEs of layers {layers[0]} to {layers[-1]}")
    if task.evaluate.tokens > 0:
        held_out = token_stream(task.evaluate.text, loaded, seed=context.seed_for("held-out"), field="train_sae.evaluate.text")
        evaluate_into(context, loaded, trainer.saes(), held_out, task.evaluate.tokens, task.buffer.model_batch_tokens, task.filter)


def _train(context: RunContext, task: sae_pb2.TrainSae, trainer: SaeTrainer, stream: ActivationStream, total_steps: int, save) -> None:
    started, tokens_at_start = time.monotonic(), trainer.steps_done * task.batch_tokens
    while trainer.steps_done < total_steps:
        if context.stop_requested:
            save()
            context.stop(trainer.steps_done)
        acts_LBD = stream.next_batch()
        if trainer.steps_done == 0:
            trainer.initialise(acts_LBD)
        trainer.step(acts_LBD)
        step = trainer.steps_done
        if step % task.metrics.every_steps == 0 or step == total_steps:
            metrics = trainer.metrics()
            tokens = step * task.batch_tokens
            metrics[-1]["tokens"] = tokens
            metrics[-1]["tokens_per_second"] = (tokens - tokens_at_start) / max(time.monotonic() - started, 1e-9)
            context.metrics(step, metrics)
            for warning in trainer.warnings():
                context.warning(warning)
        context.progress("training", step * task.batch_tokens, total_steps * task.batch_tokens, "tokens")
        if task.checkpoint.every_steps and step % task.checkpoint.every_steps == 0 and step < total_steps:
            save()
    save()
    context.info(_filter_report(stream.stats()))


def token_stream(source, loaded, *, seed: int, field: str) -> TokenStream:
    """The token sequences of one text source for one model."""
    reader = open_text(source, seed=seed, field=field)
    return TokenStream(reader, loaded.tokenizer, context=source.context, pack=source.pack)


def evaluate_into(context: RunContext, loaded, saes, tokens: TokenStream, count: int, batch_tokens: int, filter) -> None:
    """Evaluates SAEs, reports the metrics as events and writes ``artifacts/evaluation.json``."""
    report = evaluate(
        loaded,
        saes,
        tokens,
        count=count,
        batch_tokens=batch_tokens,
        filter=filter,
        on_progress=lambda done: context.progress("evaluating", done, count, "tokens"),
        should_stop=lambda: context.stop_requested,
    )
    if report is None:
        context.stop(None)
    context.metrics(0, {layer: {f"eval_{name}": value for name, value in row.items()} for layer, row in report.per_layer.items()})
    path = context.artifacts_folder / "evaluation.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.to_json(), indent=1))
    context.artifact(path, kind="evaluation", description=f"held-out measures of {len(saes)} layers, {report.tokens:,} tokens")


def _recipe(context: RunContext, loaded, config, trainer: SaeTrainer, stream: ActivationStream) -> dict:
    """Everything needed to train the same SAEs again, for the sidecar of every export."""
    return {
        "qscope_version": __version__,
        "experiment": context.experiment_json,
        "model": loaded.facts.to_json(),
        "resolved": config.to_json(),
        "data": stream.stats(),
        "metrics": {str(layer): row for layer, row in trainer.metrics().items()},
        "steps": trainer.steps_done,
    }


def _part(tensors: dict, name: str) -> dict:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _filter_report(stats: dict) -> str:
    read, kept = stats["tokens_read"], stats["tokens_kept"]
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in stats["dropped"].items())
    return f"{read:,} tokens read, {kept:,} kept ({dropped or 'none'} dropped), {stats['passes']:,} whole passes over the text"


def relative_to_run(path: Path, context: RunContext) -> str:
    """Path of a result inside the run folder."""
    return str(path.relative_to(context.folder))
