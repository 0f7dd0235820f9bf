"""``qscope classify`` and ``qscope classify apply`` in this process, over random SAEs of the embedded model."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from google.protobuf import json_format

from qscope.data.row_texts import RowSource
from qscope.errors import UserError
from qscope.runs import RunFolder
from qscope.v1.experiment_pb2 import Experiment

MASKS = {"skip_first_token": True, "skip_special_tokens": True}


def classify(sae: Path) -> Experiment:
    task = {
        "sae": str(sae),
        "data": [{"source": "embedded-heldout", "label": "language", "positive": ["de"], "use": "SPLIT_USE_SPLIT"}],
        "attribute": "german",
        "evaluation_share": 0.3,
        "calibration_share": 0.2,
        "features": [1],
        "false_positive_rates": [0.1],
        "bootstrap": 20,
        "probe_layers": 1,
        "context": 32,
        "masks": MASKS,
        "model_batch_tokens": 1024,
        "shard_texts": 64,
    }
    return json_format.ParseDict({"name": "t", "model": "embedded", "classify": task}, Experiment())


def apply(source: Path, **changes) -> Experiment:
    task = {"classifier": "latest", "source": str(source), "keep": ["n"], "model_batch_tokens": 512, "shard_texts": 4}
    return json_format.ParseDict(
        {"name": "a", "model": "embedded", "apply_classifier": {**task, **changes}}, Experiment()
    )


def strict(text: str) -> object:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def table(folder: RunFolder, name: str) -> list[list[str]]:
    with (folder.artifacts / name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_rule_is_found_and_applied_to_text(sae_folder, run, tmp_path) -> None:
    found = run(classify(sae_folder))
    # Nothing was compared by language or by number of texts: the tables have their header all the same.
    assert table(found, "curve.csv")[0][:3] == ["group", "share", "texts"]
    columns = ["method", "found_in", "measured_on", "n", "f1", "f1_low", "f1_high", "auc", "auc_low", "auc_high"]
    assert table(found, "transfer.csv") == [columns]
    assert table(found, "overlap.csv") == [["layer", "one", "other", "jaccard"]]
    assert len(table(found, "layers.csv")) == 3
    strict((found.artifacts / "classification.json").read_text())
    identity = json.loads((found.artifacts / "activations" / "extract.json").read_text())["identity"]
    assert {"torch", "transformers"} <= set(identity["libraries"])

    path = tmp_path / "given.jsonl"
    rows = [{"text": f"Das ist der Satz Nummer {n}.", "n": math.nan if n == 2 else n} for n in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    applied = run(apply(path))
    said = [strict(line) for line in (applied.artifacts / "answers.jsonl").read_text().splitlines()]
    assert [line["kept"]["n"] for line in said] == [0, 1, None, *range(3, 10)]
    # A later run may be the latest now; one that goes on keeps the classifier it began with.
    places = json.loads((applied.artifacts / "places.json").read_text())
    assert places["apply_classifier.classifier"] == {"run": found.run_id}
    again = run(classify(sae_folder))
    saved = again.artifacts / "classifier.json"
    saved.write_text(saved.read_text().replace("german", "another"))
    run(applied.experiment, applied)
    assert [strict(line) for line in (applied.artifacts / "answers.jsonl").read_text().splitlines()] == said


def test_a_column_that_no_row_has_is_told(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "kind": "x"}\n')
    with pytest.raises(UserError) as caught:
        list(RowSource(str(path), where="sort=x", at="data").rows())
    assert (caught.value.reason, caught.value.field) == ("TEXT_FIELD_MISSING", "data.where")
    assert list(RowSource(str(path), where="kind=y", at="data").rows()) == []
