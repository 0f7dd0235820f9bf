"""Where features come from: every layout gives the same rows, adding loads no whole SAE, and misfits are said."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from qscope.errors import UserError
from qscope.sae import formats
from qscope.steering.batch import SteeredBatch
from qscope.steering.saes import LoadedSaes, NoSaes, StoredSaes
from tests.steering.conftest import D_SAE, K, generate, make_edit, prompt_of, resolved, sae_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def loaded(tiny_model):
    return tiny_model("qwen3")


@pytest.fixture(params=["native", "qwen_scope", "saelens"])
def place(request, tmp_path):
    formats.save({layer: sae_of(layer) for layer in (1, 2)}, tmp_path / "saes", [request.param], {})
    return tmp_path / "saes"


def test_every_layout_gives_the_same_rows_and_the_same_sae(place, loaded):
    saes, plain = StoredSaes(place, loaded), LoadedSaes(sae_of)
    assert saes.d_sae(1) == D_SAE
    torch.testing.assert_close(saes.directions(1, [5, 60, 5]), plain.directions(1, [5, 60, 5]))
    whole = saes.whole(2)
    assert (whole.layer, whole.k) == (2, K)
    for name, tensor in whole.tensors().items():
        torch.testing.assert_close(tensor, sae_of(2).tensors()[name])


def test_adding_a_feature_loads_no_whole_sae_and_reading_one_does(place, loaded):
    saes, whole = StoredSaes(place, loaded), []
    inner = saes.whole
    saes.whole = lambda layer: whole.append(layer) or inner(layer)
    for op, layers in (("add", []), ("set", [1])):
        spec = resolved(make_edit([1], [5], op), saes=saes)
        SteeredBatch(loaded, [prompt_of([1, 2])], [spec], saes)
        assert whole == layers


def test_a_random_sae_is_told_apart_from_a_fitting_one_once(place, loaded):
    said: list[str] = []
    saes = StoredSaes(place, loaded, warn=said.append)
    saes.whole(1)
    first = list(said)
    saes.whole(1)
    saes.directions(1, [3])
    assert said == first
    assert len(set(said)) == len(said)
    # Random weights reconstruct nothing at all, which a self-test must notice.
    assert any("Layer 1" in sentence for sentence in said), said


def test_a_missing_layer_and_a_foreign_width_are_refused(place, tiny_model, loaded):
    with pytest.raises(UserError) as caught:
        StoredSaes(place, loaded).d_sae(3)
    assert caught.value.reason == "SAE_LAYER_MISSING"
    wide = dataclasses.replace(loaded, facts=dataclasses.replace(loaded.facts, d_model=48))
    with pytest.raises(UserError) as caught:
        StoredSaes(place, wide, at="steer.sae").directions(1, [0])
    assert (caught.value.reason, caught.value.field) == ("SAE_OF_ANOTHER_MODEL", "steer.sae")


def test_vectors_need_no_sae_and_features_say_what_is_missing(loaded):
    none = NoSaes(UserError("No run has SAEs yet.", remedy="Train some.", reason="SAE_NOT_FOUND"))
    spec = resolved(make_edit([1], [], vector=[1.0] * 32, strength=20.0), saes=none)
    _, _, batch = generate(loaded, [[40, 41, 77]], [spec])
    assert batch.row_proofs()[0].changed == 2 + 5
    with pytest.raises(UserError, match="No run has SAEs"):
        resolved(make_edit([1], [5]), saes=none)
