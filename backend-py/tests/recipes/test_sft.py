"""``qscope sft`` on the embedded model: a few steps of every arm, what is written, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from google.protobuf import json_format
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from qscope.errors import UserError
from qscope.features.encoders import load_encoders, model_record, sae_record
from qscope.features.files import save_features
from qscope.models import load_model
from qscope.recipes.plan import plan
from qscope.runs import RunFolder, RunStopped, tail
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet
from qscope.v1.model_pb2 import ModelOptions

FULL = {"method": "TRAIN_METHOD_FULL"}
CPU = torch.device("cpu")
LANGUAGES = ("en", "ru", "zh")
ROWS = [
    {"question": f"What is {n} plus {n}?", "answer": answer.format(n, 2 * n), "lang": language}
    for n in range(1, 13)
    for language, answer in (("en", "{} and {} make that."), ("zh", "答案是{}和{}。"), ("ru", "Ответ: {} и {}, 好的。"))
]


@pytest.fixture(scope="module")
def features(sae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature file of the embedded model whose thresholds about half the tokens exceed."""
    loaded = load_model("embedded", ModelOptions())
    saes = load_encoders(sae_folder / "native", [1, 4], loaded.facts, device=CPU)
    entries = []
    for layer in saes:
        for place, feature in enumerate((3, 7, 11, 20, 21, 22)):
            alphas = dict.fromkeys(LANGUAGES, -5.0)
            group = "zh" if place < 3 else "ru"
            entries.append(
                FeatureEntry(layer=layer, feature=feature, group=group, score=9.0 - place, class_alphas=alphas)
            )
    found = FeatureSet(
        kind="language",
        model="embedded",
        sae=str(sae_folder),
        entries=entries,
        model_record=model_record(loaded.facts),
        sae_records=[sae_record(sae) for sae in saes.values()],
    )
    return save_features(found, tmp_path_factory.mktemp("features"))


