"""``qscope rl`` through its recipe: what it writes, controls, graders that fail, kills and stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import json_format
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from qscope.errors import UserError
from qscope.posttraining.rl_trainer import RlTrainer
from qscope.recipes.plan import plan
from qscope.runs import RunFolder, RunStopped, tail
from qscope.sae import formats
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.run_event_pb2 import LOG_LEVEL_WARNING
from tests.steering.conftest import sae_of

STEPS = 4


@pytest.fixture(scope="module")
def tiny_saes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-saes") / "sae"
    formats.save({layer: sae_of(layer) for layer in (1, 2)}, folder, ["native"], {})
    return folder / "native"


@pytest.fixture
def experiment(tiny_folder: Path, tmp_path: Path, tiny_saes: Path) -> Callable[..., Experiment]:
    """``experiment(path__to__field=value)``: a small run, every default filled in as the command line would."""
    rows = tmp_path / "prompts.jsonl"
    rows.write_text("".join(json.dumps({"question": f"{n} and {n + 1}", "answer": str(n)}) + "\n" for n in range(9)))
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps({"question": f"the {n}", "answer": "7"}) + "\n" for n in range(5)))

    def make(**changes: Any) -> Experiment:
        task: dict[str, Any] = {
            "prompts": {"source": str(rows), "prompt": "{question}", "answer": "{answer}"},
            "format": {"thinking": "THINKING_OFF"},
            "group_size": 4,
            "prompts_per_step": 2,
            "steps": STEPS,
            "iterations": 1,
            "micro_batch_rows": 4,
            "sampling": {"temperature": 1, "top_p": 1, "max_tokens": 70, "ignore_end": True},
            "epsilon_low": 0.2,
            "epsilon_high": 0.28,
            "dual_clip": 10,
            "advantage_std": "ADVANTAGE_STD_UNBIASED",
            "overlong": {"mode": "OVERLONG_MODE_NONE"},
            "importance_correction": {"mode": "IMPORTANCE_MODE_NONE", "cap": 3},
            "rewards": [
                {"kind": "GRADER_KIND_REGEX", "pattern": "[a-g]{2}", "weight": 1},
                {"kind": "GRADER_KIND_REPETITION", "ngram": 3, "weight": 2},
            ],
            "graders": {"processes": 1, "seconds": 30},
            "sae_penalty": {
                "mode": "SAE_PENALTY_MODE_RARE_NEGATIVE",
                "sae": str(tiny_saes),
                "rare_negative": {
                    "source": "RARE_NEGATIVE_SOURCE_PASTED",
                    "features": ["1/5"],
                    "top_k": 1,
                    "strength": 0,
                    "per_group": 1,
                    "max_tokens": 70,
                    "stop_after_loops": 8,
                    "verify": True,
                    "on_miss": "ON_MISS_DROP",
                    "ratio": "STEERED_RATIO_UNSTEERED",
                    "advantage": "ADVANTAGE_BASELINE_SEPARATE",
                    "calibrate": {"prompts": 4, "strengths": [0.5, 1], "loop_rate": 0.8, "floor": 0.5},
                },
                "reward": {"top_k": 1, "weight": 0.1, "threshold_rows": 4},
            },
            "trainable": {"method": "TRAIN_METHOD_FULL", "lora": {"rank": 2, "alpha": 4, "merge": True}},
            "optimizer": {"learning_rate": 1e-2, "decay": "LEARNING_RATE_DECAY_CONSTANT", "beta1": 0.9, "beta2": 0.999,
                          "max_grad_norm": 1},
            "evaluate": {"prompts": {"source": str(held), "prompt": "{question}", "answer": "{answer}"}},
            "rollouts": {"every_steps": 1, "groups": 1},
            "checkpoint": {"keep": 2},
            "metrics": {"every_steps": 1},
            "alarms": {"patience": 1, **{name: "ALARM_ACTION_OFF" for name in (
                "dead_signal", "zero_reward_std", "all_truncated", "collapse", "grader_failures")},
                "grader_failure_share": 0.2},
        }  # fmt: skip
        for path, value in changes.items():
            *parents, name = path.replace("rare__", "sae_penalty__rare_negative__").split("__")
            place = task
            for parent in parents:
                place = place.setdefault(parent, {})
            place[name] = value
        fields = {"name": "x", "seed": 3, "model": str(tiny_folder), "compute": {"device": "DEVICE_CPU", "threads": 1}}
        return json_format.ParseDict({**fields, "rl": task}, Experiment())

    return make


def rollouts(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in (folder.artifacts / "rollouts.jsonl").read_text().splitlines()]


def series(folder: RunFolder, name: str) -> dict[int, float]:
    events = tail(folder.events)
    return {
        entry.step: entry.values[name]
        for event in events
        if event.HasField("metrics")
        for entry in event.metrics.entries
        if name in entry.values
    }


def warnings(folder: RunFolder) -> list[str]:
    return [
        event.log.text
        for event in tail(folder.events)
        if event.HasField("log") and event.log.level == LOG_LEVEL_WARNING
    ]


def weights(folder: RunFolder) -> dict[str, bytes]:
    return {
        name: part.numpy().tobytes()
        for name, part in load_file(folder.artifacts / "model" / "model.safetensors").items()
    }


STEERED = {"rare__source": "RARE_NEGATIVE_SOURCE_STEERED", "rare__strength": 2.0, "rare__on_miss": "ON_MISS_KEEP"}


def test_a_run_writes_a_model_its_record_its_rollouts_and_its_evaluations(run, experiment, tiny_folder):
    folder = run(experiment())
    model = AutoModelForCausalLM.from_pretrained(folder.artifacts / "model")
    before = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    record = json.loads((folder.artifacts / "training.json").read_text())
    assert record["steps"] == STEPS
    assert record["data"]["rows"] == 9
    evaluated = json.loads((folder.artifacts / "evaluation.json").read_text())
    assert [one["step"] for one in evaluated] == [0, STEPS]
    assert all(one["repeat_ratio"][3] == 5 for one in evaluated)
    # No grader looks at answers.
    assert all("accuracy" not in one for one in evaluated)
    rows = rollouts(folder)
    assert [(row["step"], row["sample"]) for row in rows] == [(s, p) for s in range(1, STEPS + 1) for p in range(4)]
    for step in range(1, STEPS + 1):
        group = [row for row in rows if row["step"] == step]
        assert [row["steered"] for row in group] == [False, False, False, True]
        assert group[3]["endless"]
        assert group[3]["loop"]
        assert len({row["prompt"] for row in group}) == 1
        for row in group:
            assert row["reward"] == pytest.approx(sum(row["reward_parts"].values()))
    report = json.loads((folder.artifacts / "report.json").read_text())
    assert "repeat ratio" in report["subtitle"]
    assert series(folder, "steered_loop_rate") == dict.fromkeys(range(1, STEPS + 1), 1.0)
    assert set(series(folder, "held_out_repeat_ratio")) == {0, STEPS}


@pytest.fixture
def killed(run, monkeypatch):
    """``killed(experiment, step)``: a run whose process vanishes right after a step was done, before its checkpoint."""

    class Killed(BaseException):
        pass

    real = RlTrainer.after_step

    def go(given: Experiment, at: int) -> RunFolder:
        seen: list[RunFolder] = []

        def dying(self, step: int) -> None:
            real(self, step)
            if step == at:
                seen.append(self.run_context.run)
                raise Killed

        monkeypatch.setattr(RlTrainer, "after_step", dying)
        with pytest.raises(Killed):
            run(given)
        monkeypatch.setattr(RlTrainer, "after_step", real)
        return seen[0]

    return go


CASES = {
    "pasted": {"evaluate__every_steps": 2},
    "steered, several updates": {**STEERED, "iterations": 2},
    "features that cost": {
        "sae_penalty__mode": "SAE_PENALTY_MODE_REWARD",
        "sae_penalty__reward": {"features": ["2/9", "1/3"], "top_k": 1, "weight": 0.5, "threshold_rows": 4},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_killed_it_ends_with_the_same_weights_rollouts_and_evaluations(case, run, killed, experiment):
    given = experiment(**CASES[case], checkpoint__every_steps=1)
    whole = run(given)
    # Every step of the trainer itself is killed in tests/posttraining/test_rl_resume.py.
    folder = killed(given, 3)
    run(given, folder)
    assert weights(folder) == weights(whole)
    assert rollouts(folder) == rollouts(whole)
    for name in ("evaluation.json", "thresholds.json"):
        if (whole.artifacts / name).exists():
            assert (folder.artifacts / name).read_bytes() == (whole.artifacts / name).read_bytes()


def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on(run, experiment):
    given = experiment(**STEERED, evaluate__prompts={})
    whole = run(given)
    folder = RunFolder.create(whole.path.parent, given, "again")
    asked = iter([False] * 2 + [True] * 100)
    with pytest.raises(RunStopped) as stopped:
        run(given, folder, lambda: next(asked))
    assert 0 < stopped.value.step < STEPS
    run(given, folder)
    assert weights(folder) == weights(whole)
    assert rollouts(folder) == rollouts(whole)


def test_asked_to_stop_while_it_looks_for_the_strength_it_leaves_at_once(run, experiment):
    given = experiment(**{**STEERED, "rare__strength": 0}, evaluate__prompts={})
    asked = iter([False] * 3 + [True] * 100)
    with pytest.raises(RunStopped) as stopped:
        run(given, None, lambda: next(asked))
    assert stopped.value.step == 0


def test_when_nothing_loops_the_run_ends_with_the_curve(run, experiment, tmp_path):
    with pytest.raises(UserError) as error:
        run(experiment(**{**STEERED, "rare__strength": 0}))
    assert error.value.reason == "STEERING_DOES_NOT_LOOP"
    assert "0.5: 0% of 4, 1: 0% of 4" in error.value.message
    [folder] = (tmp_path / "runs").glob("x-*")
    [found] = json.loads((folder / "artifacts" / "calibration.json").read_text())
    assert [one["strength"] for one in found["curve"]] == [0.5, 1.0]
    assert found["strength"] is None


def test_the_control_of_random_features_is_steered_by_others_that_fire_as_often(run, experiment):
    folder = run(experiment(**{**STEERED, "rare__source": "RARE_NEGATIVE_SOURCE_RANDOM_FEATURES"}))
    control = json.loads((folder.artifacts / "control-features.json").read_text())
    [row] = control["1"]
    assert row["instead_of"] == 5
    assert row["feature"] != 5
    assert row["rate"] > 0
    [signal] = json.loads((folder.artifacts / "training.json").read_text())["sae_signal"]
    assert (signal["features"], signal["drawn_instead"]) == ([5], [row["feature"]])
    named = run(experiment(**STEERED))
    [signal] = json.loads((named.artifacts / "training.json").read_text())["sae_signal"]
    assert (signal["layer"], signal["features"], signal["drawn_instead"]) == (1, [5], None)
    assert signal["median_norm"] > 0
    assert len(signal["sae_fingerprint"]) > 8
    steered = [[one["ids"] for one in rollouts(each) if one["steered"]] for each in (folder, named)]
    assert len(steered[0]) == len(steered[1]) == STEPS
    assert steered[0] != steered[1]


def test_features_that_cost_take_off_reward_and_the_run_warns(run, experiment):
    folder = run(experiment(**CASES["features that cost"]))
    assert any("punishes harmless repetition" in text for text in warnings(folder))
    parts = [row["reward_parts"]["sae_penalty"] for row in rollouts(folder)]
    assert all(part <= 0 for part in parts)
    assert min(parts) < 0
    thresholds = json.loads((folder.artifacts / "thresholds.json").read_text())
    assert [len(thresholds[layer]) for layer in ("1", "2")] == [1, 1]
    signal = json.loads((folder.artifacts / "training.json").read_text())["sae_signal"]
    assert [(one["layer"], one["thresholds"]) for one in signal] == [
        (layer, pytest.approx(thresholds[str(layer)])) for layer in (1, 2)
    ]


def test_adapters_are_trained_and_merged_into_a_model_that_loads(run, experiment, tiny_folder):
    folder = run(experiment(trainable={"method": "TRAIN_METHOD_LORA", "lora": {"rank": 2, "alpha": 4, "merge": True}}))
    model = AutoModelForCausalLM.from_pretrained(folder.artifacts / "model")
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_folder).parameters()
    )


# -- graders that fail -----------------------------------------------------------------------------------------------

BROKEN = """
import math, time

