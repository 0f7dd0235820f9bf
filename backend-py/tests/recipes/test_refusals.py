"""What verbs that read rows say to settings that do not fit the data, recipe by recipe: a sentence, a remedy, a place.

A refusal with a place ends with exit code 65, see test_execute.py; the way to the terminal is walked end to end for one
or two refusals of each verb.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import json_format

from qscope.classification.files import save_classifier
from qscope.errors import UserError
from qscope.features.encoders import load_encoders, model_record, sae_record
from qscope.models import load_model
from qscope.runs import violations
from qscope.v1.classify_pb2 import Classifier
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.model_pb2 import ModelOptions

LAYER = 4
READ = {"context": 16, "bad_rows": "BAD_ROWS_SKIP", "model_batch_tokens": 512}
Refused = Callable[..., UserError]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Rows of two labels and a row that is none; a table with two rows that are none; files without a row."""
    rows = [{"body": f"text number {n}", "kind": "sum" if n % 2 else "prose", "lang": "en"} for n in range(40)]
    lines = [*map(json.dumps, rows), "no row", ""]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    (tmp_path / "fresh.csv").write_text('id,text\n0,a text\n1,another\n2\n3,""\n')
    for name in ("empty.jsonl", "empty.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "broken.jsonl").write_text('no row\n[1]\n{"te\n')
    return tmp_path


@pytest.fixture
def refused(folder, run) -> Refused:
    """``refused(task, fields)``: the error that ends the run of a task that is valid by itself."""

    def go(task: str, fields: dict[str, Any]) -> UserError:
        whole = {"name": "x", "model": "embedded", "compute": {"device": "DEVICE_CPU", "threads": 1}}
        given = json_format.ParseDict({**whole, task: fields}, Experiment())
        assert violations(given) == []
        with pytest.raises(UserError) as caught:
            run(given)
        return caught.value

    return go


def check(error: UserError, sentence: str, remedy: str, field: str) -> None:
    assert sentence in error.message
    assert remedy in error.remedy
    assert error.remedy
    assert error.field == field
    assert "\n" not in error.message


def source(folder: Path, name: str = "data.jsonl", **more: Any) -> dict[str, Any]:
    return {"source": str(folder / name), **more}


KIND = {"text": "{body}", "label": "kind"}


@pytest.mark.parametrize(
    ("name", "fields", "sentence", "remedy", "place"),
    [
        ("none.jsonl", {"positive": ["a"]}, "no text file found there", "Check the path", "source"),
        (
            "data.jsonl",
            {"label": "kind", "positive": ["sum"]},
            "which column holds what is asked?",
            "body, kind, lang",
            "text",
        ),
        (
            "data.jsonl",
            {**KIND, "label": "zzz", "positive": ["sum"]},
            "no row that can be used",
            "Check the source, its columns for text and label",
            "source",
        ),
        (
            "data.jsonl",
            {**KIND, "positive": ["zzz"]},
            "are of one class, without",
            "say in 'positive' which labels",
            "positive",
        ),
        (
            "data.jsonl",
            {**KIND, "positive": ["zzz"], "negative": ["yyy"]},
            "data.jsonl'. Labels there: prose (20), sum (20)",
            "Check the source",
            "source",
        ),
        (
            "data.jsonl",
            {**KIND, "positive": ["sum"], "limit": 1},
            "The only text is of one class",
            "say in 'positive' which labels",
            "positive",
        ),
        (
            "data.jsonl",
            {**KIND, "positive": ["sum"], "limit": 6},
            "are too few",
            "Give more texts of that class",
            "source",
        ),
        ("empty.jsonl", {"positive": ["sum"]}, "no row that can be used", "Check the source", "source"),
        (
            "broken.jsonl",
            {"positive": ["sum"]},
            "broken.jsonl'. The first of 3 left out: broken.jsonl:1: not JSON",
            "Check the source",
            "source",
        ),
    ],
)
def test_classify(refused, folder, sae_folder, name, fields, sentence, remedy, place) -> None:
    data = source(folder, name, use="SPLIT_USE_SPLIT", **{"label": "label", **fields})
    check(refused("classify", classify(sae_folder, data)), sentence, remedy, f"classify.data[0].{place}")


def classify(sae: Path, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    shares = {"evaluation_share": 0.3, "calibration_share": 0.2, "false_positive_rates": [0.1]}
    settings = {"attribute": "sum", "features": [1], "draws": 1, "bootstrap": 100, "shard_texts": 32, **shares}
    return {"sae": str(sae), "data": [data], **READ, **settings, **more}


def test_classify_at_a_layer_that_is_not_there(refused, folder, sae_folder) -> None:
    data = source(folder, use="SPLIT_USE_SPLIT", positive=["sum"], **KIND)
    error = refused("classify", classify(sae_folder, data, layers=[9]))
    check(error, "Layer 9 does not exist", "", "classify.layers[0]")


@pytest.fixture
def classifier(sae_folder, tmp_path) -> Path:
    loaded = load_model("embedded", ModelOptions())
    saes = load_encoders(sae_folder, [LAYER], loaded.facts, device=torch.device("cpu"))
    made = Classifier(attribute="sum", model=model_record(loaded.facts), sae=str(sae_folder), context=16)
    made.saes.append(sae_record(saes[LAYER]))
    made.features.add(layer=LAYER, feature=3)
    for rate in (0, 0.02, 0.1):
        made.points.add(false_positive_rate=rate, thresholds=[0.0])
    save_classifier(made, tmp_path / "classifier.json")
    return tmp_path / "classifier.json"


@pytest.mark.parametrize(
    ("fields", "sentence", "remedy", "field"),
    [
        ({"false_positive_rate": 0.07}, "rate of 0.07", "It knows 0, 0.02, 0.1", "false_positive_rate"),
        ({"source": "none.csv"}, "no text file found there", "", "source"),
        ({"source": "empty.csv"}, "holds no text that can be used (0 rows left out)", "Check 'source'", "source"),
        ({"source": "broken.jsonl"}, "holds no text that can be used (3 rows left out)", "Check 'source'", "source"),
        ({"where": "id=x"}, "holds no text that can be used", "Check 'source', 'text' and 'where'", "source"),
        ({"text": "{z}"}, "holds no text that can be used (4 rows left out)", "Check 'source'", "source"),
    ],
)
def test_classify_apply(refused, folder, classifier, fields, sentence, remedy, field) -> None:
    given = {"classifier": str(classifier), "model_batch_tokens": 512, "shard_texts": 16, "bad_rows": "BAD_ROWS_SKIP"}
    given |= {**fields, **source(folder, fields.get("source", "fresh.csv"))}
    check(refused("apply_classifier", given), sentence, remedy, f"apply_classifier.{field}")


@pytest.mark.parametrize(
    ("fields", "sentence", "field"),
    [
        ({"source": "none.jsonl"}, "no text file found there", "source"),
        ({"prompt": ""}, "which column holds what is asked?", "prompt"),
        ({"prompt": "{z}"}, "has no item that can be used", "source"),
        ({"prompt": "{"}, "is malformed", "prompt"),
        ({"where": "tongue=de"}, "no column 'tongue'", "where"),
    ],
)
def test_bench_redundancy(refused, folder, sae_folder, fields, sentence, field) -> None:
    error = refused("bench_redundancy", suite(sae_folder, folder, fields))
    check(error, sentence, "", f"bench_redundancy.benchmarks[0].{field}")


@pytest.mark.parametrize(
    ("fields", "sentence", "field"),
    [
        ({"layers": [9]}, "Layer 9 does not exist", "layers[0]"),
        ({"layer": 0}, "Layer 0 is not among those looked at", "layer"),
        (
            {"panel": {"models": [{"model": "embedded"}], "draws": 4, "batch_rows": 1}},
            "cannot be scored on 'b': it has no score block",
            "benchmarks[0].score",
        ),
    ],
)
def test_bench_redundancy_as_a_whole(refused, folder, sae_folder, fields, sentence, field) -> None:
    error = refused("bench_redundancy", {**suite(sae_folder, folder, {}), **fields})
    check(error, sentence, "", f"bench_redundancy.{field}")


def suite(sae: Path, folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    benchmark = {"name": "b", "prompt": "{body}", **fields, **source(folder, fields.get("source", "data.jsonl"))}
    settings = {"rules": [{"name": "active"}], "shard_items": 8, "near_duplicate_rows": 10}
    return {"sae": str(sae), "benchmarks": [benchmark], **READ, **settings}
