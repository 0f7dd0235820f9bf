"""``qscope synthesize`` from experiment to artifacts, on the embedded model: every number told is counted again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from google.protobuf import json_format

from qscope.data.items import read_benchmark
from qscope.embedded import heldout_text_path
from qscope.errors import UserError
from qscope.features.chat_server import ChatServer, Usage
from qscope.features.files import save_features
from qscope.models import capture_residuals, load_model
from qscope.recipes.plan import plan
from qscope.recipes.synthesis_material import Material
from qscope.recipes.synthesis_report import Outcome, synthesis_lines
from qscope.recipes.synthesis_writer import Writing
from qscope.recipes.synthesize import _compare, _random, _written
from qscope.runs import RunFolder, tail, violations
from qscope.runs.context import RunStopped
from qscope.runs.files import write_message
from qscope.runs.ledger import Ledger
from qscope.sae import formats
from qscope.sae.topk import dense_codes
from qscope.synthesis.fired import Fired, FiringCounts
from qscope.synthesis.loop import Slot, Verdict, reasons
from qscope.synthesis.responses import Response
from qscope.synthesis.targets import Target
from qscope.synthesis.writers import Brief, Draft
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.explain_pb2 import Explanation, ExplanationSet
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet, ModelRecord, SaeRecord
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.synthesize_pb2 import Synthesize

LAYER, CONTEXT = 4, 24
ROWS = {"source": "embedded-heldout", "limit": 12}
SAMPLING = {"temperature": 0.8, "top_p": 1, "max_tokens": 12}
FORM = {"thinking": "THINKING_OFF"}
TASK: dict[str, Any] = {
    "layers": [LAYER],
    "seed_data": {**ROWS, "where": "language=en", "limit": 3},
    "reference": {"source": "embedded-heldout", "skip": 20, "limit": 40},
    "natural": {"source": "embedded-heldout", "skip": 60, "limit": 30},
    "targets": {"min_texts": 2, "max_share": 0.5, "limit": 20, "relevance": 0.5},
    "masks": {"skip_first_token": True, "skip_special_tokens": True},
    "context": CONTEXT,
    "bad_rows": "BAD_ROWS_SKIP",
    "model_batch_tokens": 1024,
    "writer": "SYNTHESIS_WRITER_TEMPLATES",
    "templates": ["{context}", "Say: {before}"],
    "purpose": "a question",
    "per_feature": 1,
    "attempts": 3,
    "max_overlap": 1.0,
    "shown": 3,
    "before": 10,
    "after": 3,
    "risk": "PROMPT_RISK_BENIGN",
    "responses": "RESPONDER_TEMPLATE",
    "refusal": "No.",
    "help": "Yes: {prompt}",
    "random_baseline": True,
    "draws": 5,
}
ENDPOINT = {"model": "m", "max_tokens": 64, "temperature": 0.8, "concurrency": 2, "timeout_seconds": 5}


@pytest.fixture
def experiment(sae_folder) -> Callable[..., Experiment]:
    def make(**changes: Any) -> Experiment:
        fields = {"sae": str(sae_folder), **TASK, **changes}
        fields = {name: value for name, value in fields.items() if value is not None}
        whole = {"name": "x", "model": "embedded", "model_options": {"precision": "PRECISION_FLOAT32"}}
        compute = {"device": "DEVICE_CPU", "threads": 1}
        made = json_format.ParseDict({**whole, "compute": compute, "synthesize": fields}, Experiment())
        assert violations(made) == []
        return made

    return make


class Counter:
    """Counts by hand: dense codes of each text, run by itself."""

    def __init__(self, sae_folder: Path) -> None:
        self._loaded = load_model("embedded", ModelOptions())
        self._sae = formats.load(sae_folder, [LAYER])[LAYER]

    def peaks(self, text: str) -> torch.Tensor:
        ids = self._loaded.tokenizer(text, add_special_tokens=False)["input_ids"][:CONTEXT]
        x_TD = capture_residuals(self._loaded, [LAYER], torch.tensor([ids]))[LAYER][0].float()
        z_TF = dense_codes(*self._sae.encode(x_TD), self._sae.d_sae)
        z_TF[0] = 0
        return z_TF.amax(0)

    def fires(self, texts: list[str]) -> set[int]:
        return {int(f) for text in texts for f in (self.peaks(text) > 0).nonzero()[:, 0]}


@pytest.fixture(scope="module")
def counter(sae_folder) -> Counter:
    return Counter(sae_folder)


def lines(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.artifacts / name).read_text().splitlines()]


def summary(folder: RunFolder) -> dict[str, Any]:
    return json.loads((folder.artifacts / "synthesis.json").read_text())


def table(folder: RunFolder, name: str) -> list[dict[str, str]]:
    with (folder.artifacts / name).open() as file:
        return list(csv.DictReader(file))


def texts_of(source: Path, skip: int, limit: int, where: str = "") -> list[str]:
    items = read_benchmark("x", str(source), where=where, limit=skip + limit).items
    return [item.prompt for item in items[skip:]]


def test_every_number_is_what_counting_by_hand_gives(experiment, run, counter) -> None:
    folder = run(experiment())
    found, rows, rejected = summary(folder), lines(folder, "synthetic.jsonl"), lines(folder, "rejected.jsonl")
    targets = {int(row["target"].split("/")[1]) for row in table(folder, "targets.csv")}
    seeds = counter.fires(texts_of(heldout_text_path(), 0, 3, "language=en"))
    assert found["targets"] == len(targets) == 20
    assert found["missing"] == len(targets - seeds) > 5
    assert found["coverage"]["seed"] == pytest.approx(len(targets & seeds) / 20)

    # What is called verified fires, as strongly as it says; what is called silent does not.
    assert rows
    assert len(rows) == found["rows"] == found["filled"]
    for row in rows:
        peak_F = counter.peaks(row["messages"][0]["content"])
        assert row["metadata"]["verified"] is True
        assert row["metadata"]["activation"] == pytest.approx(float(peak_F[row["metadata"]["feature"]]), rel=1e-3)
        assert row["metadata"]["activation"] > 0
        assert row["metadata"]["token"].strip() in row["messages"][0]["content"]
        assert row["messages"][1] == {"role": "assistant", "content": f"Yes: {row['messages'][0]['content']}"}
    for row in rejected:
        if row["reason"] == "feature silent":
            assert float(counter.peaks(row["text"])[row["metadata"]["feature"]]) == 0
    assert sum(found["rejected"].values()) == len(rejected)
    assert found["tries"] == len(rows) + len(rejected)

    # Eq. 23, row by row.
    curve = table(folder, "coverage.csv")
    seen = set(seeds)
    for size, row in enumerate(curve):
        assert int(row["texts"]) == size
        assert float(row["targeted"]) == pytest.approx(len(seen & targets) / 20)
        if size < len(rows):
            seen |= counter.fires([rows[size]["messages"][0]["content"]])
    assert found["coverage"]["targeted"] == pytest.approx(len(seen & targets) / 20)

    # The baselines at the same budget.
    written = [row["text"] for row in lines(folder, "random.jsonl")]
    assert len(written) == len(rows) == found["coverage"]["random"]["texts"]
    covered = counter.fires(written) | seeds
    assert found["coverage"]["random"]["coverage"] == pytest.approx(len(covered & targets) / 20)
    natural = [counter.fires([text]) for text in texts_of(heldout_text_path(), 60, 30)]
    # Texts drawn n of 30: a target in m of them is missed by C(30 - m, n) / C(30, n).
    expected = 0.0
    for target in targets - seeds:
        missed = 1.0
        holders = sum(target in one for one in natural)
        for drawn in range(len(rows)):
            missed *= max(0, 30 - holders - drawn) / (30 - drawn)
        expected += 1 - missed
    expected = (expected + len(targets & seeds)) / 20
    assert found["coverage"]["natural"]["coverage"] == pytest.approx(expected)


def test_artifacts_and_lines(experiment, run) -> None:
    folder = run(experiment(styles=[{"name": "politeness"}]))
    announced = {
        event.artifact.path.removeprefix("artifacts/") for event in tail(folder.events) if event.HasField("artifact")
    }
    assert announced == {
        "synthetic.jsonl",
        "rejected.jsonl",
        "synthesis.json",
        "targets.csv",
        "coverage.csv",
        "faults.csv",
        "random.jsonl",
        "ledger.jsonl",
        "report.json",
    }
    told = "\n".join(event.log.text for event in tail(folder.events) if event.HasField("log"))
    assert "with targeted texts" in told
    assert all(len(line) <= 80 for line in told[told.index("wanted features") :].splitlines())
    styles = summary(folder)["rows_by_style"]
    assert set(styles) == {"vanilla", "politeness"}
    assert styles["politeness"] <= styles["vanilla"]
    rows = {row["metadata"]["slot"]: row for row in lines(folder, "synthetic.jsonl")}
    for row in rows.values():
        parent = row["metadata"]["rewrite_of"]
        if parent:
            assert rows[parent]["messages"][0]["content"] in row["messages"][0]["content"]
            assert row["metadata"]["feature"] == rows[parent]["metadata"]["feature"]


def test_rows_load_as_a_trainer_of_chats_loads_them(experiment, run, tmp_path) -> None:
    """Block by block, as Arrow reads files: a column is of one kind in all of them."""
    folder = run(experiment(styles=[{"name": "politeness"}]))
    rows = lines(folder, "synthetic.jsonl")
    assert {row["metadata"]["rewrite_of"] == "" for row in rows} == {True, False}
    path = str(folder.artifacts / "synthetic.jsonl")
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("json", data_files=path, split="train", chunksize=512, cache_dir=cache)
    assert loaded.to_list() == rows
    # TRL's conversational form: https://huggingface.co/docs/trl/dataset_formats
    assert loaded.column_names == ["messages", "metadata"]
    assert [message.keys() for message in loaded[0]["messages"]] == [{"role", "content"}] * 2
    template = load_model("embedded", ModelOptions()).tokenizer.apply_chat_template
    assert rows[0]["messages"][1]["content"] in template(loaded[0]["messages"], tokenize=False)


def test_one_text_of_each_kind_is_enough(experiment, run) -> None:
    one = {"source": "embedded-heldout", "limit": 1}
    folder = run(
        experiment(
            seed_data=one, reference={**one, "skip": 20}, natural={**one, "skip": 60}, **named(min_texts=1, max_share=1)
        )
    )
    found = summary(folder)
    assert found["rows"] > 0
    assert found["coverage"]["natural"]["pool"] == 1
    assert found["coverage"]["natural"]["texts"] == 1


def test_two_runs_are_equal_and_another_seed_is_not(experiment, run) -> None:
    one, two = (lines(run(experiment()), "synthetic.jsonl") for _ in range(2))
    assert one == two
    other = experiment()
    other.seed = 5
    assert lines(run(other), "synthetic.jsonl") != one


class StopAfter:
    """Says to stop from the n-th time it is asked on."""

    def __init__(self, polls: int) -> None:
        self._left = polls

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.mark.slow
def test_a_local_model_writes_and_a_stopped_run_ends_like_another(experiment, run) -> None:
    local = {"sampling": SAMPLING, "format": FORM, "steer": 0.4, "start_tokens": 4, "batch_rows": 4}
    targets = {**TASK["targets"], "limit": 8}
    settings = {"writer": "SYNTHESIS_WRITER_LOCAL", "local": local, "responses": "RESPONDER_NONE"}
    given = experiment(**settings, targets=targets)
    calm = run(given)
    rows = lines(calm, "synthetic.jsonl")
    assert rows
    assert all(len(row["messages"]) == 1 for row in rows)
    usage = summary(calm)["usage"]
    assert usage["output_tokens"] > 0
    assert usage["answers"] >= len(rows)

    folder, stops = RunFolder.create(calm.path.parent, given, "stopped"), 0
    for polls in (4, 9, 30, 60, 100, 10_000):
        try:
            run(given, folder, StopAfter(polls))
            break
        except RunStopped:
            stops += 1
    assert stops > 2
    for name in ("synthetic.jsonl", "rejected.jsonl", "random.jsonl", "ledger.jsonl", "coverage.csv"):
        assert (folder.artifacts / name).read_bytes() == (calm.artifacts / name).read_bytes()


def test_nobody_writes_questions_only(experiment, run) -> None:
    folder = run(experiment(writer="SYNTHESIS_WRITER_NONE"))
    rows = lines(folder, "prompts.jsonl")
    assert rows
    assert all([m["role"] for m in row["messages"]] == ["system", "user"] for row in rows)
    assert all("<<" in row["messages"][1]["content"] for row in rows)
    assert not (folder.artifacts / "synthetic.jsonl").exists()


def test_nothing_missing_is_no_failure(experiment, run) -> None:
    rows = {"source": "embedded-heldout", "skip": 20, "limit": 40}
    folder = run(experiment(seed_data=rows))
    found = summary(folder)
    assert (found["missing"], found["rows"], found["coverage"]["seed"]) == (0, 0, 1.0)
    assert lines(folder, "synthetic.jsonl") == []


# -- a chat server ---------------------------------------------------------------------------------------------------


class Script:
    """Stands for a language model: copies an excerpt where asked to write, judges by words, and has bad days."""

    def __init__(self, faults: bool = False, fail_after: int = 1 << 30) -> None:
        self.asked: list[str] = []
        self._faults, self.fail_after, self.failures = faults, fail_after, 0

    def __call__(self, request: dict, _: dict) -> tuple[int, dict, object]:
        system, user = (message["content"] for message in request["messages"])
        self.asked.append(f"{system}\n{user}")
        count = len(self.asked)
        if count > self.fail_after:
            self.failures += 1
            return 401, {}, b"out of money"
        if self._faults:
            trouble = {
                1: (429, {"retry-after": "0"}, b"later"),
                2: (500, {}, b"broken"),
                3: (200, {"content-length": "4000"}, b'{"choices": ['),
                4: (200, {}, b"<html>not json"),
            }
            if count % 9 in trouble:
                return trouble[count % 9]
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        message = {"role": "assistant", "content": self._said(system, user, count)}
        return 200, {}, {"choices": [{"message": message}], "usage": usage}

    def _said(self, system: str, user: str, count: int) -> str:
        if "how relevant" in system:
            return "0.9" if "keep" in user else "0.1"
        if "judge prompts" in system:
            return "harmful" if count % 2 else "benign"
        if "a rewrite of it" in system:
            return "yes"
        if "careful assistant" in system:
            return "I can’t help with that. Ask a doctor instead."
        if "helpful assistant" in system:
            return "Gladly."
        if "rewrite a prompt" in system:
            return "Please: " + user.split("<prompt>\n")[1].split("\n</prompt>")[0]
        if count % 5 == 0:
            return "I'm sorry, I can't write that."
        excerpts = [line.split(". ", 1)[1] for line in user.splitlines() if line[:1].isdigit() and ". " in line]
        # Something new each time, as a model does, so that equal texts are no matter of chance.
        return excerpts[len(user) % len(excerpts)].replace("<<", "").replace(">>", "")


def endpoint_task(url: str, **more: Any) -> dict[str, Any]:
    return {
        "writer": "SYNTHESIS_WRITER_ENDPOINT",
        "endpoint": {**ENDPOINT, "url": f"{url}/v1", "input_price": 1.0, "output_price": 5.0},
        "risk": "PROMPT_RISK_JUDGED",
        "responses": "RESPONDER_WRITER",
        "styles": [{"name": "fiction"}],
        "same_meaning": True,
        **more,
    }


@pytest.fixture
def no_waits(monkeypatch) -> None:
    # The default was bound when the class was made: time.sleep itself is too late to change.
    monkeypatch.setitem(ChatServer.__init__.__kwdefaults__, "sleep", lambda seconds: None)


def test_a_server_with_faults_writes_judges_and_responds(experiment, run, http_server, no_waits, counter) -> None:
    script = Script(faults=True)
    folder = run(experiment(**endpoint_task(http_server(script))))
    found, rows = summary(folder), lines(folder, "synthetic.jsonl")
    assert rows
    announced = {event.artifact.path for event in tail(folder.events) if event.HasField("artifact")}
    assert {"artifacts/answers.jsonl", "artifacts/ledger.jsonl"} <= announced
    # The tokens told while it works go on to the last try, untargeted ones included.
    told = [event.metrics.entries[0] for event in tail(folder.events) if event.HasField("metrics")]
    assert told[-1].step == told[-1].values["texts_tried"] == len(lines(folder, "ledger.jsonl"))
    assert [one.step for one in told] == sorted({one.step for one in told})
    for row in rows:
        peak_F = counter.peaks(row["messages"][0]["content"])
        assert float(peak_F[row["metadata"]["feature"]]) == pytest.approx(row["metadata"]["activation"], rel=1e-3)
        response, risk = row["messages"][1]["content"], row["metadata"]["risk"]
        assert response == ("I can’t help with that. Ask a doctor instead." if risk == "harmful" else "Gladly.")
    assert {row["metadata"]["risk"] for row in rows} == {"harmful", "benign"}
    assert found["rejected"]["writer refused"] > 0
    faults = found["usage"]["faults_of_this_attempt"]
    assert {"status 429", "status 500", "connection lost", "garbage"} == set(faults)
    # Every request that was answered well is paid for, and no other.
    assert found["usage"]["answers"] == found["usage"]["requests_of_this_attempt"] - sum(faults.values())
    assert found["usage"]["input_tokens"] == 10 * found["usage"]["answers"]
    assert found["usage"]["cost"] == pytest.approx(found["usage"]["answers"] * (10 * 1.0 + 2 * 5.0) / 1e6)
    texts = [row["messages"][0]["content"] for row in rows]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("after", [3, 12, 30])
def test_a_run_that_fails_midway_pays_for_nothing_twice(experiment, run, http_server, no_waits, after) -> None:
    script = Script(fail_after=after)
    endpoint = {**ENDPOINT, "url": f"{http_server(script)}/v1", "concurrency": 1}
    given = experiment(**endpoint_task("", endpoint=endpoint))
    calm_script = Script()
    calm_endpoint = {**ENDPOINT, "url": f"{http_server(calm_script)}/v1", "concurrency": 1}
    calm = run(experiment(**endpoint_task("", endpoint=calm_endpoint)))
    folder = RunFolder.create(calm.path.parent, given, f"failing-{after}")
    with pytest.raises(UserError) as caught:
        run(given, folder)
    assert caught.value.reason == "CHAT_SERVER_REFUSED"
    assert len((folder.artifacts / "answers.jsonl").read_text().splitlines()) == after
    script.fail_after = 1 << 30
    paid = len(script.asked) - script.failures
    run(given, folder)
    answers = lines(folder, "answers.jsonl")
    assert len(script.asked) - script.failures == len(answers), "every answer was asked for once"
    assert len({row["key"] for row in answers}) == len(answers)
    assert paid == after
    usage = summary(folder)["usage"]
    # What the first attempt paid for is still counted, though verdicts built on it need no answer any more.
    assert (usage["of_them_from_before"], usage["answers"]) == (after, len(answers))
    assert usage["input_tokens"] == 10 * len(answers)
    ledger = lines(folder, "ledger.jsonl")
    assert len({row["key"] for row in ledger}) == len(ledger)
    texts = [row["messages"][0]["content"] for row in lines(folder, "synthetic.jsonl")]
    assert texts
    assert len(set(texts)) == len(texts)


def records(sae_folder: Path) -> list[SaeRecord]:
    from qscope.features.encoders import load_encoders, sae_record

    loaded = load_model("embedded", ModelOptions())
    saes = load_encoders(sae_folder, [1, LAYER], loaded.facts, device=torch.device("cpu"))
    return [sae_record(sae) for sae in saes.values()]


def explanations(tmp_path: Path, sae_folder: Path) -> Path:
    found = ExplanationSet(model="embedded", sae_records=records(sae_folder))
    for feature in range(6):
        label = f"keep {feature}" if feature % 2 else f"other {feature}"
        found.explanations.append(
            Explanation(layer=LAYER, feature=feature, label=label, balanced_accuracy=0.5 + feature / 10)
        )
    write_message(tmp_path / "explanations.json", found)
    return tmp_path / "explanations.json"


def test_targets_by_score_words_and_topic(experiment, run, http_server, no_waits, tmp_path, sae_folder) -> None:
    path = explanations(tmp_path, sae_folder)

    def chosen(**targets: Any) -> list[str]:
        base = {"explanations": str(path), "relevance": 0.5, "min_texts": 2, "max_share": 0.5}
        more = endpoint_task(http_server(Script()), targets={**base, **targets})
        return [row["target"] for row in table(run(experiment(**more)), "targets.csv")]

    assert chosen(min_score=0.75) == [f"{LAYER}/{f}" for f in (5, 4, 3)]
    assert chosen(words=["KEEP"]) == [f"{LAYER}/{f}" for f in (5, 3, 1)]
    assert sorted(chosen(topic="safety")) == [f"{LAYER}/{f}" for f in (1, 3, 5)]
    assert chosen(min_score=0.75, limit=1) == [f"{LAYER}/5"]
    assert chosen(features=[f"{LAYER}/0"], words=["keep 5"]) == [f"{LAYER}/0", f"{LAYER}/5"]


def test_targets_of_a_contrast(experiment, run, tmp_path, sae_folder) -> None:
    found = FeatureSet(kind="contrast", model="embedded", model_record=ModelRecord(name="embedded"))
    found.sae_records.extend(records(sae_folder))
    found.entries.extend(FeatureEntry(layer=LAYER, feature=feature, score=feature, label="x") for feature in (3, 9))
    save_features(found, tmp_path)
    targets = {**TASK["targets"], "feature_set": str(tmp_path)}
    folder = run(experiment(targets=targets))
    assert [row["target"] for row in table(folder, "targets.csv")] == [f"{LAYER}/9", f"{LAYER}/3"]
    found.sae_records[1].fingerprint = "0" * 32
    save_features(found, tmp_path)
    with pytest.raises(UserError) as caught:
        run(experiment(targets=targets))
    assert caught.value.reason == "FEATURES_OF_ANOTHER_SAE"


def named(**targets: Any) -> dict[str, Any]:
    return {"targets": {**TASK["targets"], **targets}}


@pytest.mark.parametrize(
    ("changes", "reason", "field", "sentence"),
    [
        (named(features=["9/1"]), "SAE_LAYER_MISSING", "synthesize.targets", "There is no SAE of layer 9"),
        (named(features=["3/1"]), "SAE_LAYER_MISSING", "synthesize.targets", "There is no SAE of layer 3"),
        (
            {"targets": {**TASK["targets"], "features": ["4/999"]}},
            "FEATURE_OUT_OF_RANGE",
            "synthesize.targets.features",
            "There is no feature 4/999",
        ),
        (named(min_texts=41), "NO_TARGETS", "synthesize.reference", ""),
        (
            {"targets": {**TASK["targets"], "explanations": "nowhere/x"}},
            "EXPLANATIONS_NOT_FOUND",
            "synthesize.targets.explanations",
            "",
        ),
        ({"templates": ["{colour}"]}, "TEMPLATE_COLUMN", "synthesize.templates[0]", "which no feature has"),
        (
            {"styles": [{"name": "unheard_of"}]},
            "STYLE_UNKNOWN",
            "synthesize.styles[0].name",
            "There is no style called 'unheard_of'",
        ),
        (
            {"seed_data": {"source": "none.jsonl"}},
            "TEXT_NOT_FOUND",
            "synthesize.seed_data.source",
            "no text file found there",
        ),
        (
            {"seed_data": {"source": "empty.jsonl"}},
            "BENCHMARK_EMPTY",
            "synthesize.seed_data.source",
            "'seed_data' has no item that can be used",
        ),
        ({"seed_data": {"source": "embedded-heldout", "limit": 1, "prompt": "{z}"}}, "BENCHMARK_EMPTY", None, ""),
        ({"natural": {"source": "embedded-heldout", "skip": 10**6}}, "TEXTS_SKIPPED", "synthesize.natural.skip", ""),
        ({"reference": {"source": "embedded-heldout", "limit": 1}}, "NO_TARGETS", "synthesize.reference", ""),
        (
            {
                "writer": "SYNTHESIS_WRITER_LOCAL",
                "local": {"model": "elsewhere", "steer": 1, "sampling": SAMPLING, "batch_rows": 1, "start_tokens": 1},
            },
            "WRITER_NOT_STEERABLE",
            "synthesize.local.steer",
            "",
        ),
    ],
)
def test_mistakes_are_one_sentence_at_their_place(
    experiment, run, tmp_path, monkeypatch, changes, reason, field, sentence
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text("")
    with pytest.raises(UserError) as caught:
        run(experiment(**changes))
    assert caught.value.reason == reason, str(caught.value)
    assert field is None or caught.value.field == field
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.remedy


def test_features_that_nothing_shows_are_told_and_cost_no_more_than_their_tries(experiment, run) -> None:
    folder = run(experiment(reference=None, **named(features=[f"{LAYER}/{feature}" for feature in range(12)])))
    found = summary(folder)
    assert found["missing"] > 0
    # Two templates; the third try finds nothing else to try.
    assert found["rejected"] == {"template unfilled": 2 * found["missing"], "no material": found["missing"]}
    assert found["rows"] == 0
    assert found["coverage"]["targeted"] == found["coverage"]["seed"] == found["coverage"]["natural"]["coverage"]
    told = [event.log.text for event in tail(folder.events) if event.HasField("log")]
    missing = found["missing"]
    assert any(text.startswith(f"{missing} of {missing} missing features have no excerpt") for text in told)


def test_first_tries_are_counted_where_they_are_fewer_than_the_rows() -> None:
    """A first try that the server lost has no text, though another one was kept."""
    target = Target(LAYER, 7)
    slots = {name: Slot(name, 0, target) for name in ("a", "b")}
    tried = [Verdict("a", 0, "", "writer failed"), Verdict("b", 0, "y", fired=(9,))]
    tried.append(Verdict("a", 1, "x", fired=(target.key,)))
    counts = FiringCounts({LAYER: 8})
    outcome = Outcome([target], [0], counts, slots, tried, tried[1:], [Response("benign")] * 2, [])
    _compare(SimpleNamespace(seed_for=len), Synthesize(), Material([], counts, [target], [0], []), outcome)
    assert (outcome.first_tries, outcome.unverified, outcome.targeted[-1]) == (1, 0.0, 1.0)
    told = [" ".join(line.split()) for line in synthesis_lines(outcome)]
    assert "with first tries, unchecked 1 0.0%" in told
    assert "with targeted texts 2 0 100.0%" in told


def test_baselines_have_the_budget_of_the_rows_and_not_of_texts_without_a_response() -> None:
    target = Target(LAYER, 7)
    kept = [Verdict(name, 0, name, fired=(target.key,)) for name in "ab"]
    counts = FiringCounts({LAYER: 8})
    responses = [Response("benign"), Response("benign", reason="response refuses")]
    slots = {name: Slot(name, 0, target) for name in "ab"}
    outcome = Outcome([target], [0], counts, slots, kept, kept, responses, kept)
    _compare(SimpleNamespace(seed_for=len), Synthesize(draws=2), Material([], counts, [target], [0], []), outcome)
    assert outcome.sizes == outcome.drawn["random"].size_S.tolist() == [0, 1]


class SecondThoughts:
    """Repeats the seed text at first, then says something of its own."""

    at_once = 4

    def write(self, briefs: Sequence[Brief]) -> list[Draft]:
        return [Draft(f"{brief.slot} speaks" if brief.attempt else "The seed text") for brief in briefs]


class OneFires:
    """One feature fires in everything, and one by the name of the slot."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def read(self, texts: Sequence[str]) -> list[Fired]:
        return [
            Fired(np.array([7, 100 + sum(map(ord, text))]), np.ones(2, np.float32), np.ones(2, int), np.arange(3))
            for text in texts
        ]