def grade(completion, row):
    kind = len(completion) % 4
    if kind == 0:
        raise RuntimeError("no")
    if kind == 1:
        return math.nan
    return float("a" in completion)

def hang(completion, row):
    if len(completion) % 3 == 0:
        while True:
            time.sleep(0.01)
    return 0.5
"""


@pytest.mark.parametrize(
    ("function", "seconds", "why"), [("grade", 30, {"raised", "not-finite"}), ("hang", 0.3, {"timeout"})]
)
def test_graders_that_raise_hang_or_say_nan_are_counted_and_the_run_goes_on(
    function, seconds, why, run, experiment, tmp_path
):
    path = tmp_path / "grader.py"
    path.write_text(BROKEN)
    rewards = [
        {"kind": "GRADER_KIND_PYTHON", "path": f"{path}:{function}", "weight": 1},
        {"kind": "GRADER_KIND_REPETITION", "ngram": 3, "weight": 1},
    ]
    options = {"rewards": rewards, "graders": {"processes": 2, "seconds": seconds}, "rollouts__groups": 2}
    folder = run(experiment(**options, steps=2, alarms__grader_failures="ALARM_ACTION_WARN"))
    rows = rollouts(folder)
    failed = [row for row in rows if row["not_graded"]]
    assert 0 < len(failed) < len(rows)
    assert {reason for row in failed for reason in row["not_graded"].values()} == why
    # Nothing is scored 0 in silence: no reward, no part in the loss.
    assert all(row["reward"] is None and not row["teaches"] and row["advantage"] == 0 for row in failed)
    assert all(row["reward_parts"]["python"] is None for row in failed)
    share = len([row for row in failed if row["step"] == 1]) / 8
    assert series(folder, "failed_python")[1] == pytest.approx(share)
    assert series(folder, "frac_ungraded")[1] == pytest.approx(share)
    assert any("could not be graded" in text for text in warnings(folder))
    with pytest.raises(UserError) as error:
        run(experiment(**options, steps=2, alarms__grader_failures="ALARM_ACTION_STOP"))
    assert error.value.reason == "ALARM_GRADER_FAILURES"
    assert f"python {len([row for row in failed if row['step'] == 1])} of 8" in error.value.message


def test_a_grader_that_cannot_be_loaded_is_refused_before_anything_is_generated(run, experiment, tmp_path):
    path = tmp_path / "grader.py"
    path.write_text("raise ImportError('nothing here')")
    rewards = [{"kind": "GRADER_KIND_PYTHON", "path": f"{path}:grade", "weight": 1}]
    with pytest.raises(UserError) as error:
        run(experiment(rewards=rewards))
    assert error.value.reason == "GRADER_BROKEN"


# -- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_shows_prompts_memory_and_what_is_done(experiment, tmp_path):
    planned = plan(experiment(), str(tmp_path), timed=True)
    facts = {fact.name: fact.value for fact in planned.facts}
    assert facts["steps"] == "4 of 8 rollouts (2 prompts x 4)"
    assert facts["rewards"] == "regex x 1, repetition x 2"
    assert facts["arm"] == "DAPO with rare negatives, pasted"
    assert "answered 2 times" in facts["held out"]
    assert [sample.right_answer for sample in planned.samples] == ["0", "1", "2"]
    assert planned.seconds > 0
    assert {"model", "gradients", "Adam moments"} <= {item.name for item in planned.memory}
    assert planned.fits


REGEX, ENDLESS = ({"kind": f"GRADER_KIND_{kind}", "pattern": "[", "weight": 1} for kind in ("REGEX", "ENDLESS"))
REFUSED = {
    "group_size": ({"group_size": 2}, "GROUP_TOO_SMALL", "rl.group_size"),
    "verify": ({**STEERED, "rare__verify": False}, "RARE_NEGATIVE_UNVERIFIED", "rl.sae_penalty.rare_negative.verify"),
    "rewards": ({"rewards": [REGEX]}, "NO_REPETITION_REWARD", "rl.rewards"),
    "greedy": ({"sampling__temperature": 0}, "GREEDY_ROLLOUTS", "rl.sampling.temperature"),
    "ranks": ({"prompts_per_step": 3}, "PROMPTS_NOT_DIVISIBLE", "rl.prompts_per_step"),
    "room": ({"sampling__max_tokens": 600}, "CONTEXT_EXCEEDED", "rl.sampling.max_tokens"),
    "clip": ({"dual_clip": 1.0}, "CLIP_BOUNDS", "rl.dual_clip"),
    "cache": ({"overlong": {"mode": "OVERLONG_MODE_SOFT", "cache": 71}}, "OVERLONG_CACHE", "rl.overlong.cache"),
    "pattern": ({"rewards": [REGEX, ENDLESS]}, "PATTERN_MALFORMED", "rl.rewards[0].pattern"),
    "weight": (
        {"sae_penalty__mode": "SAE_PENALTY_MODE_REWARD", "sae_penalty__reward": {"features": ["1/3"], "weight": 0}},
        "SAE_PENALTY_WEIGHT",
        "rl.sae_penalty.reward.weight",
    ),
    "layers": ({"trainable__layers": [9]}, "LAYER_OUT_OF_RANGE", "rl.trainable.layers[0]"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_by_the_plan(case, experiment, tmp_path):
    changes, reason, field = REFUSED[case]
    given = experiment(**changes)
    if case == "ranks":
        given.compute.processes = 2
    with pytest.raises(UserError) as error:
        plan(given, str(tmp_path), timed=False)
    assert (error.value.reason, error.value.field) == (reason, field)


def test_all_that_is_wrong_between_settings_is_told_at_once(experiment, tmp_path):
    given = experiment(**{**STEERED, "rare__verify": False, "rare__max_tokens": 20})
    with pytest.raises(UserError) as error:
        plan(given, str(tmp_path), timed=False)
    assert "not verified" in error.value.message
    assert "20 tokens" in error.value.message


WARNED = {
    "joint": ({"rare__advantage": "ADVANTAGE_BASELINE_JOINT"}, "+0.35"),
    "top_p": ({"sampling__top_p": 0.9}, "top_p"),
    "control": ({**STEERED, "rare__source": "RARE_NEGATIVE_SOURCE_RANDOM_FEATURES"}, "random features"),
    "warm-up": ({"optimizer__warmup_steps": 9}, "warm-up"),
}


@pytest.mark.parametrize("case", WARNED)
def test_what_may_go_wrong_is_told_by_the_plan(case, experiment, tmp_path):
    changes, words = WARNED[case]
    assert not plan(experiment(), str(tmp_path), timed=False).warnings
    assert words in "\n".join(plan(experiment(**changes), str(tmp_path), timed=False).warnings)


def test_features_that_do_not_exist_are_refused_at_their_field(run, experiment):
    for feature, reason in (("1/64", "FEATURE_OUT_OF_RANGE"), ("7/1", "LAYER_OUT_OF_RANGE")):
        with pytest.raises(UserError) as error:
            run(experiment(**STEERED, rare__features=[feature]))
        assert (error.value.reason, error.value.field) == (reason, "rl.sae_penalty.rare_negative.features")
