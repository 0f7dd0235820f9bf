"""Names of the Qwen-Scope release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.sae import formats
from qscope.sae.formats import RELEASES, find_release, parse_name

# Written out, not derived: the rule and the table must both give these.
NAMES = {
    "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50": ("Qwen/Qwen3-1.7B-Base", 28, 2048, 32768, 50),
    "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_100": ("Qwen/Qwen3-1.7B-Base", 28, 2048, 32768, 100),
    "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50": ("Qwen/Qwen3-8B-Base", 36, 4096, 65536, 50),
    "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_100": ("Qwen/Qwen3-8B-Base", 36, 4096, 65536, 100),
    "Qwen/SAE-Res-Qwen3.5-2B-Base-W32K-L0_50": ("Qwen/Qwen3.5-2B-Base", 24, 2048, 32768, 50),
    "Qwen/SAE-Res-Qwen3.5-2B-Base-W32K-L0_100": ("Qwen/Qwen3.5-2B-Base", 24, 2048, 32768, 100),
    "Qwen/SAE-Res-Qwen3.5-9B-Base-W64K-L0_50": ("Qwen/Qwen3.5-9B-Base", 32, 4096, 65536, 50),
    "Qwen/SAE-Res-Qwen3.5-9B-Base-W64K-L0_100": ("Qwen/Qwen3.5-9B-Base", 32, 4096, 65536, 100),
    "Qwen/SAE-Res-Qwen3.5-27B-W80K-L0_50": ("Qwen/Qwen3.5-27B", 64, 5120, 81920, 50),
    "Qwen/SAE-Res-Qwen3.5-27B-W80K-L0_100": ("Qwen/Qwen3.5-27B", 64, 5120, 81920, 100),
    "Qwen/SAE-Res-Qwen3-30B-A3B-Base-W32K-L0_50": ("Qwen/Qwen3-30B-A3B-Base", 48, 2048, 32768, 50),
    "Qwen/SAE-Res-Qwen3-30B-A3B-Base-W128K-L0_100": ("Qwen/Qwen3-30B-A3B-Base", 48, 2048, 131072, 100),
    "Qwen/SAE-Res-Qwen3.5-35B-A3B-Base-W32K-L0_50": ("Qwen/Qwen3.5-35B-A3B-Base", 40, 2048, 32768, 50),
    "Qwen/SAE-Res-Qwen3.5-35B-A3B-Base-W128K-L0_100": ("Qwen/Qwen3.5-35B-A3B-Base", 40, 2048, 131072, 100),
}


def test_the_table_is_the_release():
    facts = {
        release.repository: (release.model_id, release.layers, release.d_in, release.d_sae, release.k)
        for release in RELEASES
    }
    assert facts == NAMES
    assert sum(release.layers for release in RELEASES) == 544
    assert {release.model for release in RELEASES if release.instruct} == {"Qwen3.5-27B"}


@pytest.mark.parametrize("repository", NAMES)
def test_names_are_read(repository):
    model, _, _, d_sae, k = NAMES[repository]
    name = parse_name(repository.removeprefix("Qwen/"))
    assert (f"Qwen/{name.model}", name.d_sae, name.k) == (model, d_sae, k)
    assert find_release(repository) is find_release(repository.removeprefix("Qwen/"))


@pytest.mark.parametrize(
    "repository",
    [
        "Qwen/SAE-Res-Qwen3-4B-Base-W32K-L0_50",
        "Qwen/SAE-Res-Qwen3-1.7B-W32K-L0_50",
        "Qwen/SAE-Res-Qwen3-1.7B-Base-W64K-L0_50",
        "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0.50",
        "Qwen/SAE-Res-Qwen3-30B-A3B-Base-W32K-L0_100",
        "other/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50",
        "Qwen/Qwen3-8B",
    ],
)
def test_unknown_repositories_are_refused(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not a repository of the Qwen-Scope release") as caught:
        formats.load(repository)
    assert caught.value.reason == "SAE_REPOSITORY_UNKNOWN"
    assert "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50" in caught.value.remedy


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,20}", fullmatch=True), st.integers(1, 99999), st.integers(1, 99999))
def test_the_rule_reads_what_it_writes(model, width, k):
    name = parse_name(f"SAE-Res-{model}-W{width}K-L0_{k}")
    assert (name.model, name.d_sae, name.k) == (model, width * 1024, k)


@given(st.text(max_size=60))
def test_other_names_are_no_release(text):
    name = parse_name(text)
    assert name is None or text == f"SAE-Res-{name.model}-W{name.d_sae // 1024}K-L0_{name.k}"
