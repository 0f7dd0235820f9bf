"""Samples of lm-eval as scores: files as the harness names and fills them (0.4.13)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qscope.data.items import Benchmark, Item
from qscope.errors import UserError
from qscope.evaluation.scores import read_panel

WHEN = "2026-11-22T05-30-44.123456"


def samples(folder, model, task, scores, *, metric="acc", filters=("none",), when=WHEN, **more):
    """One model's answers to a task, filter after filter as the harness writes them."""
    (folder / model).mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "doc_id": number,
            "doc": {"question": "?"},
            "target": "1",
            "resps": [["1"]],
            "filtered_resps": ["1"],
            "filter": kind,
            "metrics": [metric, *more],
            "doc_hash": "0",
            metric: score if kind == filters[0] else 1 - score,
            **more,
        }
        for kind in filters
        for number, score in enumerate(scores)
    ]
    path = folder / model / f"samples_{task}_{when}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Beside the samples lies what they add up to; it is no row of scores.
    (folder / model / f"results_{when}.json").write_text(json.dumps({"results": {task: {"acc,none": 0.5}}}))
    return path


def benchmark(name: str, count: int, task: str = "") -> Benchmark:
    return Benchmark(name, [Item(f"{task} test: item {n}", "x", n) for n in range(count)], "", task=task)


def panel(folder, *benchmarks, metrics=()):
    return read_panel(str(folder), benchmarks, metrics=metrics, at="panel")


def test_samples_find_their_benchmark_by_task_and_their_item_by_doc_id(tmp_path):
    for model, one, other in (("org__m1", [1, 0, 1], [0, 1]), ("org__m2", [0, 0, 1], [1, 1])):
        samples(tmp_path, model, "qs_one", one)
        samples(tmp_path, model, "qs_other", other, metric="exact_match")
        samples(tmp_path, model, "foreign_task", other)
    found = panel(tmp_path, benchmark("sums", 3, "qs_one"), benchmark("qs_other", 1))
    assert found.models == ("org__m1", "org__m2")
    np.testing.assert_array_equal(found.scores["sums"], [[1, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(found.scores["qs_other"], [[0], [1]])
    assert (found.unknown, found.unmatched) == ({"foreign_task": 4}, 2)


def test_of_several_runs_the_latest_counts(tmp_path):
    for model in ("m1", "m2"):
        samples(tmp_path, model, "qs", [0, 0], when="2026-11-22T05-30-44.123456")
        samples(tmp_path, model, "qs", [1, 1], when="2026-11-23T00-00-00.000001")
        samples(tmp_path, model, "qs", [0, 0], when="2025-12-31T23-59-59.999999")
    np.testing.assert_array_equal(panel(tmp_path, benchmark("qs", 2)).scores["qs"], [[1, 1], [1, 1]])


def test_metric_and_filter_are_chosen(tmp_path):
    for model in ("m1", "m2"):
        samples(tmp_path, model, "gen", [1, 0], metric="exact_match", filters=("strict-match", "flexible-extract"))
        samples(tmp_path, model, "choice", [1, 1], acc_norm=0.0)
    both = (benchmark("gen", 2), benchmark("choice", 2))
    found = panel(tmp_path, *both, metrics=["acc_norm", "exact_match,flexible-extract"])
    np.testing.assert_array_equal(found.scores["gen"], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(found.scores["choice"], [[0, 0], [0, 0]])
    np.testing.assert_array_equal(
        panel(tmp_path, *both, metrics=["exact_match,strict-match", "acc"]).scores["gen"], [[1, 0], [1, 0]]
    )


def test_of_the_metrics_asked_for_the_first_that_a_task_has_with_its_filter(tmp_path):
    for model in ("m1", "m2"):
        samples(tmp_path, model, "filtered", [1, 0], filters=("strict", "flexible"))
        samples(tmp_path, model, "plain", [1, 0])
    both = (benchmark("filtered", 2), benchmark("plain", 2))
    found = panel(tmp_path, *both, metrics=["acc,flexible", "acc,none"])
    np.testing.assert_array_equal(found.scores["filtered"], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(found.scores["plain"], [[1, 0], [1, 0]])


def test_a_model_without_the_filter_is_not_left_out_in_silence(tmp_path):
    for model, filters in (("m1", ("a", "b")), ("m2", ("a", "b")), ("m3", ("a",))):
        samples(tmp_path, model, "qs", [1, 0], filters=filters)
    with pytest.raises(UserError, match=r"m3/samples_qs_.*: task qs has no filter 'b'"):
        panel(tmp_path, benchmark("qs", 2), metrics=["acc,b"])


@pytest.mark.parametrize(
    ("more", "metrics", "field", "sentence", "remedy"),
    [
        ({"acc_norm": 1.0}, [], "metrics", "task qs has several metrics", "which is the score: acc, acc_norm"),
        ({}, ["exact_match"], "metrics", "task qs has none of the metrics asked for", "which is the score: acc."),
        ({"filters": ("a", "b")}, [], "metrics", "several filters, a and b among them", "['acc,a']"),
        ({"filters": ("a", "b")}, ["acc"], "metrics", "several filters", "['acc,a']"),
        ({"filters": ("a", "b")}, ["acc,c"], "metrics", "task qs has no filter 'c'", "which it has: acc,a, acc,b."),
        ({"ppl": [1.5, 2]}, ["ppl"], "source", "and ppl a number", "A row of scores"),
    ],
)
def test_what_is_wrong_with_samples_is_said_with_their_line(tmp_path, more, metrics, field, sentence, remedy):
    for model in ("m1", "m2"):
        samples(tmp_path, model, "qs", [1, 0], **more)
    with pytest.raises(UserError) as caught:
        panel(tmp_path, benchmark("qs", 2), metrics=metrics)
    assert (caught.value.reason, caught.value.field) == ("SCORES_BAD", f"panel.{field}")
    assert sentence in caught.value.message
    assert remedy in caught.value.remedy


def test_a_torn_line_and_a_missing_item_are_named(tmp_path):
    paths = [samples(tmp_path, model, "qs", [1, 0]) for model in ("m1", "m2")]
    with pytest.raises(UserError, match=r"m1 has no score on item 2 of qs \(1 are missing\)"):
        panel(tmp_path, benchmark("qs", 3))
    paths[1].write_text(paths[1].read_text()[:-20])
    with pytest.raises(UserError, match=rf"m2/samples_qs_{WHEN}\.jsonl:2: not JSON"):
        panel(tmp_path, benchmark("qs", 2))
