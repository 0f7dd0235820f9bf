"""The self-test of the hook point, on the embedded model, with SAEs that are exact where they belong."""

from __future__ import annotations

import math

import pytest
import torch

from qscope.errors import UserError
from qscope.models import capture_residuals, load_model
from qscope.sae.hook_check import EXPECTED, hook_self_test
from qscope.sae.topk import TopKSae
from qscope.v1.model_pb2 import ModelOptions

TEXT = "The river rose in the night. In the morning the bridge was gone, and the children stood on the bank and looked."


@pytest.fixture(scope="module")
def loaded():
    return load_model("embedded", ModelOptions())


@pytest.fixture(scope="module")
def ids_BT(loaded):
    ids = loaded.tokenizer(TEXT, return_tensors="pt").input_ids
    assert ids.shape[1] >= 20
    return ids


@pytest.fixture(scope="module")
def exact_sae(loaded, ids_BT):
    """``exact_sae(layer)``: an SAE whose features are the principal directions, both signs, of the text's residuals
    at one layer; with fewer tokens than directions the reconstruction there is exact, and nowhere else.
    """
    resids = capture_residuals(loaded, range(loaded.facts.n_layers), ids_BT)

    def make(layer: int, filed_under: int | None = None, subtracting: bool = False) -> TopKSae:
        x_ND = resids[layer][0, 1:].double()
        mean_D = x_ND.mean(0)
        directions_RD = torch.linalg.svd(x_ND - mean_D, full_matrices=False).Vh
        both_FD = torch.cat([directions_RD, -directions_RD])
        b_enc_F = torch.zeros(len(both_FD)).double() if subtracting else -(both_FD @ mean_D)
        parts = (both_FD, b_enc_F, both_FD.clone(), mean_D)
        filed = layer if filed_under is None else filed_under
        return TopKSae(*(part.float() for part in parts), k=len(directions_RD), layer=filed)

    return make


def test_every_layer_is_best_at_its_own_hook_point(loaded, exact_sae, ids_BT):
    saes = {layer: exact_sae(layer) for layer in range(loaded.facts.n_layers)}
    report = hook_self_test(loaded, saes, ids_BT)
    assert report.warnings == []
    assert report.tokens == ids_BT.shape[1] - 1
    for layer, row in report.fvu.items():
        assert row[EXPECTED] < 1e-6
        assert all(value > 0.005 for name, value in row.items() if name != EXPECTED)
        assert ("below" in row, "above" in row) == (layer > 0, layer < loaded.facts.n_layers - 1)
    assert set(report.to_json()["fvu"]) == {str(layer) for layer in saes}


@pytest.mark.parametrize(("trained_at", "filed_under", "words"), [(2, 3, "block 2"), (3, 2, "block 3")])
def test_layers_counted_otherwise_are_noticed(loaded, exact_sae, ids_BT, trained_at, filed_under, words):
    report = hook_self_test(loaded, {filed_under: exact_sae(trained_at, filed_under)}, ids_BT)
    (warning,) = report.warnings
    assert warning.startswith(f"Layer {filed_under}: the SAE explains the output of {words} better than its hook point")


def test_the_other_encode_convention_is_noticed(loaded, exact_sae, ids_BT):
    report = hook_self_test(loaded, {2: exact_sae(2, subtracting=True)}, ids_BT)
    assert report.fvu[2]["b_dec_subtracted"] < 1e-6 < report.fvu[2][EXPECTED]
    assert "with b_dec subtracted before the encoder" in report.warnings[0]


def test_an_sae_of_something_else_is_noticed(loaded, exact_sae, ids_BT):
    sae = exact_sae(2)
    generator = torch.Generator().manual_seed(0)
    sae.W_dec_FD = torch.randn(sae.W_dec_FD.shape, generator=generator)
    report = hook_self_test(loaded, {2: sae}, ids_BT)
    assert len(report.warnings) == 1


def test_equal_candidates_draw_no_warning(loaded, exact_sae, ids_BT):
    """Without b_dec both conventions are one."""
    sae = exact_sae(2)
    sae.b_dec_D = torch.zeros_like(sae.b_dec_D)
    sae.b_enc_F = torch.zeros_like(sae.b_enc_F)
    report = hook_self_test(loaded, {2: sae}, ids_BT)
    assert report.fvu[2]["b_dec_subtracted"] == report.fvu[2][EXPECTED]
    assert not any("subtracted" in warning for warning in report.warnings)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_first_tokens_count_for_nothing(loaded, exact_sae, ids_BT, side):
    saes = {1: exact_sae(1), 2: exact_sae(2)}
    alone = hook_self_test(loaded, saes, ids_BT)
    padding_BT = torch.full((1, 5), 7)
    pair = (padding_BT, ids_BT) if side == "left" else (ids_BT, padding_BT)
    padded_BT = torch.cat(pair, dim=1)
    mask_BT = torch.cat(
        [torch.zeros_like(part) if part is padding_BT else torch.ones_like(part) for part in pair], dim=1
    )
    padded = hook_self_test(loaded, saes, padded_BT, mask_BT)
    assert padded.tokens == alone.tokens
    for layer, row in alone.fvu.items():
        for name, value in row.items():
            assert math.isclose(padded.fvu[layer][name], value, rel_tol=2e-2, abs_tol=1e-6)


def test_nothing_stays_hooked(loaded, exact_sae, ids_BT):
    hook_self_test(loaded, {0: exact_sae(0)}, ids_BT)
    assert not any(block._forward_hooks for block in loaded.decoder.blocks)


def test_what_cannot_be_tested_is_refused(loaded, exact_sae, ids_BT, random_sae):
    n_layers = loaded.facts.n_layers
    with pytest.raises(UserError, match=f"SAE of layer {n_layers}"):
        hook_self_test(loaded, {n_layers: exact_sae(0, n_layers)}, ids_BT)
    with pytest.raises(UserError, match="reads 8 dimensions"):
        hook_self_test(loaded, {0: random_sae()}, ids_BT)
    with pytest.raises(UserError, match="no token on which") as caught:
        hook_self_test(loaded, {0: exact_sae(0)}, ids_BT[:, :1])
    assert caught.value.reason == "TEXT_TOO_SHORT"


def test_a_few_tokens_are_not_trusted(loaded, exact_sae, ids_BT):
    report = hook_self_test(loaded, {2: exact_sae(2)}, ids_BT[:, :9])
    assert report.warnings[-1] == "The hook points were tested on 8 tokens only; give a longer text."


@pytest.mark.parametrize("kind", ["qwen3_moe", "qwen3_5", "qwen3_5_moe", "qwen3_5_wrapper"])
def test_on_every_kind_of_model(tiny_model, kind):
    tiny = tiny_model(kind)
    ids_BT = torch.arange(20)[None] + 3
    x_ND = capture_residuals(tiny, [1], ids_BT)[1][0, 1:].double()
    directions_RD = torch.linalg.svd(x_ND - x_ND.mean(0), full_matrices=False).Vh
    both_FD = torch.cat([directions_RD, -directions_RD])
    parts = (both_FD, -(both_FD @ x_ND.mean(0)), both_FD, x_ND.mean(0))
    report = hook_self_test(tiny, {1: TopKSae(*(part.float() for part in parts), k=19, layer=1)}, ids_BT)
    assert report.warnings == []
    assert report.fvu[1][EXPECTED] < 1e-6 < min(value for name, value in report.fvu[1].items() if name != EXPECTED)
