"""``qscope classify`` and ``qscope classify apply`` in this process, over random SAEs of the embedded model."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import pytest
import torch
from google.protobuf import json_format

from qscope.data.records import Fault
from qscope.data.row_texts import RowSource, TextRow
from qscope.errors import UserError
from qscope.features.encoders import sae_record
from qscope.models import describe_model
from qscope.recipes.apply_classifier import _pieces, refuse_other_saes
from qscope.recipes.classify_parts import read_data
from qscope.recipes.classify_report import percent
from qscope.recipes.feature_parts import Opened
from qscope.recipes.plan_classify import plan_classify
from qscope.runs import RunFolder, seed_of
from qscope.sae.topk import TopKSae
from qscope.v1.classify_pb2 import ApplyClassifier, Classifier
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.model_pb2 import ModelOptions

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


@pytest.mark.slow
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


def test_pieces_are_whole_whatever_rows_are_at_fault() -> None:
    """A piece is written to disk at once: faults at the beginning are no pieces of their own."""
    fault, text = Fault("a:1", "not JSON"), TextRow("a:2", 1, "x", {})
    task = ApplyClassifier(shard_texts=4)
    given = [fault] * 6 + [text] * 3
    assert list(_pieces(iter(given), task, 0)) == [given[:4], given[4:8], given[8:]]
    task.limit = 2
    assert list(_pieces(iter(given), task, 0)) == [given[:4], given[4:8]]
    assert list(_pieces(iter(given), task, 2)) == []
    assert list(_pieces(iter([text] * 9), task, 1)) == [[text]]


def test_another_sae_is_refused() -> None:
    W_FD = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

    def opened(weights: torch.Tensor = W_FD, k: int = 2) -> Opened:
        sae = TopKSae(weights, torch.zeros(8), torch.empty(0, 4), torch.zeros(4), k=k, layer=3)
        return Opened(None, {3: sae}, "there")

    classifier = Classifier(sae="here", saes=[sae_record(opened().saes[3])])
    refuse_other_saes(classifier, opened(), field="f")
    # By a larger k features fire that were silent where the rule was found.
    for other in (opened(W_FD + 0.01), opened(k=3)):
        with pytest.raises(UserError, match="SAE of layer 3 at there is not the one") as caught:
            refuse_other_saes(classifier, other, field="f")
        assert (caught.value.reason, caught.value.field) == ("CLASSIFIER_OF_ANOTHER_SAE", "f")
        assert "those of here" in caught.value.remedy


def test_a_plan_divides_as_the_run_will(tmp_path, sae_folder) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": "ab"[n % 2]}) + "\n" for n in range(24)))
    task = classify(sae_folder).classify
    task.data[0].source, task.data[0].positive[:], task.data[0].label = str(path), ["a"], "label"
    shape = describe_model("embedded", ModelOptions(), torch.device("cpu"))
    outcomes = set()
    for seed in range(12):
        try:
            counts = read_data(task, seed_of(seed, "division")).counts()
        except UserError as error:
            with pytest.raises(UserError, match=re.escape(error.message)):
                plan_classify(task, shape, tmp_path, seed)
            outcomes.add(error.reason)
            continue
        facts = {fact.name: fact.value for fact in plan_classify(task, shape, tmp_path, seed).planned.facts}
        for side, one in counts.items():
            assert facts[side] == f"{one['positive']} with the attribute, {one['negative']} without"
        outcomes.add(tuple(counts["evaluation"].values()))
    assert "TOO_FEW_TEXTS" in outcomes
    assert len(outcomes) > 3


def test_labels_are_compared_without_white_space_and_stand_in_one_list(tmp_path, sae_folder) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": "ab"[n % 2]}) + "\n" for n in range(200)))
    task = classify(sae_folder).classify
    source = task.data[0]
    source.source, source.positive[:], source.label = str(path), [" a "], "label"
    assert sum(text.positive for text in read_data(task, 0).texts) == 100
    source.negative[:] = ["b", "a"]
    with pytest.raises(UserError, match="'a' is both among") as caught:
        read_data(task, 0)
    assert (caught.value.reason, caught.value.field) == ("LABEL_TWICE", "classify.data[0].negative")


def test_a_rate_keeps_its_digits() -> None:
    assert [percent(rate) for rate in (0.05, 0.1, 0.005, 0.0001, 0.07, 1 / 3)] == [
        *("5%", "10%", "0.5%", "0.01%", "7%"),
        "33.3333%",
    ]


def test_a_column_that_no_row_has_is_told(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "kind": "x"}\n')
    with pytest.raises(UserError) as caught:
        list(RowSource(str(path), where="sort=x", at="data").rows())
    assert (caught.value.reason, caught.value.field) == ("TEXT_FIELD_MISSING", "data.where")
    assert list(RowSource(str(path), where="kind=y", at="data").rows()) == []
