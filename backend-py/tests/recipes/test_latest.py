"""What ``latest`` means where several verbs write the same artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qscope.errors import UserError
from qscope.recipes.feature_parts import language_run
from qscope.recipes.shared import run_or_path


@pytest.fixture
def runs(tmp_path) -> Path:
    """Four runs, one a minute; all but the last wrote features."""
    for minute, (name, task) in enumerate(
        [("a-1", "language_features"), ("b-2", "repetition_features"), ("c-3", "sft"), ("d-4", "language_features")]
    ):
        folder = tmp_path / name
        (folder / "artifacts").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"created": f"2026-01-01T00:0{minute}:00Z"}))
        (folder / "experiment.json").write_text(json.dumps({"name": name, task: {}}))
        if minute < 3:
            (folder / "artifacts" / "features.json").write_text("{}")
    return tmp_path


def test_it_is_the_newest_run_of_the_verb_that_is_meant(runs) -> None:
    assert language_run("latest", runs, at="x") == runs / "a-1"
    loops = run_or_path("latest", runs, "features.json", verb="features repetition")
    assert loops == runs / "b-2"
    assert run_or_path("latest", runs, "features.json") == runs / "c-3", "any verb where none is said"


def test_a_run_that_is_named_may_be_of_any_verb(runs) -> None:
    assert language_run("c-3", runs, at="x") == runs / "c-3"
    assert language_run(str(runs / "b-2"), runs, at="x") == runs / "b-2"


def test_where_there_is_none_the_verb_is_named(runs) -> None:
    (runs / "a-1" / "artifacts" / "features.json").unlink()
    with pytest.raises(UserError, match="no run of `qscope features language`") as caught:
        language_run("latest", runs, at="sft.sae_loss.features")
    assert (caught.value.reason, caught.value.field) == ("RUN_NOT_FOUND", "sft.sae_loss.features")
