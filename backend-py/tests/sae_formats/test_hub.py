"""Loading by repository id, through the real client and a real cache folder."""

from __future__ import annotations

import huggingface_hub.constants
import pytest
import torch

from qscope.errors import UserError
from qscope.sae import formats

REPOSITORY = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def put(cache, layer: int) -> None:
    folder = cache / "models--Qwen--SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "W_enc": torch.randn(32768, 2),
            "W_dec": torch.randn(2, 32768),
            "b_enc": torch.zeros(32768),
            "b_dec": torch.zeros(2),
        },
        folder / "snapshots" / commit / f"layer{layer}.sae.pt",
    )


def test_cached_layers_load_without_the_hub(cache):
    put(cache, 4)
    put(cache, 6)
    saes = formats.load(REPOSITORY, layers=[6, 4], offline=True)
    assert [(layer, sae.k, sae.d_sae) for layer, sae in saes.items()] == [(4, 50, 32768), (6, 50, 32768)]


def test_the_name_alone_is_enough(cache):
    put(cache, 0)
    assert list(formats.load(REPOSITORY.removeprefix("Qwen/"), layers=[0], offline=True)) == [0]


def test_a_layer_outside_the_cache_is_explained(cache):
    put(cache, 4)
    with pytest.raises(UserError, match=r"layer5\.sae\.pt: the file is not in the local cache") as caught:
        formats.load(REPOSITORY, layers=[5], offline=True)
    assert f"hf download {REPOSITORY} layer5.sae.pt" in caught.value.remedy


def test_a_layer_the_backbone_lacks_is_refused_before_any_download(cache):
    with pytest.raises(UserError, match=r"has no layer 28.*0 to 27"):
        formats.load(REPOSITORY, layers=[28])


def test_an_unreachable_hub_is_explained(cache, monkeypatch):
    """A closed port of this machine stands for the network being down; the client and its errors are the real ones."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(UserError, match=r"cannot be reached|download failed") as caught:
        formats.load(REPOSITORY, layers=[0])
    assert caught.value.reason == "SAE_DOWNLOAD_FAILED"


def test_a_local_folder_of_that_name_comes_first(cache, tmp_path, random_sae, recipe):
    formats.save({0: random_sae()}, tmp_path / REPOSITORY, ["native"], recipe)
    assert formats.load(REPOSITORY)[0].d_sae == 24
