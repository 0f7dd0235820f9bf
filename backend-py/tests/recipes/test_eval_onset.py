"""``qscope eval codeswitch`` with ``onset``: the features around the first switched token of what the model writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import json_format

from qscope.errors import UserError
from qscope.features.encoders import load_encoders, model_record, sae_record
from qscope.features.files import save_features
from qscope.models import load_model
from qscope.posttraining.switch_onset import first_token
from qscope.runs import RunFolder, tail, violations
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet
from qscope.v1.model_pb2 import ModelOptions

LAYERS, BEFORE, AFTER = [1, 4], 4, 3
PROMPTS = [{"question": f"The list has {n} entries, and", "language": "en"} for n in range(12)]


@pytest.fixture(scope="module")
def features(sae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Writes a file of features of Chinese and of English, none of German; ``alphas`` are those of each language."""
    loaded = load_model("embedded", ModelOptions())
    saes = load_encoders(sae_folder / "native", LAYERS, loaded.facts, device=torch.device("cpu"))

    def write(alphas: dict[str, float]) -> str:
        entries = [
            FeatureEntry(layer=layer, feature=feature, group=group, score=1, class_alphas=alphas)
            for layer in saes
            for feature, group in ((3, "zh"), (7, "zh"), (20, "en"), (21, "en"))
        ]
        found = FeatureSet(
            kind="language",
            model="embedded",
            entries=entries,
            model_record=model_record(loaded.facts),
            sae_records=[sae_record(sae) for sae in saes.values()],
        )
        return str(save_features(found, tmp_path_factory.mktemp("features")))

    return write


@pytest.fixture
def asking(tmp_path, sae_folder, features) -> Callable[..., Experiment]:
    def make(alphas: dict[str, float], **changes: Any) -> Experiment:
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
        onset = {"sae": str(sae_folder / "native"), "features": features(alphas), "layers": LAYERS}
        fields = {
            "measures": ["RESPONSE_MEASURE_CODESWITCH"],
            "prompts": {"source": str(path), "prompt": "{question}"},
            # Hot enough for some Chinese.
            "sampling": {"temperature": 1, "top_p": 1, "max_tokens": 24, "ignore_end": True},
            "samples": 3,
            "batch_rows": 36,
            "format": {"thinking": "THINKING_OFF"},
            "codeswitch": {"targets": ["zh"], "paper": True},
            "onset": {"top_k": 2, "before": BEFORE, "after": AFTER, **onset, **changes},
        }
        whole = {"name": "x", "seed": 3, "model": "embedded", "compute": {"device": "DEVICE_CPU", "threads": 1}}
        made = json_format.ParseDict({**whole, "eval_responses": fields}, Experiment())
        assert violations(made) == []
        return made

    return make


def results(folder: RunFolder) -> dict[str, Any]:
    return json.loads((folder.artifacts / "results.json").read_text())


def curve(found: dict[str, Any], layer: int, whose: str, switched: bool) -> dict[str, Any]:
    return next(
        one
        for one in found["onset"]["curves"]
        if (one["layer"], one["features_of"], one["switched"]) == (layer, whose, switched)
    )


def test_every_switch_and_every_response_that_stays_is_in_the_curves(asking, run) -> None:
    folder = run(asking({"en": -1.0, "zh": 2.0, "de": 0.5}))
    found = results(folder)
    ratio = found["codeswitch"]["micro_average"][0]
    assert 0 < ratio["count"] < ratio["n"]
    loaded = load_model("embedded", ModelOptions())
    rows = [json.loads(line) for line in (folder.artifacts / "responses.jsonl").read_text().splitlines()]
    spans = [json.loads(line) for line in (folder.artifacts / "findings.jsonl").read_text().splitlines()]
    first: dict[tuple[int, int], int] = {}
    for span in spans:
        key = span["row"], span["sample"]
        first[key] = min(span["start"], first.get(key, span["start"]))
    places = [
        first_token(loaded.tokenizer, row["ids"], first[row["row"], row["sample"]])
        for row in rows
        if (row["row"], row["sample"]) in first
    ]
    assert len(places) == ratio["count"]
    for layer in LAYERS:
        switching = curve(found, layer, "target", True)
        assert switching["offset"] == list(range(-BEFORE, AFTER))
        assert switching["responses"] == [sum(0 <= place + at < 24 for place in places) for at in range(-BEFORE, AFTER)]
        assert curve(found, layer, "target", False)["responses"][BEFORE] == ratio["n"] - ratio["count"]
        # German has an alpha and no feature: nothing but these two languages is there to be looked at.
        assert curve(found, layer, "others", True)["responses"] == [0] * (BEFORE + AFTER)


def test_curves_are_measured_from_the_mean_on_the_language_of_the_response(asking, run) -> None:
    low, high = (results(run(asking({"en": alpha, "zh": 9.0}))) for alpha in (-1.0, 1.5))
    for layer in LAYERS:
        for whose in ("target", "own"):
            means = [curve(found, layer, whose, True)["mean"] for found in (low, high)]
            assert means[0] == pytest.approx([value + 2.5 for value in means[1]], abs=1e-4)


def test_the_page_shows_it_and_the_log_says_it(asking, run) -> None:
    folder = run(asking({"en": 0.0, "zh": 0.0}))
    report = json.loads((folder.artifacts / "report.json").read_text())
    headings = [section["heading"] for section in report["sections"]]
    assert headings.index("Around the first switched token") == 1
    plots = report["sections"][1]["sections"]
    assert [plot["heading"] for plot in plots] == ["Layer 1", "Layer 4"]
    said = "\n".join(event.log.text for event in tail(folder.events) if event.HasField("log"))
    assert "features of zh around the first switched token" in said


def test_what_is_missing_is_refused_before_anything_is_written(asking, run, tmp_path) -> None:
    for alphas, changes, reason, field in (
        ({}, {}, "FEATURES_WITHOUT_ALPHA", "eval_responses.onset.features"),
        ({"en": 0.0, "zh": 0.0}, {"top_k": 3}, "FEATURES_NOT_FOUND", "eval_responses.onset.top_k"),
        ({"en": 0.0, "zh": 0.0}, {"layers": [2]}, "FEATURES_NOT_FOUND", "eval_responses.onset.layers"),
        ({"en": 0.0, "zh": 0.0}, {"layers": [9]}, "LAYER_OUT_OF_RANGE", "eval_responses.onset.layers[0]"),
    ):
        with pytest.raises(UserError) as failure:
            run(asking(alphas, **changes))
        assert (failure.value.reason, failure.value.field) == (reason, field)
    assert not list(tmp_path.glob("runs/*/artifacts/responses.jsonl"))


def test_without_the_measure_or_a_target_it_is_no_experiment(asking) -> None:
    for spoil in (
        lambda task: task.measures.__setitem__(0, 1),
        lambda task: task.codeswitch.ClearField("targets"),
        lambda task: (task.ClearField("prompts"), setattr(task.responses, "source", "out.jsonl")),
    ):
        made = asking({"en": 0.0, "zh": 0.0})
        spoil(made.eval_responses)
        assert any("onset needs" in str(one) for one in violations(made))
