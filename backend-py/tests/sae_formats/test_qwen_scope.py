"""The file contract of the Qwen-Scope release, and the only pickle this project opens."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.sae import formats
from qscope.sae.formats import qwen_scope

KEYS = ("W_enc", "W_dec", "b_enc", "b_dec")


@pytest.fixture
def release_folder(tmp_path):
    """A folder whose name gives k = 2 and 1,024 features."""
    folder = tmp_path / "SAE-Res-Qwen3-Tiny-W1K-L0_2"
    folder.mkdir()
    return folder


def tensors(d_in: int = 4, d_sae: int = 1024) -> dict[str, torch.Tensor]:
    return {
        "W_enc": torch.randn(d_sae, d_in),
        "W_dec": torch.randn(d_in, d_sae),
        "b_enc": torch.randn(d_sae),
        "b_dec": torch.randn(d_in),
    }


def refused(path: Path, words: str, reason: str = "SAE_FILE_DAMAGED") -> None:
    with pytest.raises(UserError, match=words) as caught:
        formats.load(path)
    assert caught.value.reason == reason
    assert caught.value.remedy
    assert str(caught.value).count("\n") == 0


def test_the_file_is_exactly_the_contract(tmp_path, random_sae, recipe):
    sae = random_sae(d_in=8, d_sae=24, layer=7)
    formats.save({7: sae}, tmp_path, ["qwen_scope"], recipe)
    assert sorted(item.name for item in (tmp_path / "qwen_scope").iterdir()) == ["layer7.sae.json", "layer7.sae.pt"]
    content = torch.load(tmp_path / "qwen_scope" / "layer7.sae.pt", weights_only=True)
    assert type(content) is dict
    assert tuple(content) == KEYS
    assert {name: tuple(tensor.shape) for name, tensor in content.items()} == {
        "W_enc": (24, 8),
        "W_dec": (8, 24),
        "b_enc": (24,),
        "b_dec": (8,),
    }
    for tensor in content.values():
        assert type(tensor) is torch.Tensor
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert tensor.storage_offset() == 0
        assert not tensor.requires_grad
    assert torch.equal(content["W_dec"], sae.W_dec_FD.t())


def test_the_release_formula_gives_our_codes(release_folder):
    """x W_encᵀ + b_enc, top-k, ReLU, z W_decᵀ + b_dec, on the file's own orientation."""
    raw = tensors(d_in=16)
    torch.save(raw, release_folder / "layer0.sae.pt")
    sae = formats.load(release_folder)[0]
    x_BD = torch.randn(50, 16)
    scores_BF = x_BD @ raw["W_enc"].T + raw["b_enc"]
    kept = scores_BF.topk(2)
    z_BF = torch.zeros_like(scores_BF).scatter(1, kept.indices, kept.values.relu())
    values_BK, indices_BK = sae.encode(x_BD)
    ours_BF = torch.zeros_like(scores_BF).scatter(1, indices_BK, values_BK)
    torch.testing.assert_close(ours_BF, z_BF)
    torch.testing.assert_close(sae.decode(values_BK, indices_BK), z_BF @ raw["W_dec"].T + raw["b_dec"])


def test_k_comes_from_the_name_of_the_folder(release_folder):
    torch.save(tensors(), release_folder / "layer3.sae.pt")
    assert formats.load(release_folder)[3].k == 2
    assert formats.load(release_folder / "layer3.sae.pt")[3].k == 2


def test_k_comes_from_the_cache_of_the_hub(tmp_path):
    folder = tmp_path / "models--Qwen--SAE-Res-Qwen3-1.7B-Base-W1K-L0_50" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    torch.save(tensors(), folder / "layer0.sae.pt")
    assert formats.load(folder)[0].k == 50


def test_without_name_and_sidecar_k_is_not_guessed(tmp_path):
    torch.save(tensors(), tmp_path / "layer0.sae.pt")
    refused(tmp_path, "does not say its k", "SAE_K_UNKNOWN")


def test_the_sidecar_wins_over_the_name(release_folder, random_sae, recipe):
    formats.save({0: random_sae(k=5)}, release_folder, ["qwen_scope"], recipe)
    assert formats.load(release_folder)[0].k == 5


def test_width_must_be_what_the_name_says(release_folder):
    torch.save(tensors(d_sae=512), release_folder / "layer0.sae.pt")
    refused(release_folder, "d_sae 512, and 1024 was promised")


def test_k_cannot_exceed_the_width(tmp_path):
    folder = tmp_path / "SAE-Res-Qwen3-Tiny-W1K-L0_2000"
    folder.mkdir()
    torch.save(tensors(), folder / "layer0.sae.pt")
    refused(folder, "k is 2000")


