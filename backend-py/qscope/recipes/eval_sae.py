"""``qscope eval-sae``: measures of trained SAEs on held-out text."""

from __future__ import annotations

from qscope.models import check_hooks, load_model, resolve_device, resolve_layers
from qscope.recipes.train_sae import evaluate_into, token_stream
from qscope.runs import RunContext, find_saes
from qscope.sae import formats


def run(context: RunContext) -> None:
    """Loads the SAEs and the model, refuses a pair that does not belong together, and measures."""
    experiment, task = context.experiment, context.experiment.eval_sae
    device = resolve_device(experiment.compute.device)
    loaded = load_model(experiment.model, experiment.model_options, device)
    saes = formats.load(find_saes(task.sae, context.folder.parent), layers=list(task.layers) or None)
    layers = resolve_layers(saes.keys(), loaded.facts.n_layers, field="eval_sae.layers")
    formats.refuse_if_foreign(saes, loaded.facts, field="eval_sae.sae")
    check_hooks(loaded, layers)
    stream = token_stream(task.text, loaded, seed=context.seed_for("held-out"), field="eval_sae.text")
    evaluate_into(context, loaded, saes, stream, task.tokens, task.model_batch_tokens, task.filter)
