"""The Qwen-Scope release: 14 groups of SAEs, one SAE for every layer of seven backbones (arXiv 2605.11887, Table 1).

The files carry no configuration; model, width, k and layer are read from names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from qscope.errors import UserError
from qscope.models.facts import guess_tuning

ORGANISATION = "Qwen"
_NAME = re.compile(r"SAE-Res-(?P<model>[A-Za-z0-9][A-Za-z0-9._-]*)-W(?P<width>[1-9]\d{0,4})K-L0_(?P<k>[1-9]\d{0,4})")


@dataclass(frozen=True)
class ReleaseName:
    """What a repository name says: ``SAE-Res-{model}-W{n}K-L0_{k}``, K = 1024."""

    model: str
    d_sae: int
    k: int


@dataclass(frozen=True)
class Release:
    """One group of the release.

    Attributes:
        model: name of the backbone, without organisation.
        layers: decoder blocks, each with one SAE.
        d_in: hidden size.
        d_sae: features per SAE.
        k: features kept per token.
        instruct: True when the SAEs were trained on the instruction-tuned weights, False for base weights.
    """

    model: str
    layers: int
    d_in: int
    d_sae: int
    k: int
    instruct: bool = False

    @property
    def name(self) -> str:
        """Repository name without organisation."""
        return f"SAE-Res-{self.model}-W{self.d_sae // 1024}K-L0_{self.k}"

    @property
    def repository(self) -> str:
        """Repository id on the Hugging Face hub."""
        return f"{ORGANISATION}/{self.name}"

    @property
    def model_id(self) -> str:
        """Hub id of the backbone the SAEs were trained on."""
        return f"{ORGANISATION}/{self.model}"


RELEASES: tuple[Release, ...] = (
    Release("Qwen3-1.7B-Base", 28, 2048, 32 * 1024, 50),
    Release("Qwen3-1.7B-Base", 28, 2048, 32 * 1024, 100),
    Release("Qwen3-8B-Base", 36, 4096, 64 * 1024, 50),
    Release("Qwen3-8B-Base", 36, 4096, 64 * 1024, 100),
    Release("Qwen3.5-2B-Base", 24, 2048, 32 * 1024, 50),
    Release("Qwen3.5-2B-Base", 24, 2048, 32 * 1024, 100),
    Release("Qwen3.5-9B-Base", 32, 4096, 64 * 1024, 50),
    Release("Qwen3.5-9B-Base", 32, 4096, 64 * 1024, 100),
    Release("Qwen3.5-27B", 64, 5120, 80 * 1024, 50, instruct=True),
    Release("Qwen3.5-27B", 64, 5120, 80 * 1024, 100, instruct=True),
    Release("Qwen3-30B-A3B-Base", 48, 2048, 32 * 1024, 50),
    Release("Qwen3-30B-A3B-Base", 48, 2048, 128 * 1024, 100),
    Release("Qwen3.5-35B-A3B-Base", 40, 2048, 32 * 1024, 50),
    Release("Qwen3.5-35B-A3B-Base", 40, 2048, 128 * 1024, 100),
)
_BY_NAME = {release.name: release for release in RELEASES}


def parse_name(name: str) -> ReleaseName | None:
    """Model, width and k of a name that follows the release's rule, else None."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return ReleaseName(match["model"], int(match["width"]) * 1024, int(match["k"]))


def model_behind(named: ReleaseName) -> dict[str, Any]:
    """What a name says of the model, in the words of ``ModelFacts``: all of it for the release, else the name alone."""
    for release in RELEASES:
        if release.model == named.model:
            return {
                "name": release.model_id,
                "n_layers": release.layers,
                "d_model": release.d_in,
                "tuning": "instruct" if release.instruct else "base",
            }
    return {"name": named.model, "tuning": guess_tuning(named.model, "")}


def find_release(repository: str) -> Release:
    """The group behind a hub id, with or without the organisation.

    Raises:
        UserError: the repository is not one of the 14 groups (SAE_REPOSITORY_UNKNOWN).
    """
    organisation, _, name = repository.rpartition("/")
    release = _BY_NAME.get(name)
    if release is None or organisation not in ("", ORGANISATION):
        known = sorted(_BY_NAME)
        raise UserError(
            f"{repository}: not a repository of the Qwen-Scope release.",
            remedy=f"Name a local folder, or one of {', '.join(f'{ORGANISATION}/{item}' for item in known)}.",
            reason="SAE_REPOSITORY_UNKNOWN",
        )
    return release
