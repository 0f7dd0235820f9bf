"""Converting: the store holds what the source holds, once, and notices when the source changes."""

from __future__ import annotations

import json
import os
import resource
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from qscope.errors import UserError
from qscope.sae import formats, store
from qscope.sae.store import conversion
from qscope.sae.store.layer_file import row_sums
from qscope.sae.store.sources import Source, locate
from qscope.sae.topk import TopKSae

LAYOUTS = list(formats.LAYOUTS)
DTYPES = [torch.bfloat16, torch.float32]
HALF_A_STEP = 2.0**-8
"""Largest relative error of rounding to bfloat16, which keeps 8 significant bits."""


def files_of(saes: store.SaeStore) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(saes.folder).glob("*.safetensors")}


def same_as_source(saes: store.SaeStore, source: Path, layers=None) -> None:
    for layer, expected in formats.load(source, layers).items():
        got = saes.sae(layer)
        assert (got.k, got.layer) == (expected.k, expected.layer)
        for name in ("W_enc_FD", "W_dec_FD"):
            torch.testing.assert_close(
                getattr(got, name), getattr(expected, name).to(saes.dtype).float(), rtol=0, atol=0
            )
        for name in ("b_enc_F", "b_dec_D"):
            torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=10, deadline=None)
@given(
    d_in=st.integers(1, 9),
    d_sae=st.integers(1, 17),
    layers=st.sets(st.integers(0, 99), min_size=1, max_size=2),
    seed=st.integers(0, 2**31),
)
def test_the_store_gives_back_the_source(layout, dtype, d_in, d_sae, layers, seed, put):
    with tempfile.TemporaryDirectory() as folder:
        source = put(Path(folder), layers, layout, d_in=d_in, d_sae=d_sae, k=1, seed=seed)
        with store.open_store(source, dtype=dtype) as saes:
            assert saes.layers == sorted(layers)
            same_as_source(saes, source)
            for layer, expected in formats.load(source).items():
                rounding = HALF_A_STEP if dtype == torch.bfloat16 else 0.0
                for got, exact in (
                    (saes.sae(layer).W_enc_FD, expected.W_enc_FD),
                    (saes.sae(layer).W_dec_FD, expected.W_dec_FD),
                ):
                    assert bool(((got - exact).abs() <= rounding * exact.abs()).all())
                norms_F = saes.sae(layer).W_dec_FD.double().norm(dim=1)
                torch.testing.assert_close(saes.decoder_norms(layer).double(), norms_F, rtol=1e-6, atol=0)


def test_layers_larger_than_a_chunk(tmp_path, put):
    """36 MB a matrix: two chunks, the last one short; the decoder is transposed on the way."""
    source = put(tmp_path, [0], "qwen_scope", d_in=1024, d_sae=9001)
    with store.open_store(source) as saes:
        same_as_source(saes, source)


def test_what_saelens_folds_is_folded(tmp_path):
    generator = torch.Generator().manual_seed(0)
    place = tmp_path / "layer2"
    place.mkdir()
    save_file(
        {
            "W_enc": torch.randn(6, 20, generator=generator),
            "W_dec": torch.randn(20, 6, generator=generator),
            "b_enc": torch.randn(20, generator=generator),
            "b_dec": torch.randn(6, generator=generator),
        },
        place / "sae_weights.safetensors",
    )
    config = {
        "architecture": "topk",
        "k": 4,
        "apply_b_dec_to_input": True,
        "rescale_acts_by_decoder_norm": True,
        "normalize_activations": "expected_average_only_in",
        "metadata": {"hook_name": "blocks.2.hook_resid_post", "model_name": "Qwen/Qwen3-1.7B-Base"},
    }
    (place / "cfg.json").write_text(json.dumps(config))
    (place / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 1.7}))
    with store.open_store(tmp_path) as saes:
        same_as_source(saes, tmp_path)
        assert saes.facts.saes[2].model == {"name": "Qwen/Qwen3-1.7B-Base"}


