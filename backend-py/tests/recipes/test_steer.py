"""``qscope steer FILE`` from experiment to artifacts, on the embedded model and plain vectors: no SAE is needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from google.protobuf import json_format

from qscope.errors import UserError
from qscope.recipes import steer, steer_costs
from qscope.recipes.plan import plan
from qscope.runs import Journal, RunContext, RunFolder, RunStopped, tail
from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.steering import session
from qscope.steering.capability import FoundTasks, TaskScore
from qscope.v1 import inference_pb2
from qscope.v1.experiment_pb2 import Experiment

EDIT = {
    "layers": [3],
    "vector": [1.0] * 128,
    "strength": 4.0,
    "op": "STEERING_OP_ADD",
    "unit": "STRENGTH_UNIT_RAW",
    "top": 1,
}
#: A place that no prompt of these tests reaches.
NOWHERE = {"where": {"phase": "PHASE_PROMPT", "only": {"positions": [50]}}}
SPEC = {"conflict": "CONFLICT_SUM"}


@pytest.fixture
def experiment() -> Callable[..., Experiment]:
    """``experiment(edit={}, **changes)``: one that steers two prompts with a plain vector."""

    def make(edit: dict[str, Any] | None = None, **changes: Any) -> Experiment:
        edits = [{**EDIT, "where": {"phase": "PHASE_ALL"}, **(edit or {})}]
        fields = {
            "sae": "latest",
            "prompts": ["The file", "Die Datei"],
            "steering": {**SPEC, "edits": edits},
            "sampling": {"max_tokens": 4, "temperature": 0, "top_p": 1},
            "samples": 1,
            "batch_rows": 2,
            "side_effects": {"tokens": 0},
            **changes,
        }
        whole = {"name": "x", "model": "embedded", "model_options": {"precision": "PRECISION_FLOAT32"}, "steer": fields}
        return json_format.ParseDict({**whole, "compute": {"device": "DEVICE_CPU", "threads": 1}}, Experiment())

    return make


@pytest.fixture
def create(tmp_path) -> Callable[[Experiment], RunFolder]:
    return lambda given: RunFolder.create(tmp_path / "runs", given, "request")


def attempt(folder: RunFolder, is_stopping: Callable[[], bool] = lambda: False) -> None:
    """One attempt of a run; the next one goes on where it ended."""
    with Journal(folder.events) as journal:
        context = RunContext(folder, journal, is_stopping)
        steer.run(context)
        context.close()


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.artifacts / "generations.jsonl").read_bytes().splitlines()]


def logged(folder: RunFolder) -> list[str]:
    return [event.log.text for event in tail(folder.events) if event.HasField("log")]


def test_a_spec_that_changes_nothing_fails_again_when_the_run_is_resumed(experiment, create) -> None:
    folder = create(experiment(NOWHERE))
    messages = []
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            attempt(folder)
        assert (caught.value.reason, caught.value.field) == ("NOTHING_STEERED", "steer.steering")
        messages.append(caught.value.message)
    assert len(rows_of(folder)) == 4, "the texts themselves are kept"
    assert "No token was selected" in messages[0]
    assert "None of the 2 texts of steered x 1" in messages[1]
    assert not (folder.artifacts / "steering.json").exists()


def swept(monkeypatch, silent: Callable[[str, float], bool]) -> Callable[[RunFolder], None]:
    """An attempt in which some arms claim that they changed nothing."""
    batch = steer._batch

    def claimed(*arguments):
        rows, why = batch(*arguments)
        for row in rows:
            if silent(row["arm"], row["factor"]):
                row["changed_positions"] = 0
                why = UserError("Silent.", remedy="", reason="NOTHING_STEERED", field="steer.steering")
        return rows, why

    monkeypatch.setattr(steer, "_batch", claimed)
    return attempt


def test_a_sweep_goes_on_over_strengths_that_change_nothing_and_tells_each(experiment, create, monkeypatch) -> None:
    factors, controls = [-1, 0, 0.5, 1], ["STEERING_CONTROL_FLIPPED"]
    run = swept(monkeypatch, lambda arm, factor: factor == 1 or (arm, factor) == ("flipped", 0.5))
    folder = create(experiment(sweep=factors, controls=controls))
    for _ in range(2):
        run(folder)
        arms = json.loads((folder.artifacts / "steering.json").read_text())["arms"]
        assert len(arms) == 1 + 2 * len(factors)
    told = [text.split(" changed none")[0] for text in logged(folder) if "changed none of its texts" in text]
    # Once in either attempt; factor 0 asks for nothing.
    assert told == ["steered x 1", "flipped x 0.5", "flipped x 1"] * 2


def test_a_sweep_fails_when_no_strength_changes_anything_also_when_resumed(experiment, create, monkeypatch) -> None:
    run = swept(monkeypatch, lambda arm, factor: True)
    folder = create(experiment(sweep=[0.5, 1, 0], controls=["STEERING_CONTROL_FLIPPED"]))
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            run(folder)
        assert caught.value.reason == "NOTHING_STEERED"
    assert {row["arm"] for row in rows_of(folder)} == {"unsteered", "steered"}


def test_resuming_makes_only_the_texts_that_are_missing(experiment, create, monkeypatch) -> None:
    folder = create(experiment())
    attempt(folder)
    path = folder.artifacts / "generations.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    made = []
    batch = steer._batch

    def counted(*arguments):
        made.extend((cell.arm.name, cell.prompt) for cell in arguments[3])
        return batch(*arguments)

    monkeypatch.setattr(steer, "_batch", counted)
    # The third line was damaged on the disk, the last one cut off by a kill.
    path.write_bytes(lines[0] + lines[1] + b"\x00" * 20 + b"\n" + lines[3][:-9])
    attempt(folder)
    assert made == [("steered", 0), ("steered", 1)]
    assert any("1 damaged lines in generations.jsonl" in text for text in logged(folder))
    kept = path.read_bytes().splitlines(keepends=True)
    assert [kept[0], kept[1], *kept[3:]] == lines


NEUTRAL = {
    "tokens": 32,
    "text": {"source": "embedded-heldout", "field": "text", "split": "train", "context": 16, "pack": True},
}
OPS = {name: f"STEERING_OP_{name}" for name in ("ADD", "SET", "SCALE", "CLAMP_MIN", "CLAMP_MAX", "ZERO", "NEGATE")}


@pytest.mark.parametrize(("op", "expected"), [*((op, op in ("ADD", "SCALE", "CLAMP_MIN")) for op in OPS)])
def test_factor_0_is_the_unsteered_text_for_some_operations(experiment, op, expected) -> None:
    spec = experiment({"op": OPS[op]}).steer.steering
    assert steer._begins_unsteered(spec) is expected
    spec.edits.add().op = OPS["ADD"]
    assert steer._begins_unsteered(spec) is expected
    spec.abort_when.add()
    assert not steer._begins_unsteered(spec)


@pytest.mark.parametrize(("positions", "changed"), [([], 60), ([8], 0)])
def test_a_cost_that_means_nothing_is_left_out_or_warned_of(experiment, create, positions, changed) -> None:
    """The prompt half of a neutral sequence has 8 tokens, so nothing in it is the ninth of a prompt."""
    edit = {"where": {"phase": "PHASE_ALL", "only": {"positions": positions}}}
    prompts = ["The installation guide describes how to install the package on a server"]
    more = {"controls": ["STEERING_CONTROL_PROMPT"], "baselines": {"prompt_prefix": "In German: "}}
    folder = create(experiment(edit, prompts=prompts, side_effects=NEUTRAL, **more))
    attempt(folder)
    arms = json.loads((folder.artifacts / "steering.json").read_text())["arms"]
    found = {arm["arm"]: arm.get("neutral_changed_positions") for arm in arms}
    assert found == {"unsteered": 0, "steered": changed, "prompt": None}
    assert not {"kl", "perplexity_ratio"} & set(arms[-1]), "what stands before the prompts is not in the neutral text"
    warned = [text for text in logged(folder) if "changed nothing in the neutral text" in text]
    assert [text.split(" changed")[0] for text in warned] == ([] if changed else ["steered x 1"])
    assert any(text.startswith(("Texts change from 1 times on", "No text changes")) for text in logged(folder))


def test_a_resumed_run_keeps_its_saes_and_makes_texts_of_other_steering_again(experiment, create, tmp_path) -> None:
    def train(seed: int) -> str:
        """A run with a random SAE of layer 3, the newest there is."""
        generator = torch.Generator().manual_seed(seed)
        matrices = [torch.nn.functional.normalize(torch.randn(64, 128, generator=generator), dim=1) for _ in range(2)]
        sae = TopKSae(matrices[0], torch.zeros(64), matrices[1], torch.zeros(128), k=8, layer=3)
        trained = RunFolder.create(tmp_path / "runs", experiment(), f"training {seed}")
        formats.save({3: sae}, trained.artifacts / "sae", ["native"], {})
        return trained.path.name

    def arm_of(folder: RunFolder) -> list[dict[str, Any]]:
        return [row for row in rows_of(folder) if row["arm"] == "steered"]

    old = train(0)
    folder = create(experiment({"vector": [], "features": [5], "strength": 40.0}))
    attempt(folder)
    first = arm_of(folder)
    new = train(1)
    # The run was cut off before its second batch; the newest SAEs are others by now.
    path = folder.artifacts / "generations.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    attempt(folder)
    assert arm_of(folder) == first
    # The folder of runs may be moved as a whole.
    (tmp_path / "runs").rename(tmp_path / "moved")
    folder = RunFolder(tmp_path / "moved" / folder.path.name)
    attempt(folder)
    assert arm_of(folder) == first
    assert not any("other steering" in text for text in logged(folder))
    # What the pin points to was replaced: its texts are made again, the unsteered ones are not.
    saes = [tmp_path / "moved" / name / "artifacts" / "sae" for name in (old, new)]
    shutil.rmtree(saes[0])
    shutil.copytree(saes[1], saes[0])
    attempt(folder)
    assert any("2 texts in generations.jsonl were made under other steering" in text for text in logged(folder))
    assert len(rows_of(folder)) == 4
    assert {row["spec"] for row in arm_of(folder)}.isdisjoint({row["spec"] for row in first})


def streamed(folder: RunFolder) -> dict[tuple[str, int], tuple[str, str]]:
    """Text and ending of the same rows from the warm model, by arm and prompt."""
    task = folder.experiment.steer
    with Journal(folder.events) as journal:
        context = RunContext(folder, journal)
        noise = [context.seed_for(f"noise {prompt} 0") for prompt in range(len(task.prompts))]
    found = {}
    for arm, spec in (("unsteered", type(task.steering)()), ("steered", task.steering)):
        request = inference_pb2.GenerateRequest(
            model="embedded",
            model_options=folder.experiment.model_options,
            compute=folder.experiment.compute,
            format=task.format,
            sampling=task.sampling,
            rows=[
                {"prompt": text, "noise": number, "steering": spec}
                for text, number in zip(task.prompts, noise, strict=True)
            ],
        )
        texts, ends = [""] * len(noise), [""] * len(noise)
        for message in session.generate(session.WarmModel(), request, lambda name: name):
            for delta in message.step.rows:
                texts[delta.row] += delta.text
            if message.HasField("row_ended"):
                name = inference_pb2.EndReason.Name(message.row_ended.reason)
                ends[message.row_ended.row] = name.removeprefix("END_REASON_").lower()
        found |= {(arm, row): (texts[row], ends[row]) for row in range(len(noise))}
    return found


@pytest.mark.parametrize("stop", [[], [" a", " i", "\n", "er"]])
def test_a_recorded_text_is_the_streamed_one_and_ends_before_its_stop_text(experiment, create, stop) -> None:
    sampling = {"max_tokens": 24, "temperature": 1, "top_p": 1, "stop": stop}
    folder = create(experiment(sampling=sampling, prompts=["The file", "Die Datei", "If you want to"]))
    attempt(folder)
    rows = rows_of(folder)
    assert {(row["arm"], row["prompt"]): (row["text"], row["ended"]) for row in rows} == streamed(folder)
    stopped = [row for row in rows if row["ended"] == "stop_text"]
    assert bool(stopped) == bool(stop)
    for row in stopped:
        assert not any(text in row["text"] for text in stop)
        assert row["tokens"] < 24


def test_tokens_of_a_text_are_as_few_as_hold_it(tokenizer) -> None:
    ids = tokenizer("The Übersicht lists 日本語 files")["input_ids"]
    whole = tokenizer.decode(ids)
    for length in range(len(whole) + 1):
        few = steer.tokens_of(tokenizer, ids, whole[:length])
        assert tokenizer.decode(few).startswith(whole[:length])
        assert not few or not tokenizer.decode(few[:-1]).startswith(whole[:length])


def classes(tokens: int) -> dict[str, Any]:
    text = {**NEUTRAL["text"], "repeat": True}
    texts = {
        name: {**text, "where": f"language={language}"} for name, language in (("positives", "de"), ("negatives", "en"))
    }
    return {**texts, "tokens": tokens, "latents": 4}


def test_the_difference_of_means_needs_no_sae_and_the_denoised_one_does(experiment, create, tmp_path) -> None:
    more = {"sae": str(tmp_path / "none"), "baselines": classes(100)}
    folder = create(experiment(controls=["STEERING_CONTROL_DIFF_IN_MEANS"], **more))
    attempt(folder)
    assert [row["arm"] for row in rows_of(folder)][::2] == ["unsteered", "steered", "diff_in_means"]
    phases = [event.progress.phase for event in tail(folder.events) if event.HasField("progress")]
    assert {"reading positives", "reading negatives"} <= set(phases)


def test_reading_the_classes_obeys_a_stop(experiment, create) -> None:
    folder = create(experiment(controls=["STEERING_CONTROL_DIFF_IN_MEANS"], baselines=classes(100_000_000)))
    with pytest.raises(RunStopped):
        attempt(folder, is_stopping=lambda: True)
    assert not (folder.artifacts / "generations.jsonl").exists()


@pytest.mark.parametrize(
    ("edit", "changes", "reason", "field"),
    [
        (
            {"where": {"phase": "PHASE_ALL", "only": {"tokens": ["several words here"]}}},
            {},
            "NOT_ONE_TOKEN",
            "steer.steering.edits[0].where.only.tokens[0]",
        ),
        (
            {},
            {"controls": ["STEERING_CONTROL_PROMPT"], "baselines": {"prompt_prefix": "In German: " * 400}},
            "CONTEXT_EXCEEDED",
            "steer.baselines.prompt_prefix",
        ),
    ],
)
def test_mistakes_are_found_before_any_text_is_made(experiment, create, edit, changes, reason, field) -> None:
    folder = create(experiment(edit, **changes))
    with pytest.raises(UserError) as caught:
        attempt(folder)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert not (folder.artifacts / "generations.jsonl").exists()


class Tasks:
    """Stands for the harness: says what it was asked to measure, and gives scores for it.

    Args:
        changed: positions it claims were changed, in every arm.
    """

    def __init__(self, monkeypatch, changed: int = 8) -> None:
        self.measured: list[tuple[str, str]] = []
        self.fail_at: int | None = None
        self._changed = changed
        monkeypatch.setattr(steer, "find_tasks", lambda wanted, seed: FoundTasks(None, {}, "1.0"))
        monkeypatch.setattr(steer_costs, "measure_task", self.measure)

    def measure(self, loaded, spec, saes, name, found, wanted, **options) -> list[TaskScore]:
        if len(self.measured) == self.fail_at:
            raise MemoryError("no room on the device")
        self.measured.append((spec.hash, name))
        options["on_progress"](1, 2)
        changed = 0 if spec.changes_nothing else self._changed
        return [TaskScore(name, "acc", len(self.measured) / 10, None, 12, changed, 3)]


def tasks_of(folder: RunFolder) -> list[list[float]]:
    arms = json.loads((folder.artifacts / "steering.json").read_text())["arms"]
    return [[score["value"] for score in arm["tasks"]] for arm in arms if "tasks" in arm]


def test_scores_of_tasks_outlive_what_stops_the_run(experiment, create, monkeypatch) -> None:
    tasks = Tasks(monkeypatch)
    folder = create(experiment(capability={"tasks": ["a", "b"], "limit": 12}, controls=["STEERING_CONTROL_ZERO"]))
    tasks.fail_at = 3
    with pytest.raises(MemoryError):
        attempt(folder)
    assert not (folder.artifacts / "steering.json").exists()
    tasks.fail_at = None
    attempt(folder)
    assert len(tasks.measured) == len(set(tasks.measured)) == 6
    assert tasks_of(folder) == [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    artifacts = [event.artifact.path for event in tail(folder.events) if event.HasField("artifact")]
    assert "artifacts/task-scores.jsonl" in artifacts
    assert len([text for text in logged(folder) if text.startswith("3 requests of a are longer")]) == 1


def test_a_spec_that_leaves_a_task_alone_is_told_and_reported(experiment, create, monkeypatch) -> None:
    Tasks(monkeypatch, changed=0)
    folder = create(experiment(capability={"tasks": ["a"]}))
    attempt(folder)
    (warning,) = [text for text in logged(folder) if "changed nothing" in text]
    assert warning.startswith("steered x 1 changed nothing in the requests of a")
    arms = json.loads((folder.artifacts / "steering.json").read_text())["arms"]
    assert [arm["tasks"][0]["changed_positions"] for arm in arms] == [0, 0]
    assert arms[0]["tasks"][0]["stderr"] is None


def test_tasks_are_not_run_for_a_text_before_the_prompt_and_the_run_says_so(experiment, create, monkeypatch) -> None:
    tasks = Tasks(monkeypatch)
    baselines = {"prompt_prefix": "In German: "}
    folder = create(experiment(capability={"tasks": ["a"]}, controls=["STEERING_CONTROL_PROMPT"], baselines=baselines))
    attempt(folder)
    assert len(tasks.measured) == 2
    assert "tasks are run in every arm but prompt" in logged(folder)


def test_the_plan_counts_the_memory_of_tasks_and_names_the_arms(experiment, tmp_path) -> None:
    alone = plan(experiment(), str(tmp_path), timed=False)
    controls = ["STEERING_CONTROL_PROMPT"]
    tasks = plan(experiment(capability={"tasks": ["a"]}, controls=controls), str(tmp_path), timed=False)
    more = {item.name: item.bytes for item in tasks.memory}
    assert set(more) - {item.name for item in alone.memory} == {
        "cache of one batch of tasks, at most",
        "logits of one batch of tasks",
    }
    assert tasks.memory_bytes > alone.memory_bytes
    assert {fact.name: fact.value for fact in tasks.facts}["tasks"] == "a, in every arm but prompt"
