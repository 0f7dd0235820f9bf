"""The release through the hub's cache: layers one by one, commits, and a cache that was emptied."""

from __future__ import annotations

import shutil

import huggingface_hub.constants
import pytest
import torch

from qscope.errors import UserError
from qscope.sae import formats, store
from qscope.sae.identity import check_pair

REPOSITORY = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache, and a store of its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("QSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"


def put_in_cache(folder, layer: int, commit: str = COMMIT, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "W_enc": torch.randn(32768, 2, generator=generator),
            "W_dec": torch.randn(2, 32768, generator=generator),
            "b_enc": torch.zeros(32768),
            "b_dec": torch.zeros(2),
        },
        folder / "snapshots" / commit / f"layer{layer}.sae.pt",
    )


def test_cached_layers_are_converted_one_by_one_into_one_group(hub):
    put_in_cache(hub, 4)
    with store.open_store(REPOSITORY, [4], offline=True) as saes:
        folder = saes.folder
    put_in_cache(hub, 6)
    with store.open_store(REPOSITORY, [6, 4], offline=True) as saes:
        assert (saes.layers, saes.folder) == ([4, 6], folder)
        expected = formats.load(REPOSITORY, [6], offline=True)[6]
        assert torch.equal(saes.directions(6, [7, 32767]), expected.W_dec_FD[[7, 32767]].bfloat16().float())
        assert saes.facts.name == REPOSITORY
        assert saes.facts.saes[4].model == {
            "name": "Qwen/Qwen3-1.7B-Base",
            "n_layers": 28,
            "d_model": 2048,
            "tuning": "base",
        }
    with store.open_store(hub / "snapshots" / COMMIT, [4]) as saes:
        assert saes.folder == folder, "the cache named by its path is the same repository"


def test_a_converted_layer_needs_the_download_no_more(hub):
    put_in_cache(hub, 4)
    store.open_store(REPOSITORY, [4], offline=True).close()
    shutil.rmtree(hub)
    with store.open_store(REPOSITORY, [4], offline=True) as saes:
        assert saes.directions(4, [0]).shape == (1, 2)
    assert store.plan(REPOSITORY, [4]).pending == ()
    with pytest.raises(UserError, match="not in the local cache"):
        store.open_store(REPOSITORY, [4, 5], offline=True)


def test_a_second_download_is_no_change_and_another_commit_is(hub):
    put_in_cache(hub, 4)
    store.open_store(REPOSITORY, [4], offline=True).close()
    put_in_cache(hub, 4)
    assert store.plan(REPOSITORY, [4]).pending == ()
    put_in_cache(hub, 4, commit=COMMIT[::-1], seed=1)
    assert store.plan(REPOSITORY, [4]).pending == (4,)
    with store.open_store(REPOSITORY, [4], offline=True) as saes:
        expected = formats.load(REPOSITORY, [4], offline=True)[4]
        assert torch.equal(saes.directions(4, [7]), expected.W_dec_FD[[7]].bfloat16().float())


def test_the_plan_says_what_would_be_downloaded(hub):
    planned = store.plan(REPOSITORY)
    layer = 4 * (2 * 2048 * 32768 + 2048 + 32768)
    assert planned.download_bytes == planned.source_bytes == 28 * layer
    assert len(planned.pending) == 28
    assert not hub.exists()
    assert dict(planned.facts())["files"] == "15 GB, 15 GB of it to download"
    assert "a guess" in planned.time_basis


def test_facts_of_what_was_never_downloaded(hub, tiny_model):
    facts = store.read_facts(REPOSITORY, [27])
    assert (facts.saes[27].d_in, facts.saes[27].d_sae, facts.saes[27].k) == (2048, 32768, 50)
    with pytest.raises(UserError, match="2048 dimensions, and the model has 32"):
        check_pair(facts, tiny_model("qwen3").facts)
    with pytest.raises(UserError, match="no SAE of layer 28"):
        store.read_facts(REPOSITORY, [28])
