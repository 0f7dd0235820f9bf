"""The SAELens layout: ``layer{n}/sae_weights.safetensors`` and ``layer{n}/cfg.json`` (SAELens 6.54).

Their matrices are transposed: W_enc [d_in, d_sae], W_dec [d_sae, d_in]. Their TopK SAEs may subtract b_dec from the
input, train on scaled activations and rank features by activation times decoder norm; all three are linear and are
folded into the weights on reading, so that one plain formula serves every SAE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qscope.sae.formats.describe import Description, describe, model_of
from qscope.sae.formats.files import (
    check_k,
    check_tensors,
    matrix_shape,
    own_float32,
    read_json,
    read_number,
    read_shapes,
    read_tensors,
    refusal,
    write_json,
    write_tensors,
)
from qscope.sae.formats.layers import by_layer, layer_folders
from qscope.sae.topk import TopKSae

NAME = "saelens"
WEIGHTS = "sae_weights.safetensors"
DOCUMENT = "cfg.json"
SCALER = "activation_scaler.json"
LAYOUT_VERSION = "6.54.12"
"""SAELens version whose layout is written; without one of at least 6.0 SAELens reads the file as its oldest format."""

_HOOKS = (
    re.compile(r"blocks\.(\d{1,6})\.(?:hook_resid_post|hook_out)"),
    re.compile(r"(?:[A-Za-z_]+\.)*(?:layers|h)\.(\d{1,6})"),
)
_FOLDER = re.compile(r"layer_?(\d{1,6})")
_PLAIN = "Only TopK SAEs of the residual stream after a block can be used here."


def find(path: Path) -> dict[int, Path]:
    """Folders of single SAEs by layer: `path` itself, or its sub-folders."""
    return by_layer(layer_folders(path, (WEIGHTS, DOCUMENT)), _layer)


def write(sae: TopKSae, folder: Path, recipe: Mapping[str, Any]) -> Path:
    """Writes one SAE under `folder` and returns its own folder."""
    place = folder / f"layer{sae.layer}"
    place.mkdir(parents=True, exist_ok=True)
    (place / DOCUMENT).unlink(missing_ok=True)
    (place / SCALER).unlink(missing_ok=True)
    write_tensors(
        place / WEIGHTS,
        {
            "W_enc": own_float32(sae.W_enc_FD.t()),
            "W_dec": own_float32(sae.W_dec_FD),
            "b_enc": own_float32(sae.b_enc_F),
            "b_dec": own_float32(sae.b_dec_D),
        },
    )
    write_json(place / DOCUMENT, _config(sae, recipe))
    return place


def _config(sae: TopKSae, recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architecture": "topk",
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": sae.k,
        "rescale_acts_by_decoder_norm": False,
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "dtype": "float32",
        "device": "cpu",
        "metadata": {
            "sae_lens_version": LAYOUT_VERSION,
            "sae_lens_training_version": None,
            "model_name": _model_name(recipe),
            "hook_name": f"blocks.{sae.layer}.hook_resid_post",
            "hf_hook_name": f"model.layers.{sae.layer}",
            "hook_head_index": None,
            # Qwen tokenizers add no BOS token.
            "prepend_bos": False,
            "qscope": describe(sae, recipe),
        },
    }


def _model_name(recipe: Mapping[str, Any]) -> str | None:
    experiment = recipe.get("experiment")
    name = experiment.get("model") if isinstance(experiment, Mapping) else recipe.get("model")
    return name if isinstance(name, str) else None


def files(place: Path) -> list[Path]:
    """The files one SAE consists of: the scaler is optional."""
    scaler = place / SCALER
    return [place / WEIGHTS, place / DOCUMENT, *([scaler] if scaler.is_file() else [])]


def peek(place: Path, layer: int) -> Description:
    """Facts of the SAE in one folder, from its configuration and the header of its weights."""
    path = place / DOCUMENT
    config = _modern(read_json(path))
    _refuse_inexpressible(path, config)
    shape = read_shapes(place / WEIGHTS).get("W_enc", ())
    if len(shape) != 2:
        raise refusal(place / WEIGHTS, "holds no matrix W_enc", "Export the SAE again, or fetch the file again.")
    metadata = config["metadata"] if isinstance(config["metadata"], Mapping) else {}
    ours, name = metadata.get("qscope"), metadata.get("model_name")
    model = model_of(ours.get("recipe")) if isinstance(ours, Mapping) else {}
    return Description(layer, *shape, read_number(path, config, "k"), model or model_of({"model": name}))


def read(place: Path, layer: int) -> TopKSae:
    """The SAE in one folder, with every convention of SAELens folded away, in float32.

    Raises:
        UserError: another architecture, another hook point, or a normalisation that is not linear (SAE_NOT_TOPK).
    """
    sae = view(place, layer)
    return replace(sae, **{name: tensor.float().contiguous() for name, tensor in sae.tensors().items()})


def view(place: Path, layer: int) -> TopKSae:
    """The SAE in one folder as :func:`read` gives it, but mapped and in the file's number format where no convention
    has to be folded: its encoder is then the transposed view of the file's.

    Raises:
        UserError: another architecture, another hook point, or a normalisation that is not linear (SAE_NOT_TOPK).
    """
    path = place / DOCUMENT
    config = _modern(read_json(path))
    _refuse_inexpressible(path, config)
    tensors = read_tensors(place / WEIGHTS)
    d_in, d_sae = matrix_shape(place / WEIGHTS, tensors, "W_enc")
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    check_tensors(place / WEIGHTS, tensors, shapes, (torch.float32, torch.bfloat16, torch.float16))
    for name, value in (("d_in", d_in), ("d_sae", d_sae)):
        if config.get(name, value) != value:
            raise refusal(path, f"says {name} {config[name]}, and the weights have {value}", "Export the SAE again.")
    k = read_number(path, config, "k")
    check_k(path, k, d_sae)

    subtracts = bool(config.get("apply_b_dec_to_input", True))
    rescales = bool(config.get("rescale_acts_by_decoder_norm", False))
    scale = _input_scale(place, config)
    # The folds multiply large and small numbers: in float64 one rounding at the end is the only one.
    W_enc_FD, W_dec_FD, b_enc_F, b_dec_D = tensors["W_enc"].t(), tensors["W_dec"], tensors["b_enc"], tensors["b_dec"]
    if not (subtracts or rescales or scale != 1.0):
        return TopKSae(W_enc_FD, b_enc_F, W_dec_FD, b_dec_D, k=k, layer=layer)
    W_enc_FD, b_enc_F, W_dec_FD, b_dec_D = (part.double() for part in (W_enc_FD, b_enc_F, W_dec_FD, b_dec_D))
    if subtracts:
        b_enc_F = b_enc_F - W_enc_FD @ b_dec_D
    if rescales:
        norms_F = W_dec_FD.norm(dim=1).clamp_min(1e-8)
        W_enc_FD, b_enc_F, W_dec_FD = W_enc_FD * norms_F[:, None], b_enc_F * norms_F, W_dec_FD / norms_F[:, None]
    W_enc_FD, W_dec_FD, b_dec_D = W_enc_FD * scale, W_dec_FD / scale, b_dec_D / scale
    return TopKSae(*(part.float() for part in (W_enc_FD, b_enc_F, W_dec_FD, b_dec_D)), k=k, layer=layer)


def _modern(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in the words of SAELens 6; before it, topk was an activation function, not an architecture."""
    modern = dict(config)
    modern.setdefault("metadata", {key: config[key] for key in ("hook_name", "hook_layer") if key in config})
    arguments = config.get("activation_fn_kwargs")
    if "k" not in modern and "topk" in (config.get("activation_fn"), config.get("activation_fn_str")):
        modern["architecture"] = "topk"
        modern["k"] = arguments.get("k") if isinstance(arguments, dict) else None
    return modern


