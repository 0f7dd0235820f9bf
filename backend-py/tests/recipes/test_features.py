"""``qscope features`` from experiment to artifacts, on the embedded model and SAEs of random directions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import json_format

from qscope.errors import UserError
from qscope.features.files import group_of, load_features
from qscope.features.labels import plain
from qscope.recipes.plan import plan
from qscope.runs import RunFolder, RunStopped, tail, violations
from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.explain_pb2 import ExplanationSet
from qscope.v1.features_pb2 import ContextSet

# Of the SAEs in conftest.py.
D, F, K, LAYERS = 128, 256, 8, [1, 4]
TEXT = {"source": "embedded-heldout", "field": "text", "split": "train", "context": 48}
MASKS = {"skip_first_token": True, "skip_special_tokens": True}
COMMON = {"masks": MASKS, "model_batch_tokens": 2048}
ENDPOINT = {"url": "http://127.0.0.1:9/v1", "model": "m", "max_tokens": 32, "concurrency": 2, "timeout_seconds": 5}
TASKS: dict[str, dict[str, Any]] = {
    "extract_features": {
        "text": TEXT,
        "documents": 30,
        "shard_documents": 16,
        "format": "ACTIVATION_FORMAT_PARQUET",
    },
    "contrast_features": {
        "positives": {**TEXT, "where": "language=de"},
        "negatives": {**TEXT, "where": "language!=de"},
        "documents": 60,
        "held_out_share": 0.5,
        "score": "CONTRAST_SCORE_MEAN_DIFFERENCE",
        "unit": "CONTRAST_UNIT_TOKEN",
        "top": 3,
        "ambient_share": 0.5,
        "label": "German",
    },
    "top_features": {
        "text": TEXT,
        "documents": 30,
        "features": ["4/7", "1/3"],
        "contexts": 4,
        "before": 6,
        "after": 2,
    },
    "language_features": {
        "text": TEXT,
        "language_field": "language",
        "languages": ["de", "zh", "ru"],
        "documents": 24,
        "held_out_share": 0.5,
        "top": 2,
        "ambient_share": 0.5,
    },
    "explain_features": {
        "text": TEXT,
        "documents": 200,
        "features": ["4/7", "1/3", "4/9"],
        "shown": 6,
        "tested": 5,
        "before": 6,
        "after": 2,
        "writer": "LABEL_WRITER_OFFLINE",
        "label_tokens": 4,
    },
    "repetition_features": {
        "text": TEXT,
        "loops": "LOOP_ORIGIN_MADE",
        "documents": 24,
        "prefix_tokens": 8,
        "new_tokens": 80,
        "period_tokens": 5,
        "repetitions": 4,
        "held_out_share": 0.5,
        "top": 3,
        "ambient_share": 1.0,
    },
}


@pytest.fixture
def experiment(sae_folder) -> Callable[..., Experiment]:
    """``experiment(task, **changes)``: a whole experiment with that task."""

    def make(task: str, **changes: Any) -> Experiment:
        fields = {"sae": str(sae_folder), **COMMON, **TASKS[task], **changes}
        whole = {"name": "x", "model": "embedded", "model_options": {"precision": "PRECISION_FLOAT32"}, task: fields}
        made = json_format.ParseDict({**whole, "compute": {"device": "DEVICE_CPU", "threads": 1}}, Experiment())
        assert violations(made) == []
        return made

    return make


def layer_metrics(folder: RunFolder) -> dict[int, dict[str, float]]:
    return {
        entry.layer: dict(entry.values)
        for event in tail(folder.events)
        if event.HasField("metrics")
        for entry in event.metrics.entries
    }


def artifacts(folder: RunFolder) -> dict[str, str]:
    return {event.artifact.path: event.artifact.kind for event in tail(folder.events) if event.HasField("artifact")}


def test_contrast_finds_german_and_says_what_it_read(experiment, run) -> None:
    folder = run(experiment("contrast_features"))
    assert artifacts(folder) == {"artifacts/features.json": "features", "artifacts/contrast.json": "summary"}
    found = load_features(folder.path)
    assert (found.kind, found.model, found.score) == ("contrast", "embedded", "mean_difference per token")
    assert found.tokens == "without padding, first tokens, special tokens; no template"
    assert [(record.layer, record.d_sae, record.k) for record in found.sae_records] == [(1, F, K), (4, F, K)]
    assert [entry.layer for entry in found.entries] == [1, 1, 1, 4, 4, 4]
    assert {entry.label for entry in found.entries} == {"German"}
    assert {(entry.n_positive, entry.n_negative) for entry in found.entries} == {(30, 30)}
    best = max(found.entries, key=lambda entry: entry.held_out_auc)
    assert best.held_out_auc > 0.8
    assert best.auc_low > 0.5
    assert best.mean_positive > best.mean_negative
    report = json.loads((folder.artifacts / "contrast.json").read_text())
    assert report["sides"]["positives"]["documents_ranking"] == 30
    assert report["sides"]["negatives"]["source"]["where"] == "language!=de"
    rows = layer_metrics(folder)
    assert set(rows) == {1, 4}
    assert rows[1]["feature"] == found.entries[0].feature
    again = run(experiment("contrast_features"))
    assert load_features(again.path) == found


def test_a_chat_template_is_used_and_recorded(experiment, run) -> None:
    folder = run(experiment("contrast_features", rendering={"chat": True, "thinking": False}))
    found = load_features(folder.path)
    assert found.tokens.endswith("template tokens; chat template, thinking off")
    assert found.entries != load_features(run(experiment("contrast_features")).path).entries


def test_what_stands_on_both_sides_is_told(experiment, run) -> None:
    with pytest.raises(UserError) as caught:
        run(experiment("contrast_features", negatives=TASKS["contrast_features"]["positives"]))
    assert (caught.value.reason, caught.value.field) == ("SIDES_ALIKE", "contrast_features.negatives.source")
    overlapping = run(experiment("contrast_features", negatives=TEXT))
    logs = [event.log.text for event in tail(overlapping.events) if event.HasField("log")]
    assert any("stand on both sides" in text for text in logs)


@pytest.mark.parametrize(
    ("task", "changes", "reason", "field"),
    [
        ("contrast_features", {"layers": [9]}, "LAYER_OUT_OF_RANGE", "contrast_features.layers[0]"),
        ("contrast_features", {"layers": [2]}, "SAE_LAYER_MISSING", ""),
        ("contrast_features", {"sae": "./nowhere"}, None, None),
        (
            "contrast_features",
            {"positives": {**TEXT, "where": "language=xx"}},
            "NO_TEXT",
            "contrast_features.positives.source",
        ),
        ("top_features", {"features": ["4/256"]}, "FEATURE_OUT_OF_RANGE", "top_features.features"),
        ("top_features", {"features": ["2/1"]}, "SAE_LAYER_MISSING", ""),
        ("top_features", {"feature_set": "./none.json"}, "FEATURES_NOT_FOUND", "top_features.feature_set"),
        ("explain_features", {"features": ["4/256"]}, "FEATURE_OUT_OF_RANGE", "explain_features.features"),
        (
            "explain_features",
            {"writer": "LABEL_WRITER_ENDPOINT", "endpoint": {**ENDPOINT, "api_key_variable": "NO_SUCH_KEY"}},
            "CHAT_KEY_MISSING",
            "explain_features.endpoint.api_key_variable",
        ),
        ("language_features", {"languages": ["de", "xx"]}, "TOO_FEW_DOCUMENTS", "language_features.languages[1]"),
        ("language_features", {"language_field": "tongue"}, "TEXT_FIELD_MISSING", "language_features.language_field"),
        ("repetition_features", {"prefix_tokens": 500}, "TOO_FEW_LOOPS", "repetition_features.loops"),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(experiment, run, task, changes, reason, field) -> None:
    with pytest.raises(UserError) as caught:
        run(experiment(task, **changes))
    assert "\n" not in caught.value.message
    if reason:
        assert (caught.value.reason, caught.value.field) == (reason, field)


def test_extracted_activations_serve_top_as_the_text_does(experiment, run) -> None:
    extracted = run(experiment("extract_features"))
    assert artifacts(extracted) == {"artifacts/activations": "activations"}
    manifest = json.loads((extracted.artifacts / "activations" / "manifest.json").read_text())
    assert [shard["documents"] for shard in manifest["shards"]] == [16, 14]
    assert manifest["tokens_text"] == "without padding, first tokens, special tokens; no template"
    assert manifest["masks"] == {**MASKS, "skip_thinking": False}
    assert manifest["rendering"] == {"chat": False, "thinking": False}
    assert {"torch", "transformers"} <= set(manifest["versions"])
    identity = json.loads((extracted.artifacts / "activations" / "extract.json").read_text())["identity"]
    assert {"torch", "transformers"} <= set(identity["libraries"])
    assert (identity["device_type"], identity["chat_template"]) == ("cpu", "")
    assert identity["attention"]
    assert len(identity["tokenizer"]["sha256"]) == 64
    chat = run(experiment("extract_features", rendering={"chat": True}))
    identity = json.loads((chat.artifacts / "activations" / "extract.json").read_text())["identity"]
    assert "message" in identity["chat_template"]
    from_shards = run(experiment("top_features", sae="", activations=extracted.run_id))
    from_text = run(experiment("top_features"))
    one, other = (
        json_format.Parse((folder.artifacts / "contexts.json").read_text(), ContextSet())
        for folder in (from_shards, from_text)
    )
    assert [(entry.layer, entry.feature) for entry in one.features] == [(1, 3), (4, 7)]
    assert sum(len(entry.contexts) for entry in one.features) > 4
    assert (one.sae_records, one.model_record, one.tokens) == (other.sae_records, other.model_record, other.tokens)
    for a, b in zip(one.features, other.features, strict=True):
        assert (a.tokens, a.rate) == (b.tokens, pytest.approx(b.rate, abs=1e-3))
        assert [c.text for c in a.contexts] == [c.text for c in b.contexts]


def test_top_takes_the_features_another_run_found(experiment, run) -> None:
    found = load_features(run(experiment("contrast_features")).path)
    folder = run(experiment("top_features", features=[], feature_set="latest"))
    shown = json_format.Parse((folder.artifacts / "contexts.json").read_text(), ContextSet())
    assert {(e.layer, e.feature) for e in shown.features} == {(e.layer, e.feature) for e in found.entries}
    assert {entry.label for entry in shown.features} == {"German"}


@pytest.mark.parametrize("task", ["top_features", "explain_features"])
def test_a_run_that_goes_on_keeps_the_feature_set_it_began_with(experiment, run, task) -> None:
    found = run(experiment("contrast_features"))
    asked = experiment(task, features=[], feature_set="latest")
    folder = run(asked)
    newer = run(experiment("contrast_features", label="newer", top=1))
    again = run(asked, folder)
    assert json.loads((again.artifacts / "places.json").read_text()) == {
        f"{task}.feature_set": {"run": found.path.name},
        f"{task}.sae": {"path": asked.top_features.sae or asked.explain_features.sae},
    }
    assert len(load_features(newer.path).entries) < len(load_features(found.path).entries)


def explained(folder: RunFolder) -> ExplanationSet:
    return json_format.Parse((folder.artifacts / "explanations.json").read_text(), ExplanationSet())


def test_labels_are_written_from_one_half_and_scored_on_the_other(experiment, run) -> None:
    folder = run(experiment("explain_features"))
    assert artifacts(folder) == {
        "artifacts/explanations.json": "explanations",
        "artifacts/report.json": "report",
    }
    found = explained(folder)
    assert found.writer == "offline"
    assert [(one.layer, one.feature) for one in found.explanations] == [(1, 3), (4, 7), (4, 9)]
    for one in found.explanations:
        assert 1 <= len(one.shown) <= 6
        assert 1 <= len(one.fires_on) <= 4
        assert one.label == f"fires on {', '.join(one.fires_on)}; promotes {', '.join(one.promotes)}"
        fired = {
            plain(token)
            for context in one.shown
            for token, value in zip(context.tokens, context.activations, strict=True)
            if value > 0
        }
        assert set(one.fires_on) <= fired
        assert (one.n_active, one.n_silent, one.unanswered) == (5, 5, 0)
        assert one.balanced_accuracy == pytest.approx((one.recall + one.specificity) / 2)
        assert one.low <= one.balanced_accuracy <= one.high
        assert one.HasField("foreign_accuracy")
    assert explained(run(experiment("explain_features"))) == found, "the same seed gives the same labels"


def test_labels_go_into_the_feature_set_they_were_asked_for(experiment, run) -> None:
    before = load_features(run(experiment("contrast_features")).path)
    folder = run(experiment("explain_features", features=[], feature_set="latest"))
    labels = {(one.layer, one.feature): one.label for one in explained(folder).explanations}
    after = load_features(folder.path)
    assert [entry.label for entry in before.entries] == ["German"] * len(before.entries)
    for entry in after.entries:
        assert entry.label == (labels[entry.layer, entry.feature] or "German")
    assert any(labels.values())
    for one, other in zip(before.entries, after.entries, strict=True):
        other.label = one.label
    assert before == after, "nothing but the labels has changed"


def test_labels_leave_the_language_a_feature_was_found_for(experiment, run) -> None:
    before = load_features(run(experiment("language_features")).path)
    after = load_features(run(experiment("explain_features", features=[], feature_set="latest")).path)
    assert [entry.label for entry in after.entries] != [entry.label for entry in before.entries]
    assert [group_of(entry) for entry in after.entries] == [entry.label for entry in before.entries]
    assert {group_of(entry) for entry in after.entries} == {"de", "zh", "ru"}
    before.entries[0].group = ""
    assert group_of(before.entries[0]) == before.entries[0].label, "as files of older versions are"


@pytest.mark.parametrize("task", ["top_features", "explain_features"])
def test_features_of_other_saes_are_refused(experiment, run, task) -> None:
    """Ids of another SAE name something, but not what was found."""
    found = run(experiment("contrast_features"))
    path = found.artifacts / "features.json"
    features = json.loads(path.read_text())
    features["sae_records"][-1]["fingerprint"] = "0" * 32
    path.write_text(json.dumps(features))
    with pytest.raises(UserError) as caught:
        run(experiment(task, features=[], feature_set=str(found.path)))
    assert (caught.value.reason, caught.value.field) == ("FEATURES_OF_ANOTHER_SAE", f"{task}.feature_set")


def test_a_chat_server_writes_and_judges(experiment, run, http_server) -> None:
    """A script stands for the language model: it calls every second excerpt active, and breaks one answer."""
    asked: list[str] = []

    def answer(request: dict, _: dict) -> tuple[int, dict, object]:
        asked.append(request["messages"][-1]["content"])
        return 200, {}, {"choices": [{"message": {"content": said(asked[-1])}}]}

    def said(user: str) -> str:
        if not user.startswith("Feature:"):
            return f'"label {len(asked)}."'
        lines = [line for line in user.splitlines()[2:] if line]
        return "I cannot tell" if len(lines) == 2 else str([int(number % 2 == 0) for number in range(len(lines))])

    endpoint = {**ENDPOINT, "url": f"{http_server(answer)}/v1", "concurrency": 1}
    folder = run(experiment("explain_features", writer="LABEL_WRITER_ENDPOINT", endpoint=endpoint))
    assert artifacts(folder)["artifacts/answers.jsonl"] == "answers"
    found = explained(folder)
    assert found.writer == "m"
    assert [one.label for one in found.explanations] == ["label 1", "label 2", "label 3"]
    # Ten windows a feature: a question of eight and one of two, whose answer is not understood.
    assert len(asked) == 3 + 3 * 2
    for one in found.explanations:
        assert one.unanswered == 2
        assert one.n_active + one.n_silent == 8
        said_active = one.recall * one.n_active + (1 - one.specificity) * one.n_silent
        assert said_active == pytest.approx(4)
    assert all("<<" in user for user in asked[:3])
    assert not any("<<" in user for user in asked[3:]), "the judge sees no marks"


def test_languages_have_their_features_and_alphas(experiment, run) -> None:
    found = load_features(run(experiment("language_features")).path)
    assert found.kind == "language"
    assert {entry.label for entry in found.entries} == {"de", "zh", "ru"}
    for entry in found.entries:
        assert set(entry.class_means) == set(entry.class_alphas) == {"de", "zh", "ru"}
        others = [mean for name, mean in entry.class_means.items() if name != entry.label]
        assert entry.held_out_score == pytest.approx(entry.class_means[entry.label] - sum(others) / 2)
        assert (entry.n_positive, entry.n_negative) == (12, 24)
    for name in ("de", "zh", "ru"):
        best = max((entry for entry in found.entries if entry.label == name), key=lambda entry: entry.held_out_auc)
        assert best.held_out_auc > 0.8
        assert best.class_alphas[name] == max(best.class_alphas.values())
    named = run(experiment("language_features", languages=[], documents=8))
    assert {entry.label for entry in load_features(named.path).entries} >= {"de", "en", "zh"}


def test_a_language_that_is_nowhere_is_not_sought_for_ever(experiment, run, tmp_path, monkeypatch) -> None:
    from qscope.recipes import language_features as module

    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"text": f"row number {n}", "language": "de"}) + "\n" for n in range(900)))
    text = {**TEXT, "source": str(path)}
    with pytest.raises(UserError) as caught:
        run(experiment("language_features", text=text, languages=["de", "dee"], documents=4))
    assert (caught.value.reason, caught.value.field) == ("TOO_FEW_DOCUMENTS", "language_features.languages[1]")
    # 20 x 4 x 2 are 160; what is read goes on to the end of 64 documents.
    assert "among the first 192" in caught.value.message
    assert "holds de." in caught.value.remedy

    taken = []
    take = module.DocumentReader.take
    monkeypatch.setattr(module.DocumentReader, "take", lambda *given: taken.append(take(*given)) or taken[-1])
    with pytest.raises(RunStopped):
        run(
            experiment("language_features", text=text, languages=["de", "dee"], documents=400),
            is_stopping=lambda: True,
        )
    assert taken == [[]]


@pytest.mark.slow
@pytest.mark.parametrize("loops", ["LOOP_ORIGIN_MADE", "LOOP_ORIGIN_GENERATED"])
def test_repetition_features_rise_along_their_curve(experiment, run, loops) -> None:
    folder = run(experiment("repetition_features", loops=loops, documents=60))
    found = load_features(folder.path)
    assert found.kind == "repetition"
    assert {entry.layer for entry in found.entries} == set(LAYERS)
    for entry in found.entries:
        assert len(entry.curve) == 4
        assert entry.curve[-1] - entry.curve[0] == pytest.approx(entry.held_out_score)
        assert (entry.curve[0], entry.curve[-1]) == (entry.mean_negative, entry.mean_positive)
        assert not entry.class_means
    report = json.loads((folder.artifacts / "repetition.json").read_text())
    ranked = report["documents_ranking"] + report["documents_held_out"]
    assert ranked + report["duplicates_left_out"] == report["documents_looping"]
    assert len(set(report["tokens_by_repetition"].values())) == 1
    for layer, onset in zip(LAYERS, report["onset"], strict=True):
        best = next(entry for entry in found.entries if entry.layer == layer)
        assert (onset["layer"], onset["feature"]) == (layer, best.feature)
        assert onset["matched"] not in {entry.feature for entry in found.entries if entry.layer == layer}
        assert len(onset["loops"]["after_D"]) == report["documents_held_out"]
        assert onset["low"] <= onset["auc"] <= onset["high"]
    page = json.loads((folder.artifacts / "report.json").read_text())
    assert page["sections"][0]["heading"] == "Around the onset"
    assert len(page["sections"][0]["sections"]) == len(LAYERS)


@pytest.mark.slow
@pytest.mark.parametrize("loops", ["LOOP_ORIGIN_MADE", "LOOP_ORIGIN_GENERATED"])
def test_no_document_stands_on_both_sides_of_an_onset(experiment, run, tmp_path, monkeypatch, loops) -> None:
    """Each text stands there twice, and once more with another end behind the tokens loops are made from."""
    from qscope.recipes import repetition_features as module

    words = [
        "river",
        "stone",
        "garden",
        "window",
        "paper",
        "letter",
        "morning",
        "silver",
        "market",
        "bridge",
        "candle",
        "forest",
    ]
    texts = []
    for number in range(24):
        body = " ".join(words[(number * 5 + place * (number + 1)) % len(words)] for place in range(20))
        texts += [f"{number} {body} so it ends.", f"{number} {body} so it ends.", f"{number} {body} and goes on."]
    path = tmp_path / "twins.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    seen = []

    def curves(loaded, saes, documents, *rest, groups, **options):
        seen.append((documents, groups))
        return onset_curves(loaded, saes, documents, *rest, groups=groups, **options)

    onset_curves = module.onset_curves
    monkeypatch.setattr(module, "onset_curves", curves)
    text = {**TEXT, "source": str(path)}
    folder = run(experiment("repetition_features", loops=loops, text=text, documents=72))
    ((documents, groups),) = seen
    # 13 tokens are what the loops are made from; a continuation starts from the first 8.
    starts: list[list[bytes]] = [[], []]
    for aligned, group in zip(documents, groups, strict=True):
        starts[group].append(aligned.document.ids_T[: 13 if loops == "LOOP_ORIGIN_MADE" else 8].tobytes())
    assert starts[0]
    assert starts[1] or loops == "LOOP_ORIGIN_GENERATED"
    assert not set(starts[0]) & set(starts[1])
    whole = [aligned.document.ids_T.tobytes() for aligned, _ in zip(documents, groups, strict=True)]
    assert len(set(whole)) == len(whole)
    report = json.loads((folder.artifacts / "repetition.json").read_text())
    assert report["duplicates_left_out"] > 0
    assert report["documents_ordinary"] >= len(starts[1])


def silent(folder: Path) -> Path:
    """SAEs of which no feature ever fires."""
    saes = {}
    for layer in LAYERS:
        W_FD = torch.nn.functional.normalize(torch.randn(F, D, generator=torch.Generator().manual_seed(layer)), dim=1)
        saes[layer] = TopKSae(W_FD, torch.full((F,), -1e9), W_FD.clone(), torch.zeros(D), k=K, layer=layer)
    formats.save(saes, folder, ["native"], {})
    return folder


def test_where_nothing_is_found_it_is_said_in_one_sentence(experiment, run, tmp_path) -> None:
    sae = str(silent(tmp_path / "silent"))
    found = run(experiment("contrast_features", sae=sae))
    assert not load_features(found.path).entries
    for task in ("top_features", "explain_features"):
        asked = experiment(task, sae=sae, features=[], feature_set=str(found.path))
        for go in (run, lambda given: plan(given, str(tmp_path), timed=False)):
            with pytest.raises(UserError) as caught:
                go(asked)
            assert (caught.value.reason, caught.value.field) == ("FEATURES_EMPTY", f"{task}.feature_set")
    shown = run(experiment("top_features", sae=sae, feature_set=str(found.path)))
    assert artifacts(shown) == {"artifacts/contexts.json": "contexts"}
    folder = run(experiment("repetition_features", sae=sae))
    assert json.loads((folder.artifacts / "repetition.json").read_text())["onset"] == []
    logs = [event.log.text for event in tail(folder.events) if event.HasField("log")]
    assert "No feature rises with repetition at layer 1, 4." in logs


def test_documents_too_short_for_made_loops_are_told_so(experiment, run) -> None:
    with pytest.raises(UserError) as caught:
        run(experiment("repetition_features", prefix_tokens=45))
    assert "prefix_tokens + period_tokens = 50 tokens" in caught.value.message
    assert "loops: made" not in caught.value.remedy


def test_loops_may_stand_in_the_text(experiment, run, tmp_path) -> None:
    rows = [{"text": f"Start number {n}: " + f"word{n} and {n}, " * 40 + "The end."} for n in range(12)]
    path = tmp_path / "loops.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = {**TEXT, "source": str(path), "context": 512}
    folder = run(experiment("repetition_features", loops="LOOP_ORIGIN_GIVEN", text=text))
    report = json.loads((folder.artifacts / "repetition.json").read_text())
    assert report["documents_looping"] == 12
    # Nothing is left to compare with.
    assert [onset["auc"] for onset in report["onset"]] == [None, None]
    assert [onset["ordinary"] for onset in report["onset"]] == [None, None]


@pytest.mark.parametrize("task", list(TASKS))
def test_what_does_not_fit_is_refused_before_the_model_is_loaded(experiment, run, monkeypatch, task) -> None:
    from qscope.recipes import plan as module

    monkeypatch.setattr(module, "available_memory", lambda device: 1 << 20)
    monkeypatch.setattr("qscope.recipes.feature_parts.load_model", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(UserError) as caught:
        run(experiment(task))
    assert caught.value.reason == "OUT_OF_MEMORY_BY_PLAN"
    assert f"{task}.layers" in caught.value.remedy or f"{task}.model_batch_tokens" in caught.value.remedy


@pytest.mark.parametrize("task", list(TASKS))
def test_plans_what_would_run(experiment, tmp_path, task) -> None:
    planned = plan(experiment(task), str(tmp_path), timed=False)
    facts = {fact.name: fact.value for fact in planned.facts}
    assert facts["SAE"] == f"about {F} features, k {K} (from the files' sizes and names)"
    assert facts["layers"].startswith("1, 4 of 6")
    assert planned.fits
    memory = {item.name: item.bytes for item in planned.memory}
    assert memory["encoders, float32 (2 layers)"] == 2 * F * (D + 1) * 4
    assert planned.memory_bytes == sum(memory.values())
    assert list(tmp_path.iterdir()) == []


def test_plans_grow_with_what_is_read_and_warn(experiment, tmp_path, monkeypatch) -> None:
    from qscope.recipes import plan as module

    monkeypatch.setattr(module, "measure_device", lambda device: module.DeviceSpeed(products=1e9, bytes=1e9))
    small = plan(experiment("contrast_features"), str(tmp_path))
    large = plan(experiment("contrast_features", documents=120), str(tmp_path))
    assert large.seconds == pytest.approx(2 * small.seconds)
    first = plan(experiment("contrast_features", masks={}), str(tmp_path))
    assert any("First tokens count" in warning for warning in first.warnings)
    everything = plan(experiment("extract_features", documents=0), str(tmp_path))
    assert any("not known" in warning for warning in everything.warnings)
    monkeypatch.setattr(module, "available_memory", lambda device: 1)
    tight = plan(experiment("language_features"), str(tmp_path))
    assert not tight.fits
    assert "language_features.layers" in tight.warnings[-1]
    with pytest.raises(UserError) as caught:
        plan(experiment("top_features", sae="latest"), str(tmp_path))
    assert (caught.value.reason, caught.value.field) == ("SAE_NOT_FOUND", "top_features.sae")


@pytest.mark.parametrize("task", ["top_features", "explain_features"])
def test_the_plan_of_contexts_grows_with_the_features_up_to_a_slice(experiment, tmp_path, task) -> None:
    def memory(count: int) -> dict[str, int]:
        named = [f"{layer}/{feature}" for layer in LAYERS for feature in range(F)][:count]
        planned = plan(experiment(task, features=named), str(tmp_path), timed=False)
        return {item.name: item.bytes for item in planned.memory}

    few, more, most = memory(2), memory(200), memory(2 * F)
    name = "activations and windows of a pass"
    assert more[name] == 100 * few[name]
    assert most[name] == 128 * few[name], "a slice of 256"
    assert most["contexts kept"] == F * few["contexts kept"]
