"""A panel that is scored here: three tiny models on two benchmarks, stopped, resumed, changed, refused."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from google.protobuf import json_format
from transformers import AutoModelForCausalLM

from qscope.data.benchmarks import read_benchmarks
from qscope.data.files import find_files
from qscope.data.items import read_benchmark
from qscope.data.records import records
from qscope.errors import UserError
from qscope.evaluation.scoring import ItemScorer
from qscope.models import load_model
from qscope.recipes import panel_run
from qscope.recipes.panel_run import panel_models
from qscope.recipes.plan import plan
from qscope.runs import RunStopped, violations
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.features_pb2 import Rendering
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.redundancy_pb2 import ItemScoring
from tests.conftest import TINY_CONFIGS

WORDS = ["red", "green", "blue", "black", "white", "brown", "grey", "pink"]
PROBABILITY = {"measure": "SCORE_MEASURE_PROBABILITY", "answer": " {a}", "max_tokens": 4}
CHOICE = {"measure": "SCORE_MEASURE_CHOICE", "answer": "{a}", "choices": [" {a}", " {b}"], "max_tokens": 4}


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three random models with a tokenizer of their own."""
    made = []
    for seed in range(3):
        folder = tmp_path_factory.mktemp("panel") / f"step-{seed}"
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            AutoModelForCausalLM.from_config(TINY_CONFIGS["qwen3"]()).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made.append(folder)
    return made


@pytest.fixture
def experiment(tmp_path, sae_folder, folders):
    for name in ("colours", "pairs"):
        rows = [{"q": f"{name} {i}", "a": WORDS[i % 8], "b": WORDS[(i + 3) % 8]} for i in range(20)]
        lines = [json.dumps(row) for row in rows]
        # A row without an answer: what is behind it keeps its number.
        lines.insert(2, json.dumps({"q": "none"}))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")

    def make(**changes) -> Experiment:
        task = {
            "sae": str(sae_folder),
            "benchmarks": [
                {"name": "colours", "source": str(tmp_path / "colours.jsonl"), "prompt": "{q}", "score": PROBABILITY},
                {"name": "pairs", "source": str(tmp_path / "pairs.jsonl"), "prompt": "{q}", "score": CHOICE},
            ],
            "rules": [{"name": "active"}],
            "context": 32,
            "bad_rows": "BAD_ROWS_SKIP",
            "model_batch_tokens": 256,
            "shard_items": 32,
            "near_duplicate_rows": 10,
            "subsets": [0.1],
            "draws": 4,
            "panel": {"models": [{"model": str(one)} for one in folders], "draws": 4, "batch_rows": 8},
        }
        whole = {"name": "x", "model": "embedded", "bench_redundancy": {**task, **changes}}
        options = {"model_options": {"precision": "PRECISION_FLOAT32"}}
        return json_format.ParseDict(
            {**whole, **options, "compute": {"device": "DEVICE_CPU", "threads": 1}}, Experiment()
        )

    return make


def scores_in(folder: Path) -> dict[tuple[str, str], dict[int, float]]:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for file in find_files(str(folder), ""):
        for row in records(file):
            of = found.setdefault((row.values["model"], row.values["benchmark"]), {})
            of[int(row.values["item"])] = float(row.values["score"])
    return found


def test_scores_are_those_of_each_model_in_the_form_that_source_reads(experiment, run, folders, tmp_path):
    assert violations(experiment()) == []
    done = run(experiment())
    found = scores_in(done.artifacts / "scores")
    assert len(found) == 6
    for folder in folders:
        scorer = ItemScorer(load_model(str(folder), ModelOptions()), Rendering(), batch_rows=8)
        for name, fields in (("colours", PROBABILITY), ("pairs", CHOICE)):
            scoring = json_format.ParseDict(fields, ItemScoring())
            items = read_benchmark(name, str(tmp_path / f"{name}.jsonl"), prompt="{q}", scoring=scoring).items
            assert [item.number for item in items] == [0, 1, *range(3, 21)]
            assert found[folder.name, name] == pytest.approx(
                {item.number: score for item, score in zip(items, scorer.scores(items, scoring), strict=True)}
            )
    panel = json.loads((done.artifacts / "panel.json").read_text())
    assert panel["model_names"] == ["step-0", "step-1", "step-2"]
    mean = sum(found["step-1", "colours"].values()) / 20
    assert panel["accuracy"]["colours"][1] == pytest.approx(mean)
    # The folder of scores is a source like any other, and says the same.
    given = experiment()
    del given.bench_redundancy.panel.models[:]
    given.bench_redundancy.panel.source = str(done.artifacts / "scores")
    again = json.loads((run(given).artifacts / "panel.json").read_text())
    assert again == panel