@pytest.mark.parametrize("aimed", [True, False])
def test_aimed_or_not_no_seed_text_is_repeated_and_every_text_has_its_tries(tokenizer, tmp_path, aimed) -> None:
    target, counts = Target(0, 7), FiringCounts({0: 8})
    material = Material(["the seed text"], counts, [target], [0], [])
    context = SimpleNamespace(
        artifacts=tmp_path,
        stop_requested=False,
        seed_for=len,
        info=str,
        progress=lambda *_: None,
        metrics=lambda *_: None,
    )
    task = Synthesize(per_feature=2, attempts=2, max_overlap=1, responses="RESPONDER_NONE")
    writing, reader = Writing(SecondThoughts(), None, Usage()), OneFires(tokenizer)
    if aimed:
        outcome = _written(context, task, material, writing, reader, [])
        assert [one.text for one in outcome.kept] == ["0/7#0 speaks", "0/7#1 speaks"]
        assert reasons(outcome.verdicts) == {"same text": 2}
    else:
        task.random_baseline = True
        made = _random(context, task, material, writing, reader, Ledger(tmp_path / "l"), [], 2)
        assert [one.text for one in made] == ["random#0 speaks", "random#1 speaks"]


def test_the_plan_counts_texts_and_says_who_writes(experiment, tmp_path) -> None:
    facts = {fact.name: fact.value for fact in plan(experiment(), str(tmp_path), timed=False).facts}
    assert facts["seed data"].startswith("3 texts")
    assert facts["reference"].startswith("40 texts")
    assert facts["writer"] == "2 templates"


