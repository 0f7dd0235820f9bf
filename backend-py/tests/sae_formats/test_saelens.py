"""Reading SAELens: every convention of theirs, computed their way in float64, gives the codes of the folded SAE.

The formulas of `theirs` are those of SAELens 6.54 (topk_sae.py, sae.py); tests/interop runs the package itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from qscope.errors import UserError
from qscope.sae import formats

CONFIG = {
    "architecture": "topk",
    "d_in": 6,
    "d_sae": 20,
    "k": 4,
    "rescale_acts_by_decoder_norm": False,
    "apply_b_dec_to_input": False,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "dtype": "float32",
    "device": "cpu",
    "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.2.hook_resid_post"},
}


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "W_enc": torch.randn(6, 20, generator=generator),
        "W_dec": torch.randn(20, 6, generator=generator) * torch.rand(20, 1, generator=generator).mul(4).exp(),
        "b_enc": torch.randn(20, generator=generator),
        "b_dec": torch.randn(6, generator=generator),
    }


def put(folder: Path, tensors: dict[str, torch.Tensor], config: dict, scale: float | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    if scale is not None:
        (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale}))
    return folder


def theirs(tensors, config, scale, x_BD):
    """Feature activations and reconstruction, dense, as SAELens computes them."""
    W_enc, W_dec, b_enc, b_dec = (tensors[name].double() for name in ("W_enc", "W_dec", "b_enc", "b_dec"))
    sae_in = x_BD * scale - b_dec * config["apply_b_dec_to_input"]
    hidden_pre = sae_in @ W_enc + b_enc
    if config["rescale_acts_by_decoder_norm"]:
        hidden_pre = hidden_pre * W_dec.norm(dim=-1)
    kept = torch.topk(hidden_pre, config["k"])
    acts = torch.zeros_like(hidden_pre).scatter_(-1, kept.indices, kept.values.relu())
    scaled = acts * (1 / W_dec.norm(dim=-1)) if config["rescale_acts_by_decoder_norm"] else acts
    return acts, (scaled @ W_dec + b_dec) / scale


@settings(max_examples=60, deadline=None)
@given(
    subtracts=st.booleans(),
    rescales=st.booleans(),
    scale=st.sampled_from([1.0, 0.03, 7.5]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 10_000),
)
def test_folding_keeps_codes_and_reconstructions(tmp_path_factory, subtracts, rescales, scale, dtype, seed):
    config = {
        **CONFIG,
        "apply_b_dec_to_input": subtracts,
        "rescale_acts_by_decoder_norm": rescales,
        "normalize_activations": "none" if scale == 1.0 else "expected_average_only_in",
    }
    tensors = {name: tensor.to(dtype) for name, tensor in weights(seed).items()}
    folder = put(tmp_path_factory.mktemp("sae"), tensors, config, scale)
    sae = formats.load(folder)[2]
    assert (sae.k, sae.layer, sae.dtype) == (4, 2, torch.float32)
    x_BD = torch.randn(32, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / scale
    acts_BF, x_hat_BD = theirs(tensors, config, scale, x_BD)
    wide = sae.to(dtype=torch.float64)
    values_BK, indices_BK = wide.encode(x_BD)
    codes_BF = torch.zeros(32, 20, dtype=torch.float64).scatter(1, indices_BK, values_BK)
    torch.testing.assert_close(codes_BF, acts_BF, rtol=1e-5, atol=1e-5 * float(acts_BF.max()))
    torch.testing.assert_close(
        wide.decode(values_BK, indices_BK), x_hat_BD, rtol=1e-5, atol=1e-5 * float(x_hat_BD.abs().max())
    )


def test_a_missing_convention_means_what_saelens_takes(tmp_path):
    """Their default of apply_b_dec_to_input is true."""
    config = {key: value for key, value in CONFIG.items() if key != "apply_b_dec_to_input"}
    tensors = weights()
    sae = formats.load(put(tmp_path, tensors, config))[2]
    expected_F = tensors["b_enc"].double() - tensors["b_dec"].double() @ tensors["W_enc"].double()
    torch.testing.assert_close(sae.b_enc_F, expected_F.float())


def test_a_feature_without_decoder_stays_silent(tmp_path):
    tensors = weights()
    tensors["W_dec"][3] = 0
    sae = formats.load(put(tmp_path, tensors, {**CONFIG, "rescale_acts_by_decoder_norm": True}))[2]
    assert torch.isfinite(sae.W_dec_FD).all()
    assert not (sae.encode(torch.randn(100, 6))[1][:, 0] == 3).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "jumprelu"}, "jumprelu SAE, not topk"),
        ({"architecture": "batchtopk"}, "batchtopk SAE, not topk"),
        ({"architecture": "gated"}, "gated SAE"),
        ({"architecture": "transcoder"}, "transcoder SAE"),
        ({"normalize_activations": "layer_norm"}, "layer_norm"),
        ({"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale"),
        ({"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ({"reshape_activations": "hook_z"}, "attention heads"),
        ({"finetuning_scaling_factor": True}, "fine-tuning"),
        ({"metadata": {"hook_name": "blocks.2.hook_mlp_out"}}, "hook_mlp_out"),
        ({"metadata": {"hook_name": "blocks.2.hook_resid_pre"}}, "hook_resid_pre"),
        ({"metadata": {"hook_name": "blocks.2.attn.hook_z"}}, "hook_z"),
    ],
)
def test_what_weights_cannot_express_is_refused(tmp_path, change, words):
    with pytest.raises(UserError, match=words) as caught:
        formats.load(put(tmp_path, weights(), {**CONFIG, **change}))
    assert caught.value.reason == "SAE_NOT_TOPK"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 21}, "k is 21"),
        ({"k": None}, "'k' must be"),
        ({"d_in": 7}, "says d_in 7, and the weights have 6"),
        ({"normalize_activations": "expected_average_only_in"}, "activation_scaler.json: is missing"),
        ({"metadata": {}}, "names no hook point"),
    ],
)
def test_contradictions_are_refused(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        formats.load(put(tmp_path / "sae", weights(), {**CONFIG, **change}))


def test_a_scale_that_is_no_number_is_refused(tmp_path):
    folder = put(tmp_path, weights(), {**CONFIG, "normalize_activations": "expected_average_only_in"})
    for value in (None, 0, -1.0, "3", True):
        (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": value}))
        with pytest.raises(UserError, match="scaling_factor"):
            formats.load(folder)


@pytest.mark.parametrize("hook", ["blocks.2.hook_resid_post", "blocks.2.hook_out", "model.layers.2", "transformer.h.2"])
def test_hook_names_of_the_same_place(tmp_path, hook):
    assert list(formats.load(put(tmp_path, weights(), {**CONFIG, "metadata": {"hook_name": hook}}))) == [2]


def test_without_hook_the_folder_names_the_layer(tmp_path):
    assert list(formats.load(put(tmp_path / "layer_5", weights(), {**CONFIG, "metadata": {}}))) == [5]


def test_configurations_older_than_version_6(tmp_path):
    config = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4},
        "d_in": 6,
        "d_sae": 20,
        "hook_name": "blocks.9.hook_resid_post",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
    }
    assert formats.load(put(tmp_path, weights(), config))[9].k == 4


def test_two_saes_of_one_layer_are_not_chosen_between(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name, weights(), CONFIG)
    with pytest.raises(UserError, match="second SAE of layer 2") as caught:
        formats.load(tmp_path)
    assert caught.value.reason == "SAE_AMBIGUOUS"


def test_wrong_tensors_are_refused(tmp_path):
    for name, tensors, words in (
        ("threshold", {**weights(), "threshold": torch.zeros(20)}, "must hold"),
        ("shape", {**weights(), "b_dec": torch.zeros(20)}, "b_dec has shape"),
        ("nan", {**weights(), "b_dec": torch.full((6,), float("nan"))}, "not finite"),
        ("double", {**weights(), "b_dec": torch.zeros(6, dtype=torch.float64)}, "float64"),
    ):
        with pytest.raises(UserError, match=words):
            formats.load(put(tmp_path / name, tensors, CONFIG))


def test_what_we_write(tmp_path, random_sae, recipe):
    sae = random_sae(d_in=8, d_sae=24, k=3, layer=4)
    formats.save({4: sae}, tmp_path, ["saelens"], recipe)
    folder = tmp_path / "saelens" / "layer4"
    assert sorted(item.name for item in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    tensors = load_file(folder / "sae_weights.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "W_enc": (8, 24),
        "W_dec": (24, 8),
        "b_enc": (24,),
        "b_dec": (8,),
    }
    assert torch.equal(tensors["W_enc"], sae.W_enc_FD.t())
    config = json.loads((folder / "cfg.json").read_text())
    metadata = config.pop("metadata")
    assert config == {**{key: CONFIG[key] for key in CONFIG if key != "metadata"}, "d_in": 8, "d_sae": 24, "k": 3}
    assert metadata["hook_name"] == "blocks.4.hook_resid_post"
    assert metadata["hf_hook_name"] == "model.layers.4"
    assert metadata["prepend_bos"] is False
    assert int(metadata["sae_lens_version"].split(".")[0]) >= 6