@pytest.mark.slow
def test_a_stopped_run_goes_on_after_the_last_whole_benchmark(experiment, run, monkeypatch):
    calm = run(experiment())
    loaded: list[str] = []
    real = panel_run.load_model
    monkeypatch.setattr(panel_run, "load_model", lambda name, *rest: loaded.append(name) or real(name, *rest))
    stop = lambda: len(loaded) == 2  # noqa: E731
    with pytest.raises(RunStopped):
        run(experiment(), is_stopping=stop)
    (stopped,) = [one for one in calm.path.parent.iterdir() if one != calm.path and (one / "run.json").exists()]
    kept = {path: path.stat().st_mtime_ns for path in sorted((stopped / "artifacts/scores").rglob("*.csv"))}
    assert [path.parent.name for path in kept] == ["step-0", "step-0"]
    # As if it had been killed between the table and its line in the ledger.
    ledger = stopped / "artifacts/scored.jsonl"
    lines = ledger.read_text().splitlines()
    assert len(lines) == 2
    ledger.write_text(lines[0] + "\n")
    (stopped / "artifacts/scores/step-0/pairs.csv").write_text("model,bench")
    loaded.clear()
    monkeypatch.setattr(panel_run, "load_model", lambda name, *rest: loaded.append(name) or real(name, *rest))
    run(experiment(), folder=type(calm)(stopped))
    assert len(loaded) == 3
    assert scores_in(stopped / "artifacts/scores") == scores_in(calm.artifacts / "scores")
    first, second = kept
    assert first.stat().st_mtime_ns == kept[first]
    assert second.stat().st_mtime_ns != kept[second]
    one, other = ((path / "artifacts/panel.json").read_text() for path in (stopped, calm.path))
    assert one == other
    # All is there: nothing is loaded but the experiment's own model.
    loaded.clear()
    run(experiment(), folder=type(calm)(stopped))
    assert loaded == []


@pytest.mark.slow
def test_one_model_is_loaded_at_a_time(experiment, run, monkeypatch):
    alive: list[weakref.ref] = []
    real = panel_run.load_model

    def watched(*arguments):
        gc.collect()
        assert [one for one in alive if one() is not None] == []
        loaded = real(*arguments)
        alive.append(weakref.ref(loaded.model))
        return loaded

    monkeypatch.setattr(panel_run, "load_model", watched)
    run(experiment())
    assert len(alive) == 3


def test_a_model_that_has_changed_since_is_refused(experiment, run, folders, tmp_path, monkeypatch):
    given = experiment()
    place = tmp_path / "moving"
    place.symlink_to(folders[0])
    given.bench_redundancy.panel.models[0].model = str(place)
    given.bench_redundancy.panel.models[0].name = "moving"
    done = run(given)
    ledger = done.artifacts / "scored.jsonl"
    ledger.write_text(ledger.read_text().splitlines()[0] + "\n")
    place.unlink()
    place.symlink_to(folders[1])
    with pytest.raises(UserError) as caught:
        run(given, folder=done)
    assert (caught.value.reason, caught.value.field) == ("MODEL_CHANGED", "bench_redundancy.panel.models[0].model")


def test_a_score_block_of_defaults_is_none(experiment):
    """What the command line sends for a benchmark without one."""
    given = experiment(panel={"source": "", "draws": 4, "batch_rows": 8})
    for benchmark in given.bench_redundancy.benchmarks:
        benchmark.score.Clear()
        benchmark.score.max_tokens = 64
        benchmark.score.until.append("\n")
    assert violations(given) == []
    read = next(read_benchmarks(given.bench_redundancy, "x"))
    assert len(read.items) == 21
    assert read.items[0].right is None


def test_a_plan_admits_the_largest_model_and_refuses_by_place(experiment, tmp_path, folders, monkeypatch):
    planned = plan(experiment(), str(tmp_path), timed=False)
    assert "3 models" in {fact.name: fact.value for fact in planned.facts}["panel"]
    held = {item.name: item.bytes for item in planned.memory}
    name = "a model of the panel with its answers, beyond the above"
    rest = sum(size for other, size in held.items() if other != name)
    # Two times the logits of one pass, as float32, and some weights and keys: the panel's share is not added twice.
    assert 2 * 4 * (1 << 26) < held[name] + rest < 2 * 4 * (1 << 26) + (64 << 20)

    wider = plan(experiment(model_batch_tokens=16384), str(tmp_path), timed=False)
    assert sum(item.bytes for item in wider.memory) == held[name] + rest

    def refused(change) -> tuple[str, str]:
        given = experiment()
        change(given.bench_redundancy)
        with pytest.raises(UserError) as caught:
            plan(given, str(tmp_path), timed=False)
        return caught.value.reason, caught.value.field

    def lost(task):
        task.panel.models[1].model = str(tmp_path / "nothing")

    assert refused(lost)[1] == "bench_redundancy.panel.models[1].model"
    assert refused(lambda task: task.benchmarks[1].score.Clear()) == (
        "SCORING_MISSING",
        "bench_redundancy.benchmarks[1].score",
    )

    def same(task):
        task.panel.models[2].model = str(folders[0])

    assert refused(same) == ("NAME_TWICE", "bench_redundancy.panel.models[2].name")


def test_names_come_from_folder_and_revision(experiment):
    task = experiment().bench_redundancy
    del task.panel.models[:]
    for model, name, revision in (
        ("a/step 1/", "", ""),
        ("org/model", "", "step=10"),
        ("org/model", "mine", "main"),
        ("..", "", ""),
    ):
        task.panel.models.add(model=model, name=name, revision=revision)
    assert [one.name for one in panel_models(task)] == ["step-1", "model-step-10", "mine", "model"]


@pytest.mark.parametrize(
    "change",
    [
        {"panel": {"source": "x.csv", "models": [{"model": "embedded"}], "draws": 4, "batch_rows": 1}},
        {"benchmarks": [{"name": "a", "source": "a", "score": {**CHOICE, "choices": []}}]},
        {"benchmarks": [{"name": "a", "source": "a", "score": {**PROBABILITY, "choices": ["{a}"]}}]},
        {"benchmarks": [{"name": "a", "source": "a", "score": {**PROBABILITY, "answer": ""}}]},
        {"benchmarks": [{"name": "a", "source": "a", "score": {"answer": "{a}", "max_tokens": 4}}]},
    ],
)
def test_settings_that_contradict_each_other_are_refused(experiment, change):
    assert violations(experiment(**change)) != []
