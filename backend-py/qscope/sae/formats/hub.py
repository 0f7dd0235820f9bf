"""Files of the Qwen-Scope release from the Hugging Face hub, through its local cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import httpx
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from qscope.errors import UserError
from qscope.sae.formats.releases import find_release


def fetch(repository: str, layers: Iterable[int] | None, *, offline: bool = False) -> dict[int, Path]:
    """Files by layer, downloaded unless the cache has them.

    Args:
        repository: one of the 14 repositories of the release.
        layers: decoder blocks from 0; None means every block.
        offline: use the cache only.

    Raises:
        UserError: unknown repository, a layer it does not have, or a file that neither hub nor cache gives.
    """
    release = find_release(repository)
    wanted = list(range(release.layers)) if layers is None else sorted(set(layers))
    missing = [layer for layer in wanted if not 0 <= layer < release.layers]
    if missing:
        raise UserError(
            f"{repository} has no layer {missing[0]}.",
            remedy=f"Its layers are 0 to {release.layers - 1}.",
            reason="SAE_LAYER_MISSING",
        )
    return {layer: _fetch_file(release.repository, f"layer{layer}.sae.pt", offline) for layer in wanted}


def cached(repository: str) -> dict[int, Path]:
    """Files by layer that the local cache has already; the hub is not asked.

    Raises:
        UserError: the repository is not of the release.
    """
    release = find_release(repository)
    paths = {
        layer: try_to_load_from_cache(release.repository, f"layer{layer}.sae.pt") for layer in range(release.layers)
    }
    return {layer: Path(path) for layer, path in paths.items() if isinstance(path, str)}


def _fetch_file(repository: str, name: str, offline: bool) -> Path:
    try:
        return Path(hf_hub_download(repository, name, local_files_only=offline))
    except RepositoryNotFoundError:
        what, remedy = "the hub does not give this repository", "Log in with `hf auth login` if it asks for it."
    except LocalEntryNotFoundError:
        what = "the file is not in the local cache" + ("" if offline else " and the hub cannot be reached")
        remedy = f"Fetch it where there is a network (`hf download {repository} {name}`), or name a local folder."
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        what = f"the download failed ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})"
        remedy = "Try again, or name a local folder."
    raise UserError(f"{repository}/{name}: {what}.", remedy=remedy, reason="SAE_DOWNLOAD_FAILED")