def test_parameters_and_ordered_dicts_are_fine(release_folder):
    from collections import OrderedDict

    raw = OrderedDict((name, torch.nn.Parameter(tensor)) for name, tensor in tensors().items())
    torch.save(raw, release_folder / "layer0.sae.pt")
    assert torch.equal(formats.load(release_folder)[0].W_enc_FD, raw["W_enc"].detach())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.pop("b_dec"), "must hold"),
        (lambda raw: raw.update(extra=torch.zeros(1)), "must hold"),
        (lambda raw: raw.update(W_dec=raw["W_dec"].T.contiguous()), r"W_dec has shape \[1024, 4\]"),
        (lambda raw: raw.update(W_dec=raw["W_dec"].T.contiguous().T), "not stored contiguously"),
        (lambda raw: raw.update(b_enc=torch.zeros(7)), r"b_enc has shape \[7\] instead of \[1024\]"),
        (lambda raw: raw.update(W_enc=torch.zeros(3)), "no matrix W_enc"),
        (lambda raw: raw.update(W_enc="text"), "no matrix W_enc"),
        (lambda raw: raw.update(b_dec=[1.0]), "b_dec|pickle"),
        (lambda raw: raw.update(b_enc=raw["b_enc"].double()), "b_enc is float64 instead of float32"),
        (lambda raw: raw.update(W_enc=raw["W_enc"].bfloat16()), "W_enc is bfloat16"),
        (lambda raw: raw["W_dec"].view(-1)[5].fill_(float("nan")), "W_dec holds values that are not finite"),
        (lambda raw: raw["b_dec"][0].fill_(float("-inf")), "b_dec holds values that are not finite"),
    ],
)
def test_wrong_contents_are_refused(release_folder, change, words):
    raw = tensors()
    change(raw)
    torch.save(raw, release_folder / "layer0.sae.pt")
    with pytest.raises(UserError, match=words):
        formats.load(release_folder)


@pytest.mark.parametrize("content", [torch.zeros(3), 7, None, "text"])
def test_other_objects_are_refused(release_folder, content):
    torch.save(content, release_folder / "layer0.sae.pt")
    refused(release_folder, "dict of tensors")


