"""Where features come from: every layout gives the same rows, adding loads no whole SAE, and misfits are said."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qscope.errors import UserError
from qscope.sae import formats
from qscope.sae.store import reading
from qscope.sae.topk import TopKSae
from qscope.steering import saes as steering_saes
from qscope.steering.batch import SteeredBatch
from qscope.steering.saes import LoadedSaes, NoSaes, StoredSaes
from qscope.steering.session import WarmModel
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


def test_layers_share_one_budget_and_each_is_tested_once(place, tiny_model, monkeypatch):
    tiny = tiny_model("qwen3")
    loaded = SimpleNamespace(device=tiny.device, dtype=torch.bfloat16, facts=tiny.facts)
    tested = []
    monkeypatch.setattr(StoredSaes, "_test_hook_point", lambda self, sae: tested.append(sae.layer))
    # Room for one SAE and a half.
    room = 2 * 2 * D_SAE * 32 * 1.5
    for module in (steering_saes, reading):
        monkeypatch.setattr(module, "available_memory", lambda device: int(room / reading.SHARE))
    saes = StoredSaes(place, loaded)
    weak = []
    for layer in (1, 2, 1, 2):
        sae = saes.whole(layer)
        torch.testing.assert_close(sae.W_enc_FD, sae_of(layer).W_enc_FD.bfloat16())
        weak.append(weakref.ref(sae.W_enc_FD))
        del sae
    gc.collect()
    assert [ref() is not None for ref in weak] == [False, False, False, True]
    assert tested == [1, 2]
    monkeypatch.setattr(steering_saes, "available_memory", lambda device: 100)
    monkeypatch.setattr(reading, "available_memory", lambda device: 100)
    with pytest.raises(UserError) as caught:
        StoredSaes(place, loaded).whole(1)
    assert caught.value.reason == "OUT_OF_BUDGET"


def test_the_warm_model_forgets_old_saes_and_sees_new_ones_in_the_same_place(loaded, tmp_path):
    def save(name: str, factor: float = 1.0):
        sae = sae_of(1)
        sae = TopKSae(sae.W_enc_FD, sae.b_enc_F, sae.W_dec_FD * factor, sae.b_dec_D, k=sae.k, layer=1)
        formats.save({1: sae}, tmp_path / name, ["native"], {})
        return tmp_path / name

    def row(name: str) -> float:
        return warm.saes(name, lambda name: places[name], offline=True).saes.directions(1, [5])[0, 0].item()

    places = {name: save(name, index + 1) for index, name in enumerate("abcdef")} | {"latest": tmp_path / "a"}
    warm = WarmModel()
    warm._loaded = loaded
    unit = sae_of(1).W_dec_FD[5, 0].item()
    first = warm.saes("latest", lambda name: places[name], offline=True)
    # One place, one set of SAEs, whatever it is called; and it is kept while nothing changes.
    assert warm.saes("a", lambda name: places[name], offline=True) is first
    assert row("latest") == pytest.approx(unit)
    save("a", 7.0)
    assert row("a") == row("latest") == pytest.approx(7 * unit)
    places["latest"] = tmp_path / "b"
    assert row("latest") == pytest.approx(2 * unit)
    assert [str(tmp_path / "b")] == list(warm._resolvers)
    for name in "cdefc":
        row(name)
    assert [Path(place).name for place in warm._resolvers] == ["e", "f", "c"]
