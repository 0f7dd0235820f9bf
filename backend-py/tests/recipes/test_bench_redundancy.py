"""``qscope bench-redundancy``: its tables, its warnings, and its plan."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from google.protobuf import json_format

from qscope.errors import UserError
from qscope.evaluation.advice import Ending
from qscope.evaluation.suite import measure
from qscope.features.footprints import Footprints
from qscope.recipes import plan as module
from qscope.recipes.bench_redundancy import Items, warnings_of
from qscope.recipes.plan import plan
from qscope.runs import violations
from qscope.sae import formats
from qscope.v1.experiment_pb2 import Experiment

END = Ending("?", 1.0)


def test_items_without_features_are_told_apart_by_their_cause():
    measured = measure("b", Footprints.of([[1], [2], [], [], [], []]), subsets=[], draws=10, seed=0)
    assert warnings_of(measured, Items(0, 1, 2, END)) == [
        "b: 1 of 6 items have no token.",
        "b: at 2 of 6 items the model is infinite or undefined.",
        "b: 1 of 6 items activate no feature.",
    ]
    assert warnings_of(measured, Items(0, 2, 2, END)) == warnings_of(measured, Items(3, 2, 2, END))
    assert len(warnings_of(measured, Items(0, 2, 2, END))) == 2


def test_a_closed_form_far_from_random_orders_is_a_warning():
    measured = measure("b", Footprints.of([[1], [2]]), subsets=[], draws=10, seed=0)
    assert warnings_of(replace(measured, drawn_gap=4.9), Items(0, 0, 0, END)) == []
    assert warnings_of(replace(measured, drawn_gap=math.nan), Items(0, 0, 0, END)) == []
    (warning,) = warnings_of(replace(measured, drawn_gap=math.inf), Items(0, 0, 0, END))
    assert "standard errors" in warning


@pytest.fixture
def experiment(tmp_path):
    rows = [{"q": "x" * 70, "kind": "a"}, {"q": "y" * 35, "kind": "b"}, {"no": 1}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes) -> Experiment:
        task = {
            "sae": str(tmp_path / "sae"),
            "benchmarks": [{"name": "b", "source": str(tmp_path / "b.jsonl"), "prompt": "{q}"}],
            "rules": [{"name": "active"}, {"name": "top10", "top": 10}],
            "context": 16,
            "bad_rows": "BAD_ROWS_SKIP",
            "model_batch_tokens": 64,
            "shard_items": 8,
            "near_duplicate_from": 0.9,
            "near_duplicate_rows": 100,
        }
        whole = {"name": "x", "model": "embedded", "bench_redundancy": {**task, **changes}}
        return json_format.ParseDict({**whole, "compute": {"device": "DEVICE_CPU", "threads": 1}}, Experiment())

    return make


@pytest.mark.parametrize(("draws", "good"), [(0, True), (1, False), (2, True)])
def test_one_random_order_is_too_few(experiment, draws, good):
    assert (violations(experiment(draws=draws)) == []) is good


def test_a_plan_counts_items_and_names_rows_left_out(experiment, tmp_path, monkeypatch):
    import torch

    from qscope.sae.topk import TopKSae

    sae = TopKSae(torch.zeros(32, 128), torch.zeros(32), torch.zeros(32, 128), torch.zeros(128), k=4, layer=1)
    formats.save({1: sae}, tmp_path / "sae", ["native"], {})
    monkeypatch.setattr(module, "measure_device", lambda device: module.DeviceSpeed(products=1e9, bytes=1e9))
    given = experiment(layers=[1])
    planned = plan(given, str(tmp_path))
    facts = {fact.name: fact.value for fact in planned.facts}
    assert facts["b"] == "2 items, prompt {q}, 1 rows left out"
    # 70 and 35 characters: 21 tokens, of which the context keeps 16, and 11.
    assert facts["tokens"].startswith("about 27 ")
    held = {item.name.split(" (")[0]: item.bytes for item in planned.memory}
    # Two items, one layer, k of 4 and two rules.
    assert held["footprints of all items, every layer and rule"] == 2 * 4 * 2 * 4
    assert held["measuring, and the search for near-duplicates"] > 48 << 20
    assert planned.seconds > 0
    quiet = plan(experiment(layers=[1], near_duplicate_from=0), str(tmp_path))
    assert {item.name: item.bytes for item in quiet.memory}["measuring"] == 2 * 4 * 25
    benchmark = {"name": "b", "source": str(tmp_path / "b.jsonl"), "prompt": "{q}", "answer": "{kind}"}
    answered = plan(experiment(layers=[1], benchmarks=[benchmark], utility={"share": 0.9}), str(tmp_path))
    # An answer of one character counts for 1.3 tokens: 16 of the first, cut, and 11 + 1.3 of the second.
    assert {fact.name: fact.value for fact in answered.facts}["answers"].startswith("about 28 ")
    assert answered.seconds > planned.seconds
    neurons = plan(experiment(layers=[1], benchmarks=[benchmark], utility={"share": 0.9, "neurons": 1}), str(tmp_path))
    assert {item.name for item in neurons.memory} - {item.name for item in answered.memory} == {
        "neurons at the answers of one pass"
    }
    for changes, reason, field in (
        ({"layers": [9]}, "LAYER_OUT_OF_RANGE", "bench_redundancy.layers[0]"),
        ({"bad_rows": "BAD_ROWS_REFUSE"}, "ROW_BAD", "bench_redundancy.benchmarks[0].source"),
    ):
        with pytest.raises(UserError) as caught:
            plan(experiment(**{"layers": [1], **changes}), str(tmp_path))
        assert (caught.value.reason, caught.value.field) == (reason, field)
