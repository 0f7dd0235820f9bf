"""A damaged store is noticed and built again; no damaged number is ever handed out."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.sae import formats, store
from qscope.sae.store.manifest import NAME
from qscope.sae.store.sources import key_of


@pytest.fixture(scope="module")
def source(tmp_path_factory, put):
    return put(tmp_path_factory.mktemp("source"), [0, 3], d_in=6, d_sae=10)


@pytest.fixture(scope="module")
def exact(source):
    return {layer: sae.W_dec_FD.bfloat16().float() for layer, sae in formats.load(source).items()}


@pytest.fixture(scope="module")
def everything(source):
    """All that can be read of an undamaged store."""
    with store.open_store(source, verify=True) as saes:
        return read_everything(saes)


@pytest.fixture(scope="module")
def files(source):
    """The store's files: layer 3 and the manifest."""
    with store.open_store(source) as saes:
        folder = Path(saes.folder)
    return next(folder.glob("layer3-*")), folder / NAME


def damages(*, size_kept: bool = False):
    """Functions of the bytes of a file: bits flipped, blocks overwritten or emptied; cut off, lengthened."""
    place = st.floats(0, 1, exclude_max=True)
    flip = st.builds(
        lambda at, bit: lambda data: _with(data, int(at * len(data)), bytes([data[int(at * len(data))] ^ 1 << bit])),
        place,
        st.integers(0, 7),
    )
    overwrite = st.builds(
        lambda at, junk: lambda data: _with(data, int(at * len(data)), junk)[: len(data)],
        place,
        st.binary(min_size=1, max_size=64),
    )
    zero = st.builds(lambda at: lambda data: _with(data, int(at * len(data)), bytes(16))[: len(data)], place)
    cut = st.builds(lambda at: lambda data: data[: int(at * len(data))], place)
    longer = st.builds(lambda junk: lambda data: data + junk, st.binary(min_size=1, max_size=8))
    return st.one_of(flip, overwrite, zero) if size_kept else st.one_of(flip, overwrite, zero, cut, longer)


def _with(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at + len(piece) :]


def read_all(saes: store.SaeStore) -> dict[int, torch.Tensor]:
    read = {}
    for layer in saes.layers:
        read[layer] = saes.sae(layer).W_dec_FD
        assert torch.equal(saes.directions(layer, range(10)), read[layer])
        saes.encoder_rows(layer, range(10)), saes.b_dec(layer), saes.decoder_norms(layer)
    return read


def read_everything(saes: store.SaeStore) -> list[torch.Tensor]:
    """In an order in which every check is reached: a refusal of one reading must not hide the others."""
    readings = []
    for layer in saes.layers:
        readings += [
            *(saes.directions(layer, [feature]) for feature in range(10)),
            *(part for feature in range(10) for part in saes.encoder_rows(layer, [feature])),
            saes.encoder(layer)[0],
            *saes.sae(layer).tensors().values(),
            saes.b_dec(layer),
            saes.decoder_norms(layer),
        ]
    return readings


def parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["weights", "manifest"])
@settings(max_examples=60, deadline=None)
@given(damage=damages())
def test_verifying_finds_every_damage_and_builds_again(which, damage, source, exact, files):
    path, told = files[which], []
    before = path.read_bytes()
    path.write_bytes(damage(before))
    after = path.read_bytes()
    # Blanks between the words of the manifest say nothing.
    changed = after != before if which == 0 else parsed(after) != parsed(before)
    with store.open_store(source, verify=True, tell=told.append) as saes:
        for layer, tensor in read_all(saes).items():
            assert torch.equal(tensor, exact[layer])
    assert bool(told) == changed
    assert all(sentence.endswith("again.") for sentence in told)
    with store.open_store(source, verify=True, tell=told.append):
        pass
    if which == 0:
        assert path.read_bytes() == before


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(damage=damages(size_kept=True))
def test_without_verifying_no_damaged_number_is_handed_out(damage, source, everything, files):
    """Behind the header, where opening does not look."""
    path, data = files[0], files[0].read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:header] + damage(data[header:]))
    damaged = path.read_bytes() != data
    refused = None
    with store.open_store(source) as saes:
        try:
            read = read_everything(saes)
        except UserError as error:
            refused = error
    assert (refused is not None) == damaged, "a damage is found wherever it is"
    if refused is not None:
        assert refused.reason == "SAE_STORE_DAMAGED"
        assert "run the command again" in refused.remedy
        with store.open_store(source) as saes:
            read = read_everything(saes)
    assert len(read) == len(everything)
    assert all(torch.equal(got, wanted) for got, wanted in zip(read, everything, strict=True))


def test_a_missing_file_is_converted_again(source, exact, files):
    files[0].unlink()
    told: list[str] = []
    with store.open_store(source, tell=told.append) as saes:
        assert torch.equal(saes.directions(3, range(10)), exact[3])
    assert "cannot be opened (No such file or directory); it is converted again." in told[0]


def test_the_manifest_of_another_group_is_not_believed(tmp_path, put, source, exact, files):
    other = put(tmp_path, [0, 3], d_in=6, d_sae=10, seed=5)
    with store.open_store(other) as saes:
        foreign = (Path(saes.folder) / NAME).read_text()
    files[1].write_text(foreign)
    told: list[str] = []
    with store.open_store(source, tell=told.append) as saes:
        assert torch.equal(saes.directions(3, range(10)), exact[3])
    assert "belongs to another group" in told[0]


def rewritten(path: Path, change) -> None:
    document = json.loads(path.read_text())
    document.pop("digest")
    change(document)
    path.write_text(json.dumps(document | {"digest": key_of(document)}))


def test_a_newer_manifest_is_left_alone(source, files):
    before = files[1].read_text()
    rewritten(files[1], lambda document: document.update(format_version=2))
    try:
        with pytest.raises(UserError, match="format version 2, newer than 1") as caught:
            store.open_store(source)
        assert caught.value.reason == "SAE_FORMAT_TOO_NEW"
    finally:
        files[1].write_text(before)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("layers"),
        lambda document: document["layers"]["3"].pop("k"),
        lambda document: document["layers"].update({"x": {}}),
        lambda document: document["identity"].update(dtype="int4"),
        lambda document: document.update(layers=[]),
        lambda document: document.update(identity=None),
    ],
)
def test_a_manifest_of_our_own_with_other_keys_is_built_again(source, exact, files, change):
    rewritten(files[1], change)
    told: list[str] = []
    with store.open_store(source, tell=told.append) as saes:
        assert torch.equal(saes.directions(3, range(10)), exact[3])
    assert told


@pytest.mark.parametrize("which", [0, 1], ids=["weights", "manifest"])
def test_a_folder_of_the_store_without_its_source_is_refused_and_kept(source, files, which):
    with tempfile.TemporaryDirectory() as copy:
        folder = Path(copy) / "group"
        shutil.copytree(files[0].parent, folder)
        path = folder / files[which].name
        data = bytearray(path.read_bytes())
        data[-10] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            store.open_store(folder, verify=True)
        assert caught.value.reason == "SAE_STORE_DAMAGED"
        assert "it was converted from" in caught.value.remedy
        if which == 0:
            with store.open_store(folder) as saes, pytest.raises(UserError, match="they were converted from"):
                read_all(saes)
        assert path.read_bytes() == bytes(data)