class Runs:
    """Unpickling this calls ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(trace: Path) -> dict[str, object]:
    return {
        "os.system": Runs(os.system, f"touch {trace}"),
        "eval": Runs(eval, f"open({str(trace)!r}, 'w')"),
        "subprocess": Runs(subprocess.check_call, ["touch", str(trace)]),
        "open": Runs(open, str(trace), "w"),
        "torch.save": Runs(torch.save, 1, str(trace)),
        "huge": Runs(bytearray, 1 << 50),
    }


@pytest.mark.parametrize("name", attacks(Path("trace")))
@pytest.mark.parametrize(
    "container", ["torch", "beside the tensors", "bare pickle", "torch, protocol 4", "legacy torch"]
)
def test_a_hostile_pickle_is_refused_and_runs_nothing(release_folder, tmp_path, name, container):
    trace = tmp_path / "trace"
    attack = attacks(trace)[name]
    place = release_folder / "layer0.sae.pt"
    if container == "torch":
        torch.save(attack, place)
    elif container == "beside the tensors":
        torch.save({**tensors(), "W_enc": attack}, place)
    elif container == "bare pickle":
        place.write_bytes(pickle.dumps(attack))
    elif container == "torch, protocol 4":
        torch.save(attack, place, pickle_protocol=4)
    else:
        torch.save(attack, place, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError) as caught:
        formats.load(release_folder)
    assert not trace.exists()
    zipped = container not in ("bare pickle", "legacy torch")
    assert caught.value.reason == ("SAE_FILE_HOSTILE" if zipped else "SAE_FILE_DAMAGED")
    if zipped:
        assert "nothing was run" in caught.value.message


def test_the_hostile_pickle_of_these_tests_does_work(tmp_path):
    """The attack is real: plain pickle runs it."""
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(attacks(trace)["os.system"]))
    assert trace.exists()


def rewritten(place: Path, *, compression: int = zipfile.ZIP_STORED, edit=lambda name, content: content) -> None:
    """Writes the archive again, record by record."""
    with zipfile.ZipFile(place) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(place, "w", compression) as archive:
        for name, content in records:
            archive.writestr(name, edit(name, content))


def test_zip_bombs_are_refused_unopened(release_folder):
    place = release_folder / "layer0.sae.pt"
    torch.save(tensors(), place)
    bomb = bytes(64 << 20)
    rewritten(place, compression=zipfile.ZIP_DEFLATED, edit=lambda name, old: bomb if name.endswith("data/0") else old)
    assert place.stat().st_size < 1 << 20
    refused(place, "compressed", "SAE_FILE_HOSTILE")


def test_overlapping_records_are_refused(release_folder):
    """The second kind of bomb: every record points to the same bytes of the file."""
    place = release_folder / "layer0.sae.pt"
    torch.save(tensors(), place)
    with zipfile.ZipFile(place, "a") as archive:
        big = max(archive.infolist(), key=lambda record: record.file_size)
        for copy in range(20):
            twin = zipfile.ZipInfo(f"archive/data/{100 + copy}")
            twin.header_offset, twin.file_size, twin.compress_size, twin.CRC = (
                big.header_offset,
                big.file_size,
                big.compress_size,
                big.CRC,
            )
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True
    refused(place, "claims more data than it holds", "SAE_FILE_HOSTILE")


def test_a_large_pickle_is_refused(release_folder):
    place = release_folder / "layer0.sae.pt"
    torch.save(tensors(), place)
    rewritten(place, edit=lambda name, old: old + bytes(1 << 17) if name.endswith("data.pkl") else old)
    refused(place, "claims more", "SAE_FILE_HOSTILE")


def test_expanded_tensors_are_refused(release_folder):
    """A terabyte claimed by strides of zero over one value."""
    torch.save({**tensors(), "W_enc": torch.zeros(1).expand(1 << 20, 1 << 20)}, release_folder / "layer0.sae.pt")
    with pytest.raises(UserError, match="contiguously"):
        formats.load(release_folder)


def test_storages_larger_than_their_record_are_refused(release_folder):
    """The pickle claims 2**40 values where the archive holds 4,096."""
    place = release_folder / "layer0.sae.pt"
    torch.save(tensors(), place)
    count = b"M\x00\x10"  # BININT2 4096, the values of W_enc
    huge = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")  # LONG1

    def edit(name, old):
        if not name.endswith("data.pkl"):
            return old
        assert count in old
        return old.replace(count, huge, 1)

    rewritten(place, edit=edit)
    script = (
        "import sys\nfrom qscope.sae import formats\nfrom qscope.errors import UserError\n"
        "try:\n    sae = formats.load(sys.argv[1])[0]\nexcept UserError: print('refused')\n"
        "else: print(sae.W_enc_FD.untyped_storage().nbytes() <= 1 << 20)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(place)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("refused", "True")


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"\x80\x02", bytes(1000), b"version https://git-lfs"]
)
def test_what_is_no_archive_is_refused(release_folder, content):
    (release_folder / "layer0.sae.pt").write_bytes(content)
    refused(release_folder, "archive")


@settings(max_examples=40, deadline=None)
@given(keep=st.floats(0, 0.999))
def test_truncated_files_are_refused(keep):
    with tempfile.TemporaryDirectory() as root:
        place = Path(root) / "SAE-Res-X-W1K-L0_2" / "layer0.sae.pt"
        place.parent.mkdir()
        torch.save(tensors(), place)
        os.truncate(place, int(place.stat().st_size * keep))
        with pytest.raises(UserError):
            formats.load(place)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_bytes_end_in_one_sentence(data):
    """Bytes of the archive's bookkeeping changed at random: an SAE of finite values, or a UserError, nothing else."""
    with tempfile.TemporaryDirectory() as root:
        place = Path(root) / "SAE-Res-X-W1K-L0_2" / "layer0.sae.pt"
        place.parent.mkdir()
        buffer = io.BytesIO()
        torch.save(tensors(d_in=1), buffer)
        content = bytearray(buffer.getvalue())
        # The weights are most of the file; aim at the pickle at the front and the directory at the end.
        window = data.draw(st.sampled_from([(0, 1200), (len(content) - 1000, len(content))]))
        for at in data.draw(
            st.lists(st.integers(*window).filter(lambda at: at < len(content)), min_size=1, max_size=4)
        ):
            content[at] = data.draw(st.integers(0, 255))
        place.write_bytes(content)
        saes, message = {}, ""
        try:
            saes = formats.load(place)
        except UserError as error:
            message = str(error)
        assert "\n" not in message
        assert all(torch.isfinite(tensor).all() for sae in saes.values() for tensor in sae.tensors().values())


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300))
def test_the_pickle_check_takes_any_bytes(content):
    message = ""
    try:
        qwen_scope._check_pickle(Path("layer0.sae.pt"), content)
    except UserError as error:
        message = str(error)
    assert message == "" or "nothing was run" in message


def test_a_damaged_sidecar_is_named(tmp_path, random_sae, recipe):
    formats.save({0: random_sae()}, tmp_path, ["qwen_scope"], recipe)
    sidecar = tmp_path / "qwen_scope" / "layer0.sae.json"
    good = json.loads(sidecar.read_text())
    for text, words in (
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no JSON object"),
        (json.dumps({**good, "format": "other"}), "does not describe"),
        (json.dumps({**good, "k": "3"}), "'k' must be a whole number"),
        (json.dumps({**good, "k": True}), "'k' must be a whole number"),
        (json.dumps({**good, "d_in": 9}), "d_in 8, and 9 was promised"),
    ):
        sidecar.write_text(text)
        refused(tmp_path, words)
    sidecar.write_text(json.dumps({**good, "format_version": 2}))
    refused(tmp_path, "newer than 1", "SAE_FORMAT_TOO_NEW")
