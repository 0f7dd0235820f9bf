"""The recipe lives in scripts/, outside the package: its modules are imported by name for one test at a time."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[3] / "scripts" / "embedded-model"


@pytest.fixture
def recipe(monkeypatch):
    """`recipe("exchanges")` imports scripts/embedded-model/exchanges.py."""
    monkeypatch.syspath_prepend(str(RECIPE))
    before = set(sys.modules)
    yield importlib.import_module
    # Their plain names (train, presets, ...) must not meet anybody else's.
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(RECIPE)):
            del sys.modules[name]
