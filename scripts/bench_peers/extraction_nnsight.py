"""nnsight for the residuals, plain torch for the codes: it has no SAEs of its own."""

from __future__ import annotations

from importlib.metadata import version

from extraction_clock import measure, read_settings, token_ids

settings = read_settings()

import torch  # noqa: E402
from nnsight import TransformersModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

torch.set_num_threads(settings["threads"])
model = TransformersModel(settings["model"], task="text-generation", dtype=torch.float32, dispatch=True)
saes = {}
for layer in settings["layers"]:
    tensors = load_file(f"{settings['folder']}/sae/saelens/layer{layer}/sae_weights.safetensors")
    saes[layer] = (tensors["W_enc"], tensors["b_enc"])
ids_BT = torch.from_numpy(token_ids(settings))
k = settings["k"]


@torch.no_grad()
def bare() -> None:
    model._module(input_ids=ids_BT, use_cache=False, logits_to_keep=1)


@torch.no_grad()
def codes():
    saved = {}
    with model.trace({"input_ids": ids_BT}, use_cache=False, logits_to_keep=1):
        for layer in settings["layers"]:
            saved[layer] = model.model.layers[layer].output.save()
    found = {}
    for layer, resid_BTD in saved.items():
        W_enc_DF, b_enc_F = saes[layer]
        found[layer] = torch.relu(resid_BTD.flatten(0, 1) @ W_enc_DF + b_enc_F).topk(k, dim=-1)
    return found


def dense():
    return {
        layer: torch.zeros(len(top.values), settings["d_sae"]).scatter_(1, top.indices, top.values).numpy()
        for layer, top in codes().items()
    }


measure(settings, version("nnsight"), bare, codes, dense)
