"""What every layout must do: give back the same bits, and never half a file."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.v1 import sae_pb2

LAYOUTS = list(formats.LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(
    d_in=st.integers(1, 9),
    d_sae=st.integers(1, 17),
    layers=st.sets(st.integers(0, 99), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_load_gives_back_every_bit(layout, d_in, d_sae, layers, seed, data, random_sae, assert_equal, recipe):
    k = data.draw(st.integers(1, d_sae))
    saes = {layer: random_sae(d_in, d_sae, k, layer, seed + layer) for layer in layers}
    with tempfile.TemporaryDirectory() as folder:
        formats.save(saes, folder, [layout], recipe)
        loaded = formats.load(folder)
        assert list(loaded) == sorted(saes)
        for layer, sae in loaded.items():
            assert_equal(sae, saes[layer])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_at_the_edge_of_float32_survive(layout, tmp_path, random_sae, assert_equal, recipe):
    sae = random_sae()
    sae.b_dec_D[:5] = torch.tensor([0.0, -0.0, 1e-45, 3.4028235e38, -3.4028235e38])
    formats.save({0: sae}, tmp_path, [layout], recipe)
    assert_equal(formats.load(tmp_path)[0], sae)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_slice_of_stacked_layers_is_written_alone(layout, tmp_path, random_sae, assert_equal, recipe):
    single = random_sae(d_in=16, d_sae=64)
    stacks = {name: torch.stack([tensor] * 50) for name, tensor in single.tensors().items()}
    sae = TopKSae(**{name: stack[25] for name, stack in stacks.items()}, k=3)
    formats.save({0: sae}, tmp_path, [layout], recipe)
    assert_equal(formats.load(tmp_path)[0], sae)
    weights = (2 * 16 * 64 + 16 + 64) * 4
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < weights + 8192


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_sae_gives_the_same_file(layout, tmp_path, random_sae, recipe):
    files = []
    for name in ("a", "b"):
        formats.save({0: random_sae()}, tmp_path / name, [layout], recipe)
        written = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        files.append([(file.relative_to(tmp_path / name), file.read_bytes()) for file in written])
    assert files[0] == files[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_precisions_are_written_as_float32(layout, tmp_path, random_sae, assert_equal, recipe):
    wide = random_sae().to(dtype=torch.float64)
    formats.save({0: wide}, tmp_path, [layout], recipe)
    assert_equal(formats.load(tmp_path)[0], wide.to(dtype=torch.float32))


def test_all_layouts_at_once_and_what_is_preferred(tmp_path, random_sae, assert_equal, recipe):
    saes = {layer: random_sae(layer=layer, seed=layer) for layer in (2, 11)}
    enum = [sae_pb2.SAE_FORMAT_SAELENS, sae_pb2.SAE_FORMAT_NATIVE, "qwen_scope", sae_pb2.SAE_FORMAT_QWEN_SCOPE]
    written = formats.save(saes, tmp_path, enum, recipe)
    assert written == [tmp_path / "saelens", tmp_path / "native", tmp_path / "qwen_scope"]
    assert formats.detect(tmp_path).layout == "native"
    for folder in written:
        assert formats.detect(folder).layout == folder.name
        assert list(formats.detect(folder).places) == [2, 11]
        for layer, sae in formats.load(folder).items():
            assert_equal(sae, saes[layer])


def test_single_saes_can_be_named(tmp_path, random_sae, assert_equal, recipe):
    sae = random_sae(layer=5)
    formats.save({5: sae}, tmp_path, LAYOUTS, recipe)
    for name in (
        "native/layer5",
        "native/layer5/sae.safetensors",
        "qwen_scope/layer5.sae.pt",
        "saelens/layer5/cfg.json",
    ):
        assert_equal(formats.load(tmp_path / name)[5], sae)


def test_layers_are_chosen_and_missing_ones_named(tmp_path, random_sae, recipe):
    formats.save({layer: random_sae(layer=layer) for layer in (0, 1, 2)}, tmp_path, ["qwen_scope"], recipe)
    assert list(formats.load(tmp_path, layers=[2, 0])) == [0, 2]
    with pytest.raises(UserError, match=r"no SAE of layer 7.*layers 0, 1, 2") as caught:
        formats.load(tmp_path, layers=[0, 7])
    assert caught.value.reason == "SAE_LAYER_MISSING"


def test_the_recipe_travels_with_the_weights(tmp_path, random_sae, recipe):
    formats.save({3: random_sae(layer=3)}, tmp_path, LAYOUTS, {**recipe, "loss": float("inf"), "steps": (1, 2)})
    expected = {**recipe, "loss": None, "steps": [1, 2]}
    assert json.loads((tmp_path / "native/layer3/sae.json").read_text())["recipe"] == expected
    assert json.loads((tmp_path / "qwen_scope/layer3.sae.json").read_text())["recipe"] == expected
    metadata = json.loads((tmp_path / "saelens/layer3/cfg.json").read_text())["metadata"]
    assert metadata["qscope"]["recipe"] == expected
    assert metadata["model_name"] == "embedded"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_failed_write_leaves_no_mixture(layout, tmp_path, random_sae, monkeypatch, recipe):
    """Stopped between weights and document, the next reader refuses; it does not pair new weights with the old k."""
    formats.save({0: random_sae(k=3)}, tmp_path, [layout], recipe)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(formats.LAYOUTS[layout], "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        formats.save({0: random_sae(k=9, seed=1)}, tmp_path, [layout], recipe)
    monkeypatch.undo()
    with pytest.raises(UserError):
        formats.load(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_full_disk_leaves_the_old_file(tmp_path, random_sae, monkeypatch, recipe):
    place = tmp_path / "qwen_scope" / "layer0.sae.pt"
    formats.save({0: random_sae()}, tmp_path, ["qwen_scope"], recipe)
    before = place.read_bytes()

    def fail(value, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space"):
        formats.save({0: random_sae(seed=1)}, tmp_path, ["qwen_scope"], recipe)
    assert place.read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_renamed_qwen_scope_file_is_refused(tmp_path, random_sae, recipe):
    formats.save({0: random_sae()}, tmp_path, ["qwen_scope"], recipe)
    for suffix in ("pt", "json"):
        (tmp_path / "qwen_scope" / f"layer0.sae.{suffix}").rename(tmp_path / "qwen_scope" / f"layer4.sae.{suffix}")
    with pytest.raises(UserError, match="describes layer 0, not 4"):
        formats.load(tmp_path)


@pytest.mark.parametrize("layout", ["native", "saelens"])
def test_a_copied_folder_is_refused(layout, tmp_path, random_sae, recipe):
    formats.save({0: random_sae()}, tmp_path, [layout], recipe)
    shutil.copytree(tmp_path / layout / "layer0", tmp_path / layout / "layer4")
    with pytest.raises(UserError, match="second SAE of layer 0") as caught:
        formats.load(tmp_path)
    assert caught.value.reason == "SAE_AMBIGUOUS"


def test_nothing_there(tmp_path):
    for path, words in ((tmp_path, "holds no SAE"), (tmp_path / "absent", "does not exist")):
        with pytest.raises(UserError, match=words) as caught:
            formats.load(path)
        assert caught.value.reason == "SAE_NOT_FOUND"


def test_unknown_layout(tmp_path, random_sae, recipe):
    for name in ("onnx", 0, 99):
        with pytest.raises(UserError, match="layout"):
            formats.save({0: random_sae()}, tmp_path, [name], recipe)
    assert not list(Path(tmp_path).iterdir())


def test_foreign_saes_are_refused(random_sae):
    model = SimpleNamespace(d_model=8, n_layers=4)
    formats.refuse_if_foreign({3: random_sae(layer=3)}, model)
    with pytest.raises(UserError, match="9 dimensions") as caught:
        formats.refuse_if_foreign({0: random_sae(d_in=9)}, model, field="eval_sae.sae")
    assert caught.value.field == "eval_sae.sae"
    with pytest.raises(UserError, match="layer 4"):
        formats.refuse_if_foreign({4: random_sae(layer=4)}, model)


@pytest.mark.parametrize("layout", ["native", "saelens"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_folders_end_in_one_sentence(layout, data, random_sae, recipe):
    """Any byte of any file changed, cut or inserted: the same SAE, another finite one, or a UserError; nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        formats.save({0: random_sae(4, 6, 2)}, folder, [layout], recipe)
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["cut", "change", "insert"]))
        if kind == "cut":
            del content[at:]
        elif kind == "change":
            content[at] = data.draw(st.integers(0, 255))
        else:
            content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        file.write_bytes(content)
        saes, error = attempt(folder)
        assert error is None or (error.remedy and "\n" not in str(error))
        assert all(torch.isfinite(tensor).all() for sae in saes.values() for tensor in sae.tensors().values())


def attempt(path) -> tuple[dict[int, TopKSae], UserError | None]:
    """What loading gives: SAEs or a UserError; anything else is raised."""
    try:
        return formats.load(path), None
    except UserError as error:
        return {}, error
