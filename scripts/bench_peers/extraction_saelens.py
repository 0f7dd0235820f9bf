"""TransformerLens' bridge for the residuals, SAELens for the codes: both as their documentation shows."""

from __future__ import annotations

from importlib.metadata import version

from extraction_clock import measure, read_settings, token_ids

settings = read_settings()

import torch  # noqa: E402
from sae_lens import SAE  # noqa: E402
from transformer_lens.model_bridge import TransformerBridge  # noqa: E402

torch.set_num_threads(settings["threads"])
model = TransformerBridge.boot_transformers(settings["model"], dtype=torch.float32, device="cpu")
saes = {layer: SAE.load_from_disk(f"{settings['folder']}/sae/saelens/layer{layer}") for layer in settings["layers"]}
names = {f"blocks.{layer}.hook_resid_post": layer for layer in saes}
ids_BT = torch.from_numpy(token_ids(settings))


@torch.no_grad()
def bare() -> None:
    model(ids_BT, return_type=None, logits_to_keep=1)


@torch.no_grad()
def codes():
    _, cache = model.run_with_cache(ids_BT, return_type=None, names_filter=list(names), logits_to_keep=1)
    return {layer: saes[layer].encode(cache[name]) for name, layer in names.items()}


def dense():
    found = {}
    for layer, acts in codes().items():
        values = acts.to_dense() if acts.is_sparse else acts
        found[layer] = values.flatten(0, 1).numpy()
    return found


measure(
    settings,
    f"{version('transformer-lens')}, {version('sae-lens')}",
    bare,
    codes,
    dense,
)
