"""Which folders hold one SAE each, and of which layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from qscope.sae.formats.files import refusal


def layer_folders(path: Path, files: Sequence[str]) -> list[Path]:
    """`path` when it holds all of `files`, else those of its sub-folders that do, in order of name."""

    def complete(folder: Path) -> bool:
        return all((folder / name).is_file() for name in files)

    if path.is_file() and path.name in files:
        path = path.parent
    if not path.is_dir():
        return []
    if complete(path):
        return [path]
    return sorted(child for child in path.iterdir() if not child.name.startswith(".") and complete(child))


def by_layer(folders: Iterable[Path], layer_of: Callable[[Path], int]) -> dict[int, Path]:
    """Folders by layer; two SAEs of one layer are refused, as either would be a guess."""
    places: dict[int, Path] = {}
    for folder in folders:
        layer = layer_of(folder)
        if layer in places:
            what = f"holds a second SAE of layer {layer}, besides {places[layer].name}"
            raise refusal(folder, what, "Name the folder of the one you mean.", "SAE_AMBIGUOUS")
        places[layer] = folder
    return places