def _refuse_inexpressible(path: Path, config: Mapping[str, Any]) -> None:
    reason = "SAE_NOT_TOPK"
    architecture = config.get("architecture", "standard")
    if architecture != "topk":
        raise refusal(path, f"is a {architecture} SAE, not topk", _PLAIN, reason)
    normalisation = _normalisation(config)
    if normalisation not in ("none", "expected_average_only_in"):
        what = f"normalises each activation ({normalisation}), which no weights can express"
        raise refusal(path, what, "Train with normalize_activations 'none' or 'expected_average_only_in'.", reason)
    if config.get("reshape_activations", "none") != "none":
        raise refusal(path, "reads attention heads, not the residual stream", _PLAIN, reason)
    if config.get("finetuning_scaling_factor"):
        raise refusal(path, "has a fine-tuning scale per feature", "Fold it into W_dec first.", reason)


def _normalisation(config: Mapping[str, Any]) -> str:
    value = config.get("normalize_activations") or "none"
    return "expected_average_only_in" if value is True else str(value)


def _layer(place: Path) -> int:
    """The decoder block whose output the SAE reads."""
    path = place / DOCUMENT
    metadata = _modern(read_json(path))["metadata"]
    hook = metadata.get("hook_name") if isinstance(metadata, dict) else None
    if hook is None:
        match = _FOLDER.fullmatch(place.name)
        if match is None:
            raise refusal(path, "names no hook point", f"Name its folder layerN, N from 0, not {place.name}.")
        return int(match[1])
    match = next((found for pattern in _HOOKS if (found := pattern.fullmatch(str(hook)))), None)
    if match is None:
        raise refusal(path, f"reads {str(hook)[:80]}, not the residual stream after a block", _PLAIN, "SAE_NOT_TOPK")
    return int(match[1])


def _input_scale(place: Path, config: Mapping[str, Any]) -> float:
    """Factor s of training on s·x; SAELens keeps it beside its unfinished checkpoints and folds it into final ones."""
    if _normalisation(config) == "none":
        return 1.0
    path = place / SCALER
    if not path.is_file():
        remedy = "Save it with save_inference_model after folding the scale, or put the file beside it."
        raise refusal(path, "is missing, and the SAE was trained on scaled activations", remedy, "SAE_FILE_MISSING")
    scale = read_json(path).get("scaling_factor")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 1e-12 < scale < 1e12:
        raise refusal(path, "'scaling_factor' must be a positive number", "Export the SAE again.")
    return float(scale)
