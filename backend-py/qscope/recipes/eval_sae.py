"""``qscope eval-sae``: measures of trained SAEs on held-out text."""

from __future__ import annotations

from pathlib import Path

from qscope.errors import UserError
from qscope.models import check_hooks, choose_device, load_model, select_layers
from qscope.recipes.shared import evaluate_into, open_tokens
from qscope.runs import RunContext, find_run, run_folders
from qscope.sae import formats


def run(context: RunContext) -> None:
    """Loads the SAEs and the model, refuses a pair that does not belong together, and measures."""
    experiment, task = context.experiment, context.experiment.eval_sae
    device = choose_device(experiment.compute.device)
    loaded = load_model(experiment.model, experiment.model_options, device)
    select_layers(task.layers, loaded.facts.n_layers, at="eval_sae.layers")
    place = _place(task.sae, context.folder.parent)
    saes = formats.load(place, layers=list(task.layers) or None, offline=experiment.model_options.offline)
    formats.refuse_if_foreign(saes, loaded.facts, field="eval_sae.sae")
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


def _place(name: str, runs: Path) -> Path | str:
    """What to load: a path or hub id as it is; a run folder, its id or ``latest`` becomes the folder of its SAEs."""
    path = Path(name).expanduser()
    if path.exists():
        saes = path / "artifacts" / "sae"
        return saes if saes.is_dir() else path
    if "/" in name or name.startswith("SAE-Res-"):
        return name
    if name != "latest":
        return find_run(runs, name).artifacts / "sae"
    # The newest run of all is this evaluation; the newest with SAEs is meant.
    for folder in run_folders(runs):
        if (folder.artifacts / "sae").is_dir():
            return folder.artifacts / "sae"
    raise UserError(
        f"No run in {runs} has SAEs yet.",
        remedy="Train some first, for example: qscope train-sae configs/embedded/train-sae.yaml",
        reason="SAE_NOT_FOUND",
        field="eval_sae.sae",
    )
