"""``qscope eval-sae``: measures of trained SAEs on held-out text."""

from __future__ import annotations

from qscope.models import check_hooks, choose_device, load_model, select_layers
from qscope.recipes.admission import admit
from qscope.recipes.shared import evaluate_into, open_tokens, pinned, place_of_saes, warn_of_misfit
from qscope.runs import RunContext
from qscope.sae import formats


def run(context: RunContext) -> None:
    """Loads the SAEs and the model, refuses a pair that does not belong together, and measures."""
    admit(context)
    experiment, task = context.experiment, context.experiment.eval_sae
    device = choose_device(experiment.compute.device)
    loaded = load_model(experiment.model, experiment.model_options, device)
    select_layers(task.layers, loaded.facts.n_layers, at="eval_sae.layers")
    place = pinned(context, "eval_sae.sae", lambda: place_of_saes(task.sae, context.folder.parent, at="eval_sae.sae"))
    saes = formats.load(place, layers=list(task.layers) or None, offline=experiment.model_options.offline)
    warn_of_misfit(context, place, list(saes), loaded, at="eval_sae.sae")
    context.info(f"SAEs of {place}, layers {', '.join(map(str, saes))}")
    check_hooks(loaded)
    stream = open_tokens(task.text, loaded, seed=context.seed_for("held-out"), at="eval_sae.text")
    evaluate_into(
        context,
        loaded,
        saes,
        stream,
        count=task.tokens,
        batch_tokens=task.model_batch_tokens,
        filter=task.filter,
    )