def test_the_file_is_ordinary_safetensors(tmp_path, put):
    source = put(tmp_path, [3])
    with store.open_store(source) as saes:
        (path,) = Path(saes.folder).glob("*.safetensors")
        tensors = load_file(path)
        assert {name: (str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()} == {
            "W_enc": ("torch.bfloat16", (24, 8)),
            "W_dec": ("torch.bfloat16", (24, 8)),
            "b_enc": ("torch.float32", (24,)),
            "b_dec": ("torch.float32", (8,)),
            "decoder_norms": ("torch.float32", (24,)),
            "W_enc_sums": ("torch.int32", (24,)),
            "W_dec_sums": ("torch.int32", (24,)),
        }
        torch.testing.assert_close(tensors["W_dec"].float(), saes.directions(3, range(24)), rtol=0, atol=0)
        assert int.from_bytes(path.read_bytes()[:8], "little") % 4096 == 4096 - 8


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_row_sums_are_those_of_plain_integers(dtype, width):
    rows = torch.randn(5, width, generator=torch.Generator().manual_seed(width)).to(dtype)
    size = 8 if width * dtype.itemsize % 8 == 0 else 2
    for row, got in zip(rows, row_sums(rows).tolist(), strict=True):
        data = row.clone().view(torch.uint8).numpy().tobytes()
        words = (int.from_bytes(data[i : i + size], "little", signed=True) for i in range(0, len(data), size))
        total = sum(words) % 2**64
        assert got % 2**32 == (total ^ (total >> 32)) % 2**32


def test_a_second_opening_writes_nothing_and_new_layers_leave_the_old(tmp_path, put):
    source = put(tmp_path, [0, 3])
    calls: list[tuple[int, int]] = []
    with store.open_store(source, [3], on_layer=lambda *done: calls.append(done)) as saes:
        first, folder = files_of(saes), saes.folder
    assert calls == [(0, 1), (1, 1)]
    with store.open_store(source, on_layer=lambda *done: calls.append(done)) as saes:
        assert saes.folder == folder
        assert first.items() <= files_of(saes).items()
        assert len(files_of(saes)) == 2
    put(tmp_path, [7])
    with store.open_store(source) as saes:
        assert saes.layers == [0, 3, 7]
        assert first.items() <= files_of(saes).items()
    assert len(calls) == 4


def test_one_layer_by_its_own_name_is_of_the_same_group(tmp_path, put):
    for layout, name in (("qwen_scope", "layer3.sae.pt"), ("native", "layer3"), ("saelens", "layer3/cfg.json")):
        source = put(tmp_path, [0, 3], layout)
        with store.open_store(source) as all_of_them, store.open_store(source / name) as one:
            assert (one.folder, one.layers) == (all_of_them.folder, [3])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_changed_source_is_converted_again_under_another_key(tmp_path, put, layout):
    source = put(tmp_path, [0, 3], layout)
    with store.open_store(source) as saes:
        before = files_of(saes)
    put(tmp_path, [3], layout, seed=1)
    told: list[str] = []
    with store.open_store(source, tell=told.append) as saes:
        same_as_source(saes, source)
        after = files_of(saes)
    assert [sentence.count("layer 3 has changed") for sentence in told] == [1]
    assert len(before) == len(after) == 2
    assert [name for name in after if name in before] == [next(name for name in before if name.startswith("layer0-"))]


def test_new_weights_of_the_same_size_and_time_are_noticed(tmp_path, put):
    source = put(tmp_path, [0], "qwen_scope", d_in=64, d_sae=512)
    times = [(path, path.stat()) for path in locate(source).files(source / "layer0.sae.pt")]
    store.open_store(source).close()
    put(tmp_path, [0], "qwen_scope", d_in=64, d_sae=512, seed=1)
    for path, status in times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    with store.open_store(source) as saes:
        same_as_source(saes, source)


def test_a_sidecar_with_another_k_is_a_change(tmp_path, put):
    source = put(tmp_path, [0], "qwen_scope", k=3)
    store.open_store(source).close()
    sidecar = source / "layer0.sae.json"
    sidecar.write_text(sidecar.read_text().replace('"k": 3', '"k": 5'))
    with store.open_store(source) as saes:
        assert saes.sae(0).k == 5


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path, put):
    class Restless(Source):
        def view(self, layer: int, place: Path) -> TopKSae:
            sae = super().view(layer, place)
            os.utime(place / "sae.safetensors", ns=(1, 1))
            return sae

    source = locate(put(tmp_path, [0]))
    restless = Restless(**{name: getattr(source, name) for name in source.__dataclass_fields__})
    group = store._group(source, torch.bfloat16)
    with pytest.raises(UserError, match="changed while it was converted") as caught:
        conversion.convert(group, restless, [0], on_layer=lambda done, count: None)
    assert caught.value.reason == "SAE_FILE_CHANGED"
    assert [path.name for path in group.folder.iterdir()] == [".lock"]


def test_number_formats_have_stores_of_their_own_and_others_are_refused(tmp_path, put):
    source = put(tmp_path)
    folders = set()
    for dtype in DTYPES:
        with store.open_store(source, dtype=dtype) as saes:
            assert saes.dtype == dtype
            folders.add(saes.folder)
    assert len(folders) == 2
    with pytest.raises(UserError, match="cannot hold float16"):
        store.open_store(source, dtype=torch.float16)


def test_weights_beyond_bfloat16_are_refused_in_it(tmp_path, random_sae):
    sae = random_sae()
    sae.W_enc_FD[2, 3] = torch.finfo(torch.float32).max
    (source,) = formats.save({0: sae}, tmp_path, ["native"], {})
    with pytest.raises(UserError, match="layer 0 holds weights too large for bfloat16") as caught:
        store.open_store(source)
    assert caught.value.reason == "SAE_OUT_OF_RANGE"
    with store.open_store(source, dtype=torch.float32) as saes:
        same_as_source(saes, source)


