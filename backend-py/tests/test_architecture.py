"""The rooms form floors: a room imports only from floors below, and only its owner knows a layout."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qscope"
FLOORS = [
    {"errors", "processes", "v1"},
    {"embedded", "text"},
    {"runs", "data", "models"},
    {"sae"},
    {"features"},
    {"steering"},
    {"evaluation", "classification", "synthesis", "posttraining"},
    {"recipes"},
    {"execute", "worker"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "v1" not in path.relative_to(PACKAGE).parts)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "qscope" else [module]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("qscope.")}
    return rooms - {"__version__"}


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in MODULES} - {"__init__"} <= set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for other in imported_rooms(path) - {room}:
        assert LEVEL[other] < LEVEL[room], f"{room} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_recipes_hold_no_files_or_sockets_of_their_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if room_of(path) not in {"runs", "worker", "execute"}:
        assert "events.jsonl" not in text, "only runs/ knows the journal"
    if room_of(path) != "sae" or "formats" not in path.parts:
        assert "sae_weights.safetensors" not in text, "only sae/formats knows the layouts"