@pytest.fixture
def experiment(features: Path, sae_folder: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """``experiment(field=value, ...)``: fields of ``sft``; ``sae_loss`` in one of its own."""
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n")

    def make(sae_loss: dict | None = None, more: dict | None = None, **fields: object) -> Experiment:
        task = {
            "data": {"source": str(source)},
            "format": {"chat": True, "thinking": "THINKING_OFF"},
            "context": 96,
            "epochs": 1,
            "steps": 3,
            "micro_batch_rows": 3,
            "accumulate": 2,
            "trainable": {"method": "TRAIN_METHOD_FULL", "lora": {"rank": 4, "alpha": 8, "merge": True}},
            "optimizer": {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.1, "max_grad_norm": 1},
            "arm": "SFT_ARM_SAE",
            "checkpoint": {"every_steps": 2, "keep": 2},
            "metrics": {"every_steps": 1},
            "alarms": {"patience": 10, "dead_signal": "ALARM_ACTION_WARN", "collapse": "ALARM_ACTION_STOP"},
        }
        loss = {
            "sae": str(sae_folder / "native"),
            "features": str(features),
            "target_languages": ["zh"],
            "layers": [1, 4],
            "top_k": 2,
            "threshold": "FEATURE_THRESHOLD_MEAN",
            "weight": 0.05,
            "feature_reduction": "FEATURE_REDUCTION_MEAN",
            "preset": "SAE_LOSS_PRESET_GLOBAL_TOKENS",
            "exclude_target": True,
        }
        task |= fields
        if sae_loss is not None:
            task["sae_loss"] = loss | sae_loss
        base = {
            "name": "x",
            "seed": 3,
            "model": "embedded",
            "compute": {"device": "DEVICE_CPU", "threads": 1, "processes": 1},
        }
        return json_format.ParseDict({**base, "sft": task, **(more or {})}, Experiment())

    return make


def weights(folder: RunFolder) -> dict[str, bytes]:
    tensors = load_file(folder.artifacts / "model" / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def metrics(folder: RunFolder) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for event in tail(folder.events):
        for entry in event.metrics.entries:
            found.setdefault(entry.step, {}).update(entry.values)
    return found


def said(folder: RunFolder) -> str:
    return "\n".join(event.log.text for event in tail(folder.events) if event.log.text)


def test_the_trained_model_is_one_that_transformers_loads(run, experiment) -> None:
    rows = {"source": "embedded-heldout", "limit": 6}
    folder = run(experiment(sae_loss={}, held_out=rows, evaluate_every=2))
    place = folder.artifacts / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    before = load_model("embedded", ModelOptions())
    assert model.dtype == torch.float32
    assert model.config.to_dict() == {**before.model.config.to_dict(), "_name_or_path": str(place)}
    assert model.generation_config.eos_token_id == before.model.generation_config.eos_token_id
    ids = tokenizer("What is", return_tensors="pt")["input_ids"]
    assert not torch.equal(model(ids).logits, before.model(ids).logits)
    found = metrics(folder)
    assert {"loss", "ce", "sae_loss", "sae_active_share", "grad_norm", "learning_rate", "entropy"} <= set(found[1])
    assert 0 < found[1]["sae_active_share"] < 1
    assert [step for step, values in found.items() if "held_out_loss" in values] == [0, 2, 3]
    record = json.loads((folder.artifacts / "training.json").read_text())
    assert record["data"]["languages_given"] == {"en": 12, "ru": 12, "zh": 12}
    assert record["arm"]["rows_by_language"] == {"en": 12, "ru": 12, "zh": 12}
    assert [part["features"] for part in record["arm"]["layers"]] == [[3, 7], [3, 7]]
    assert record["model"]["fingerprint"] == before.facts.fingerprint
    report = json.loads((folder.artifacts / "report.json").read_text())
    assert [section["heading"] for section in report["sections"]] == ["Held-out loss", "Rows", "Features"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["TRAIN_METHOD_FULL", "TRAIN_METHOD_LORA"])
def test_stopped_and_resumed_it_writes_the_same_model(run, experiment, method: str) -> None:
    trainable = {"method": method, "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "merge": True}}
    wanted = experiment(sae_loss={}, trainable=trainable, steps=4)
    whole = run(wanted)
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 2

    folder = RunFolder.create(whole.path.parent / "again", wanted, "again")
    with pytest.raises(RunStopped) as stopped:
        run(wanted, folder, stop)
    assert 0 < stopped.value.step < 4
    run(wanted, folder)
    assert weights(folder) == weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["RANDOM_FEATURES", "KL", "ENTROPY", "FILTER", "TOKEN_PROBABILITY", "PLAIN"])
def test_every_arm_trains_another_model_than_plain(run, experiment, arm: str) -> None:
    plain = weights(run(experiment(arm="SFT_ARM_PLAIN", sae_loss={})))
    folder = run(experiment(arm=f"SFT_ARM_{arm}", sae_loss={}, arm_weight=0.5))
    assert (weights(folder) == plain) == (arm == "PLAIN")
    record = json.loads((folder.artifacts / "training.json").read_text())
    if arm == "FILTER":
        # Every Russian answer has Chinese in it.
        assert record["arm"]["dropped"] == {"ru": 12}
        assert record["data"]["rows"] == 24
    if arm == "RANDOM_FEATURES":
        drawn = [feature for part in record["arm"]["layers"] for feature in part["features"]]
        assert not set(drawn) & {3, 7, 11, 20, 21, 22}
        assert (folder.artifacts / "random-features" / "features.json").exists()
    if arm == "TOKEN_PROBABILITY":
        assert record["arm"]["foreign_tokens"]["zh"] == 0
        assert record["arm"]["foreign_tokens"]["en"] > 100
    if arm == "KL":
        # Before the first step both are the same model.
        assert metrics(folder)[1]["kl"] == pytest.approx(0.0, abs=1e-6)
        assert metrics(folder)[3]["kl"] > 1e-5


@pytest.mark.slow
def test_adapters_alone_give_the_merged_model(run, experiment) -> None:
    from peft import PeftModel

    def adapters(merge: bool) -> dict:
        return {"method": "TRAIN_METHOD_LORA", "lora": {"rank": 4, "alpha": 8, "merge": merge}, "layers": [0, 4]}

    merged = run(experiment(trainable=adapters(True)))
    alone = run(experiment(trainable=adapters(False)))
    place = alone.artifacts / "model"
    assert {path.name for path in place.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    assert not (place / "README.md").exists()
    assert {name.split(".layers.")[1].split(".")[0] for name in load_file(place / "adapter_model.safetensors")} == {
        "0",
        "4",
    }
    base = load_model("embedded", ModelOptions())
    ids = base.tokenizer("What is 2 plus", return_tensors="pt")["input_ids"]
    with_adapter = PeftModel.from_pretrained(base.model, place)(ids).logits
    whole = AutoModelForCausalLM.from_pretrained(merged.artifacts / "model")(ids).logits
    assert torch.allclose(with_adapter, whole, atol=1e-4)


@pytest.mark.slow
def test_random_features_are_drawn_once_and_trained_on_by_a_resumed_run(run, experiment) -> None:
    wanted = experiment(arm="SFT_ARM_RANDOM_FEATURES", sae_loss={})
    folder = RunFolder.create(run(wanted).path.parent / "again", wanted, "again")
    with pytest.raises(RunStopped):
        run(wanted, folder, lambda: True)
    path = folder.artifacts / "random-features" / "features.json"
    written = path.stat().st_mtime_ns
    run(wanted, folder)
    assert path.stat().st_mtime_ns == written


def refusal(run, wanted: Experiment) -> UserError:
    with pytest.raises(UserError) as caught:
        run(wanted)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("sae_loss", "fields", "reason", "field"),
    [
        ({}, {"trainable": FULL | {"layers": [3, 4]}}, "NOTHING_TRAINABLE_BELOW", "sft.sae_loss.layers"),
        ({}, {"trainable": FULL | {"layers": [9]}}, "LAYER_OUT_OF_RANGE", "sft.trainable.layers[0]"),
        ({"layers": [2]}, {}, "FEATURES_NOT_FOUND", "sft.sae_loss.layers"),
        ({"target_languages": ["de"]}, {}, "LANGUAGE_UNKNOWN", "sft.sae_loss.target_languages[0]"),
        ({"weight": 0}, {}, "SAE_LOSS_WEIGHT", "sft.sae_loss.weight"),
        (
            {"preset": "SAE_LOSS_PRESET_OFFICIAL_CODE", "feature_reduction": "FEATURE_REDUCTION_SUM"},
            {},
            "SAE_LOSS_PRESET",
            "sft.sae_loss.preset",
        ),
        ({"features": "/nowhere/features.json"}, {}, "FEATURES_NOT_FOUND", "sft.sae_loss.features"),
        (
            {},
            {"trainable": {"method": "TRAIN_METHOD_LORA", "lora": {"rank": 2, "alpha": 4, "targets": ["nothing"]}}},
            "LORA_TARGETS",
            "sft.trainable.lora.targets[0]",
        ),
    ],
)
def test_what_would_be_dead_or_wrong_is_refused(run, experiment, sae_loss, fields, reason: str, field: str) -> None:
    error = refusal(run, experiment(sae_loss=sae_loss, **fields))
    assert (error.reason, error.field) == (reason, field)


def test_rows_that_leave_the_loss_nothing_to_do_are_refused(run, experiment, tmp_path) -> None:
    source = tmp_path / "zh.jsonl"
    source.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS if row["lang"] == "zh"))
    error = refusal(run, experiment(sae_loss={}, data={"source": str(source)}))
    assert error.reason == "NOTHING_HELD"
    source.write_text(json.dumps({"question": "Why?", "answer": "So.", "lang": "sw"}))
    error = refusal(run, experiment(sae_loss={}, data={"source": str(source)}))
    assert (error.reason, error.field) == ("LANGUAGE_UNKNOWN", "sft.data.language")