def test_a_set_without_features_is_told_as_what_it_is(experiment, tmp_path, run) -> None:
    save_features(FeatureSet(kind="contrast", model="embedded"), tmp_path / "empty")
    given = experiment(targets={**TASK["targets"], "feature_set": str(tmp_path / "empty")})
    for go in (run, lambda one: plan(one, str(tmp_path), timed=False)):
        with pytest.raises(UserError) as caught:
            go(given)
        assert (caught.value.reason, caught.value.field) == ("FEATURES_EMPTY", "synthesize.targets.feature_set")


def test_a_resumed_run_keeps_the_targets_it_began_with(experiment, run, tmp_path, sae_folder) -> None:
    runs = tmp_path / "runs"
    for number in (3, 5):
        folder = RunFolder.create(runs, experiment(), f"explained-{number}")
        found = FeatureSet(kind="contrast", model="embedded", model_record=ModelRecord(name="embedded"))
        found.sae_records.extend(records(sae_folder))
        found.entries.add(layer=LAYER, feature=number, score=1, label="x")
        save_features(found, folder.artifacts)
        if number == 3:
            begun = run(experiment(targets={**TASK["targets"], "feature_set": "latest"}))
            first = (begun.artifacts / "targets.csv").read_bytes()
    # The newest set by now holds nothing, which a new run would be refused for.
    newest = RunFolder.create(runs, experiment(), "explained-none")
    save_features(FeatureSet(kind="contrast", model="embedded"), newest.artifacts)
    run(begun.experiment, begun)
    assert (begun.artifacts / "targets.csv").read_bytes() == first
    assert f"{LAYER}/3," in first.decode()
