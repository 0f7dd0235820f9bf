"""A run that goes on is admitted by what it began with, not by what its names mean by then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from qscope.errors import UserError
from qscope.recipes.admission import admit
from qscope.recipes.shared import as_begun, pin_feature_files, pinned, place_of_saes
from qscope.runs import Journal, RunContext, RunFolder
from qscope.v1.experiment_pb2 import Experiment

READ = {"model_batch_tokens": 512, "context": 16}
TASKS: dict[str, dict[str, Any]] = {
    "synthesize": {
        "seed_data": {"source": "embedded-heldout", "limit": 2},
        "reference": {"source": "embedded-heldout", "limit": 4},
        "writer": "SYNTHESIS_WRITER_NONE",
    },
    "classify": {
        "data": [{"source": "embedded-heldout", "label": "language", "positive": ["de"], "use": "SPLIT_USE_SPLIT"}],
        "evaluation_share": 0.3,
        "calibration_share": 0.2,
        "shard_texts": 64,
    },
    "bench_redundancy": {
        "benchmarks": [{"name": "b", "source": "embedded-heldout", "limit": 3}],
        "rules": [{"name": "active"}],
        "shard_items": 8,
    },
}


@pytest.fixture
def begun(tmp_path, sae_folder) -> Callable[[str], RunContext]:
    """``begun(task)``: a run whose ``sae: latest`` was looked up, and beside it a newer run whose SAEs are broken."""
    runs = tmp_path / "runs"

    def make(task: str) -> RunContext:
        trained = RunFolder.create(runs, Experiment(name="trained"), "trained")
        shutil.copytree(sae_folder, trained.artifacts / "sae")
        fields = {**READ, "layers": [1], "sae": "latest", **TASKS[task]}
        given = {"name": "x", "model": "embedded", "compute": {"device": "DEVICE_CPU"}, task: fields}
        context = context_of(RunFolder.create(runs, json_format.ParseDict(given, Experiment()), "x"))
        admit(context)
        at = f"{task}.sae"
        pinned(context, at, lambda: place_of_saes("latest", runs, at=at))
        newer = RunFolder.create(runs, Experiment(name="newer"), "newer").artifacts / "sae"
        newer.mkdir(parents=True)
        (newer / "readme.txt").write_text("half a copy")
        return context

    return make


def context_of(folder: RunFolder) -> RunContext:
    return RunContext(folder, Journal(folder.events))


@pytest.mark.parametrize("task", TASKS)
def test_a_newer_latest_does_not_keep_a_run_from_going_on(begun, task) -> None:
    first = begun(task)
    again = context_of(RunFolder(first.run.path))
    facts = {fact.name: fact.value for fact in admit(again).facts}
    assert facts["SAE"].startswith("about 256 features, k 8")
    # What the experiment says stays as it was written.
    assert getattr(again.experiment, task).sae == "latest"
    # A new run would mean the broken ones, and say so.
    with pytest.raises(UserError):
        admit(context_of(RunFolder.create(again.folder.parent, again.experiment, "other")))


def test_what_a_run_began_with_may_be_gone(begun) -> None:
    context = begun("synthesize")
    place = pinned(context, "synthesize.sae", lambda: pytest.fail("looked up before"))
    shutil.rmtree(place)
    for go_on in (lambda: admit(context), lambda: pinned(context, "synthesize.sae", lambda: Path("elsewhere"))):
        with pytest.raises(UserError) as caught:
            go_on()
        assert (caught.value.reason, caught.value.field) == ("PINNED_GONE", "synthesize.sae")


def test_names_inside_lists_and_names_of_repositories(tmp_path) -> None:
    edits = [{"layers": [1]}, {"feature_file": "latest"}]
    given = {"name": "s", "model": "embedded", "steer": {"sae": "latest", "steering": {"edits": edits}}}
    folder = RunFolder.create(tmp_path / "runs", json_format.ParseDict(given, Experiment()), "s")
    context = context_of(folder)
    assert as_begun(context) == context.experiment
    found = RunFolder.create(tmp_path / "runs", Experiment(name="found"), "found")
    (found.artifacts / "features.json").parent.mkdir(parents=True, exist_ok=True)
    (found.artifacts / "features.json").write_text("{}")
    spec = json_format.ParseDict({"edits": edits}, type(context.experiment.steer.steering)())
    pin_feature_files(context, spec, at="steer.steering")
    pinned(context, "steer.sae", lambda: "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50")
    meant = as_begun(context).steer
    assert meant.sae == "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
    assert [edit.feature_file for edit in meant.steering.edits] == ["", str(found.path.resolve())]


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("eval_sae", {"text": {"source": "embedded-heldout", "context": 16}, "tokens": 64, "model_batch_tokens": 64}),
        ("diagnose_features", {"cases": [{"prompt": "The", "response": " end"}], "top": 1, "baseline_tokens": 64}),
    ],
)
def test_measures_of_latest_go_on_with_the_saes_they_began_with(tmp_path, sae_folder, run, task, fields) -> None:
    runs = tmp_path / "runs"
    trained = RunFolder.create(runs, Experiment(name="trained"), "trained")
    shutil.copytree(sae_folder, trained.artifacts / "sae")
    given = {"name": "x", "model": "embedded", "compute": {"device": "DEVICE_CPU"}, task: {"sae": "latest", **fields}}
    asked = json_format.ParseDict(given, Experiment())
    first = run(asked)
    newer = RunFolder.create(runs, Experiment(name="newer"), "newer").artifacts / "sae"
    newer.mkdir(parents=True)
    (newer / "readme.txt").write_text("half a copy")
    run(asked, first)
