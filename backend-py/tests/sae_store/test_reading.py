"""Reading: the rows asked for and no others, whole layers within the budget, refusals before anything is allocated."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.models import available_memory
from qscope.sae import formats, store

D_IN, D_SAE = 8, 24
LAYER_BYTES = 4 * D_IN * D_SAE
"""One matrix in float32."""


@pytest.fixture(scope="module")
def source(tmp_path_factory, put):
    return put(tmp_path_factory.mktemp("source"), [0, 1, 2, 5], d_in=D_IN, d_sae=D_SAE)


@pytest.fixture(scope="module")
def exact(source):
    """The SAEs as the store rounds them."""
    saes = formats.load(source)
    for sae in saes.values():
        sae.W_enc_FD, sae.W_dec_FD = sae.W_enc_FD.bfloat16().float(), sae.W_dec_FD.bfloat16().float()
    return saes


@pytest.fixture(scope="module")
def opened(source):
    with store.open_store(source) as saes:
        yield saes


@settings(max_examples=50, deadline=None)
@given(layer=st.sampled_from([0, 1, 2, 5]), features=st.lists(st.integers(0, D_SAE - 1), max_size=40))
def test_rows_are_those_asked_for_in_that_order(layer, features, opened, exact):
    sae = exact[layer]
    chosen = torch.tensor(features, dtype=torch.long)
    for asked in (features, chosen, tuple(features)):
        directions_ND = opened.directions(layer, asked)
        assert directions_ND.dtype == torch.float32
        assert torch.equal(directions_ND, sae.W_dec_FD[chosen])
        W_ND, b_N = opened.encoder_rows(layer, asked)
        assert torch.equal(W_ND, sae.W_enc_FD[chosen])
        assert torch.equal(b_N, sae.b_enc_F[chosen])
        torch.testing.assert_close(opened.decoder_norms(layer, asked), sae.W_dec_FD[chosen].norm(dim=1))


def test_whole_layers_are_those_of_the_source(opened, exact):
    for layer, sae in exact.items():
        got = opened.sae(layer)
        for name, tensor in sae.tensors().items():
            assert torch.equal(got.tensors()[name], tensor), name
        W_FD, b_F = opened.encoder(layer, dtype=torch.bfloat16)
        assert (W_FD.dtype, b_F.dtype) == (torch.bfloat16, torch.bfloat16)
        assert torch.equal(W_FD.float(), sae.W_enc_FD)
        assert torch.equal(opened.b_dec(layer), sae.b_dec_D)
        x_BD = torch.randn(7, D_IN, generator=torch.Generator().manual_seed(layer))
        assert torch.equal(got.reconstruct(x_BD), sae.reconstruct(x_BD))


def test_answers_may_be_changed(opened, exact):
    for answer in (opened.b_dec(0), opened.decoder_norms(0), opened.directions(0, [1]), opened.encoder_rows(0, [1])[1]):
        answer.zero_()
    assert torch.equal(opened.b_dec(0), exact[0].b_dec_D)
    assert float(opened.decoder_norms(0).min()) > 0
    assert torch.equal(opened.encoder_rows(0, [1])[1], exact[0].b_enc_F[[1]])


@pytest.mark.parametrize("feature", [-1, D_SAE, 2**40])
def test_a_feature_that_does_not_exist_is_named(opened, feature):
    for read in (opened.directions, opened.encoder_rows, opened.decoder_norms):
        with pytest.raises(UserError, match=f"no feature {feature} at layer 1") as caught:
            read(1, [3, feature])
        assert caught.value.reason == "FEATURE_OUT_OF_RANGE"
        assert caught.value.remedy == "Its features are 0 to 23."


def test_a_layer_that_does_not_exist_is_named(opened, source):
    for read in (opened.b_dec, opened.sae, lambda layer: opened.directions(layer, [0])):
        with pytest.raises(UserError, match=r"no SAE of layer 3.*0, 1, 2, 5"):
            read(3)
    with pytest.raises(UserError, match=r"no SAE of layer 3.*0, 1, 2, 5"):
        store.open_store(source, [0, 3])


def test_an_encoder_is_held_and_shared(source):
    with store.open_store(source, host_bytes=2 * LAYER_BYTES) as saes:
        W_FD, _ = saes.encoder(0)
        assert saes.sae(0).W_enc_FD is W_FD
        assert saes.held_bytes() == 2 * LAYER_BYTES
        saes.encoder(1)
        assert saes.held_bytes() == 2 * LAYER_BYTES
        assert saes.encoder(0)[0] is not W_FD


def test_what_does_not_fit_is_refused(source):
    with store.open_store(source, host_bytes=2 * LAYER_BYTES - 1, device_bytes=LAYER_BYTES - 1) as saes:
        saes.encoder(0)
        with pytest.raises(UserError, match=r"The SAE of layer 0 in float32 takes 1\.54 kB of host memory") as caught:
            saes.sae(0)
        assert caught.value.reason == "OUT_OF_BUDGET"
        assert "bfloat16" in caught.value.remedy
        assert saes.held_bytes() == LAYER_BYTES
        saes.sae(0, dtype=torch.bfloat16)
        with pytest.raises(UserError, match=r"memory of meta"):
            saes.encoder(0, device="meta")
        assert saes.held_bytes("meta") == 0
        assert saes.require([0, 1], dtype=torch.bfloat16) == LAYER_BYTES
        with pytest.raises(UserError, match="The encoder of 2 layers in float32 takes"):
            saes.require([0, 1])
        rows = 2 * LAYER_BYTES // (4 * D_IN)
        with pytest.raises(UserError, match=f"{rows} rows of layer 0 takes"):
            saes.directions(0, [0] * rows)


def test_a_device_has_a_budget_of_its_own(source):
    """Tensors on "meta" have no memory and are enough to see where the bytes are counted."""
    with store.open_store(source, host_bytes=LAYER_BYTES, device_bytes=3 * LAYER_BYTES) as saes:
        for layer in (0, 1, 2, 5):
            assert saes.encoder(layer, device="meta")[0].device.type == "meta"
        assert (saes.held_bytes("meta"), saes.held_bytes()) == (3 * LAYER_BYTES, 0)


def test_without_a_budget_it_is_half_of_what_is_free(source):
    with store.open_store(source) as saes:
        limit = saes._budget(torch.device("cpu")).limit
        assert 0.8 < limit / (available_memory(torch.device("cpu")) / 2) < 1.25


def test_threads_read_at_once(source, exact):
    faults: list[str] = []
    with store.open_store(source, host_bytes=3 * LAYER_BYTES) as saes:

        def read(seed: int) -> None:
            for step in range(30):
                layer = (0, 1, 2, 5)[(seed + step) % 4]
                if not torch.equal(saes.directions(layer, [step % D_SAE]), exact[layer].W_dec_FD[[step % D_SAE]]):
                    faults.append("direction")
                if not torch.equal(saes.encoder(layer)[0], exact[layer].W_enc_FD):
                    faults.append("encoder")

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert saes.held_bytes() <= 3 * LAYER_BYTES
    assert not faults


def test_what_another_process_replaces_does_not_reach_an_open_store(tmp_path, put):
    source = put(tmp_path, [0])
    with store.open_store(source) as saes:
        before_ND = saes.directions(0, range(24))
        put(tmp_path, [0], seed=1)
        with store.open_store(source) as other:
            assert not torch.equal(other.directions(0, range(24)), before_ND)
        assert torch.equal(saes.directions(0, range(24)), before_ND)


def test_the_store_opens_without_its_source(tmp_path, put):
    source = put(tmp_path / "source", [0, 3])
    with store.open_store(source) as saes:
        folder, before_ND = saes.folder, saes.directions(3, [1, 2])
    for path in sorted(source.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(UserError, match="holds no SAE"):
        store.open_store(source)
    with store.open_store(folder, verify=True) as saes:
        assert saes.layers == [0, 3]
        assert torch.equal(saes.directions(3, [1, 2]), before_ND)
    assert store.plan(folder).pending == ()
    with pytest.raises(UserError, match="no SAE of layer 1"):
        store.open_store(folder, [1])