def test_norms_at_the_ends_of_float32_are_right(tmp_path, random_sae):
    sae = random_sae()
    sae.W_dec_FD[:3] = torch.tensor([1e-30, 1e30, 0.0])[:, None]
    (source,) = formats.save({0: sae}, tmp_path, ["native"], {})
    with store.open_store(source, dtype=torch.float32) as saes:
        exact_F = sae.W_dec_FD.double().norm(dim=1)
        torch.testing.assert_close(saes.decoder_norms(0).double(), exact_F, rtol=1e-6, atol=0)


def test_a_damaged_source_leaves_nothing_behind(tmp_path, random_sae):
    sae = random_sae()
    sae.W_dec_FD[1, 1] = float("nan")
    (source,) = formats.save({0: sae}, tmp_path, ["native"], {})
    with pytest.raises(UserError, match="not finite"):
        store.open_store(source)
    assert not list(store._group(locate(source), torch.bfloat16).folder.glob("*layer*"))


def test_too_little_room_is_said_before_anything_is_written(tmp_path, put):
    source = put(tmp_path, [0, 3])
    with pytest.raises(UserError, match=r"writes 10\.6 kB, and 10 kB may be used") as caught:
        store.open_store(source, disk_bytes=10_000)
    assert caught.value.reason == "SAE_STORE_NO_ROOM"
    assert "QSCOPE_CACHE" in caught.value.remedy
    assert not store._group(locate(source), torch.bfloat16).folder.exists()
    store.open_store(source, [0], disk_bytes=10_000).close()


def test_a_disk_that_fills_up_leaves_whole_layers_only(tmp_path, random_sae):
    """The largest size of a file, as the system lets a process set it, stands for the end of the disk."""
    saes = {0: random_sae(layer=0), 1: random_sae(layer=1, d_in=64, d_sae=4096)}
    (source,) = formats.save(saes, tmp_path, ["native"], {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written") as caught:
            store.open_store(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.reason == "SAE_STORE_NOT_WRITABLE"
    folder = store._group(locate(source), torch.bfloat16).folder
    assert sorted(path.name.split("-")[0] for path in folder.iterdir()) == [".lock", "layer0", "manifest.json"]
    assert store.plan(source).pending == (1,)
    with store.open_store(source) as opened:
        same_as_source(opened, source)


def test_a_cache_that_is_no_folder_is_explained(tmp_path, put, monkeypatch):
    source = put(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written") as caught:
        store.open_store(source)
    assert "QSCOPE_CACHE" in caught.value.remedy


def test_where_the_store_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QSCOPE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.store_root() == tmp_path / "own" / "store"
    monkeypatch.setenv("QSCOPE_CACHE", "")
    assert store.store_root() == tmp_path / "xdg" / "qscope" / "store"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert store.store_root() == tmp_path / ".cache" / "qscope" / "store"


def test_the_name_of_the_folder_is_for_people(tmp_path, put):
    source = put(tmp_path / "my run" / "artifacts" / "sae")
    with store.open_store(source) as saes:
        assert Path(saes.folder).name.startswith("my-run-")


def test_the_digest_follows_the_weights_not_the_place(tmp_path, put):
    with store.open_store(put(tmp_path / "a")) as a, store.open_store(put(tmp_path / "b", layout="saelens")) as b:
        assert a.digest(3) == b.digest(3) != a.digest(0)
        assert a.folder != b.folder


def test_stopping_between_two_layers(tmp_path, put):
    source = put(tmp_path, [0, 1, 2])

    def stop(done: int, count: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.open_store(source, on_layer=stop)
    assert store.plan(source).pending == (1, 2)


def test_facts_travel_with_the_store(tmp_path, put):
    recipe = {"model": {"name": "embedded", "n_layers": 6, "fingerprint": "ab", "tuning": "base"}}
    for layout in LAYOUTS:
        source = put(tmp_path, [3], layout, recipe)
        facts = store.read_facts(source)
        assert facts.saes[3] == formats.Description(3, 8, 24, 3, recipe["model"])
        with store.open_store(source) as saes:
            assert saes.facts == facts
            assert store.read_facts(saes.folder) == facts


def test_a_whole_sae_is_not_read_to_know_its_facts(tmp_path, put):
    """Facts come from documents and headers: weights that are not finite do not show."""
    source = put(tmp_path, [0], "qwen_scope")
    sae = replace(formats.load(source)[0])
    sae.W_dec_FD[0, 0] = float("inf")
    formats.save({0: sae}, tmp_path, ["qwen_scope"], {})
    assert store.read_facts(source).saes[0].d_sae == 24