def test_features_of_another_model_or_other_saes_are_refused(run, experiment, features, tiny_folder, tmp_path) -> None:
    error = refusal(run, experiment(sae_loss={"layers": [1]}, format={}, more={"model": str(tiny_folder)}))
    assert (error.reason, error.field) == ("FEATURES_OF_ANOTHER_MODEL", "sft.sae_loss.features")
    changed = json_format.Parse(features.read_text(), FeatureSet())
    changed.sae_records[0].fingerprint = "00" * 16
    path = save_features(changed, tmp_path / "changed")
    error = refusal(run, experiment(sae_loss={"features": str(path)}))
    assert error.reason == "FEATURES_OF_ANOTHER_SAE"


def test_languages_are_tagged_where_rows_give_none_and_counts_are_told(run, experiment, tmp_path) -> None:
    source = tmp_path / "untagged.jsonl"
    lines = [{"question": row["question"], "answer": row["answer"]} for row in ROWS]
    lines += [{"question": "And?", "answer": "The weather is fine, and we will go for a walk in the park."}]
    lines += [{"question": "And?", "answer": "5"}, {"question": "", "answer": ""}]
    source.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    folder = run(experiment(sae_loss={}, data={"source": str(source)}, steps=1))
    text = said(folder)
    assert "left out: 1 (no answer)" in text
    assert "languages tagged by their text" in text
    assert "zh 12, en 1" in text
    record = json.loads((folder.artifacts / "training.json").read_text())
    assert record["data"]["languages_tagged"]["zh"] == 12
    assert record["data"]["untagged"] >= 1


def test_the_plan_shows_rows_parameters_and_steps(experiment, tmp_path) -> None:
    planned = plan(experiment(sae_loss={}, steps=0, epochs=2), str(tmp_path), timed=True)
    facts = {fact.name: fact.value for fact in planned.facts}
    assert facts["rows"] == "36 rows"
    assert facts["steps"] == "12 of 6 rows (micro-batches of 3, 2 on each of 1 process)"
    assert facts["languages"] == "given: en 12, zh 12, ru 12"
    assert facts["trained"] == "2,230,272 of 2,230,272 parameters (100.0%)"
    assert facts["arm"] == "SAE loss against zh, weight 0.05, 2 features a layer, layers 1, 4"
    assert planned.fits
    assert planned.seconds > 0
    assert len(planned.samples) == 3
    assert [part.text for part in planned.samples[0].segments if part.answer] == ["1 and 2 make that.<|im_end|>"]
    assert planned.samples[0].answer_tokens < planned.samples[0].tokens
    memory = {item.name: item.bytes for item in planned.memory}
    assert memory["Adam moments"] == 2 * memory["gradients"] == 2 * memory["model"]
    lora = experiment(trainable={"method": "TRAIN_METHOD_LORA", "lora": {"rank": 4, "alpha": 8}})
    small = {item.name: item.bytes for item in plan(lora, str(tmp_path), timed=False).memory}
    assert small["Adam moments"] < memory["Adam moments"] / 5
