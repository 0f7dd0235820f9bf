"""Every row of the table: where it applies, what it does, and that it is silent elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from qscope.posttraining.interactions import INTERACTIONS, Exemption, Outcome, check_interactions

ALL, NONE = frozenset(Exemption), frozenset()


def settings(**changes: Any) -> dict:
    """An experiment that every row leaves alone, save the one that always exempts; changes by path."""
    made = {
        "rl": {
            "loss_reduction": "token_mean",
            "overlong": {"mode": "soft"},
            "importance_correction": {"mode": "none", "off_policy_mask_threshold": 0.0},
            "dynamic_sampling": {"enabled": False},
            "rewards": [{"name": "exact"}, {"name": "repetition"}],
            "sampling": {
                "repetition_penalty": 1.0,
                "min_p": 0.0,
                "no_repeat_ngram_size": 0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
            },
            "rare_negative": {
                "per_group": 1,
                "source": "steered",
                "ratio": "unsteered",
                "max_tokens": 512,
                "stop_after_loops": 8,
                "advantage": "separate",
                "verify": True,
                "on_miss": "drop",
                "engine": "transformers",
                "cuda_graphs": False,
                "prefix_cache": False,
            },
        }
    }
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = made["rl"]
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return made


def reasons(found) -> list[str]:
    return [error.reason for error in found.refusals]


def test_the_default_is_left_alone_and_its_metrics_are_apart():
    found = check_interactions(settings(), ALL)
    assert found.refusals == []
    assert found.warnings == {}
    assert list(found.exemptions) == [Exemption.METRICS]


# Changes of the default; what a trainer that can exempt is told to do; the refusal of one that cannot.
EXEMPTED = [
    ({"overlong__mode": "filter"}, Exemption.OVERLONG_FILTER, "OVERLONG_FILTER_DROPS_RARE_NEGATIVES"),
    (
        {"importance_correction__mode": "sequence_mask"},
        Exemption.IMPORTANCE_CORRECTION,
        "IMPORTANCE_CORRECTION_DROPS_RARE_NEGATIVES",
    ),
    (
        {"importance_correction__off_policy_mask_threshold": 0.5},
        Exemption.IMPORTANCE_CORRECTION,
        "OFF_POLICY_MASK_DROPS_RARE_NEGATIVES",
    ),
    ({"dynamic_sampling__enabled": True}, Exemption.DYNAMIC_SAMPLING, "DYNAMIC_SAMPLING_KEEPS_EVERYTHING"),
    ({"sampling__repetition_penalty": 1.05}, Exemption.SAMPLING, "SAMPLING_FORBIDS_LOOPS"),
    ({"sampling__repetition_penalty": None}, Exemption.SAMPLING, "SAMPLING_FORBIDS_LOOPS"),
    ({"sampling__min_p": 0.05}, Exemption.SAMPLING, "SAMPLING_FORBIDS_LOOPS"),
    ({"sampling__no_repeat_ngram_size": 3}, Exemption.SAMPLING, "SAMPLING_FORBIDS_LOOPS"),
    ({"sampling__presence_penalty": 0.5}, Exemption.SAMPLING, "SAMPLING_FORBIDS_LOOPS"),
    ({"sampling__frequency_penalty": 0.5}, Exemption.SAMPLING, "SAMPLING_FORBIDS_LOOPS"),
    ({}, Exemption.METRICS, "METRICS_MIXED"),
]


@pytest.mark.parametrize(("changes", "exemption", "reason"), EXEMPTED)
def test_rows_that_exempt(changes, exemption, reason):
    able = check_interactions(settings(**changes), ALL)
    assert able.refusals == []
    assert set(able.exemptions) == {exemption, Exemption.METRICS}
    # One that cannot is refused with the reason; being able to do all the others does not help.
    unable = check_interactions(settings(**changes), ALL - {exemption})
    assert reasons(unable) == (["METRICS_MIXED"] if reason == "METRICS_MIXED" else sorted({reason, *reasons(unable)}))
    assert reason in reasons(unable)
    assert all(error.remedy and error.field.startswith("rl.") for error in unable.refusals)


REFUSED = [
    (
        {"importance_correction__mode": "token_truncate", "rare_negative__ratio": "behavior"},
        "IMPORTANCE_CORRECTED_TWICE",
        "rl.importance_correction.mode",
    ),
    (
        {"rare_negative__max_tokens": 0, "rare_negative__stop_after_loops": 0},
        "RARE_NEGATIVE_UNBOUNDED",
        "rl.loss_reduction",
    ),
    ({"rewards": [{"name": "exact"}]}, "NO_REPETITION_REWARD", "rl.rewards"),
    ({"rewards": None}, "NO_REPETITION_REWARD", "rl.rewards"),
    ({"rare_negative__verify": False}, "RARE_NEGATIVE_UNVERIFIED", "rl.rare_negative.verify"),
    ({"rare_negative__engine": "vllm"}, "STEERING_IN_SERVING_ENGINE", "rl.rare_negative.engine"),
    ({"rare_negative__cuda_graphs": True}, "STEERING_UNDER_CUDA_GRAPHS", "rl.rare_negative.cuda_graphs"),
    ({"rare_negative__prefix_cache": True}, "STEERING_WITH_PREFIX_CACHE", "rl.rare_negative.prefix_cache"),
]


@pytest.mark.parametrize(("changes", "reason", "field"), REFUSED)
def test_rows_that_refuse(changes, reason, field):
    found = check_interactions(settings(**changes), ALL)
    assert reasons(found) == [reason]
    error = found.refusals[0]
    assert error.field == field
    assert error.remedy
    assert "{value}" not in error.message


WARNED = [
    ({"rare_negative__advantage": "joint"}, "WRONG_ANSWERS_REWARDED"),
    ({"rewards": [{"name": "exact"}, {"name": "python"}]}, "REPETITION_REWARD_UNKNOWN"),
    ({"rare_negative__on_miss": "keep"}, "RARE_NEGATIVE_KEPT_ON_MISS"),
]


@pytest.mark.parametrize(("changes", "reason"), WARNED)
def test_rows_that_warn(changes, reason):
    found = check_interactions(settings(**changes), ALL)
    assert found.refusals == []
    assert list(found.warnings) == [reason]
    assert found.warnings[reason].endswith(".")


# What keeps a row from applying although its first condition holds.
SILENT = [
    {"rare_negative__max_tokens": 0},
    {"rare_negative__stop_after_loops": 0},
    {"loss_reduction": "sequence_mean", "rare_negative__max_tokens": 0, "rare_negative__stop_after_loops": 0},
    {"rare_negative__source": "pasted", "rare_negative__verify": False},
    {"rare_negative__source": "pasted", "rare_negative__engine": "vllm", "rare_negative__cuda_graphs": True},
    {"rare_negative__source": "pasted", "rare_negative__prefix_cache": True, "rare_negative__on_miss": "keep"},
    {"rare_negative__source": "pasted", "sampling__repetition_penalty": 1.1},
    {"rare_negative__ratio": "behavior"},
    {"rare_negative__engine": None},
]


@pytest.mark.parametrize("changes", SILENT)
def test_rows_that_do_not_apply_are_silent(changes):
    found = check_interactions(settings(**changes), ALL)
    assert (found.refusals, found.warnings, list(found.exemptions)) == ([], {}, [Exemption.METRICS])


def test_joint_advantages_warn_only_where_groups_of_wrong_answers_teach():
    joint = {"rare_negative__advantage": "joint"}
    found = check_interactions(settings(**joint, dynamic_sampling__enabled=True), ALL)
    assert found.warnings == {}
    # Without a repetition term such groups have no spread: that is the refusal of another row.
    found = check_interactions(settings(**joint, rewards=[{"name": "exact"}]), ALL)
    assert (found.warnings, reasons(found)) == ({}, ["NO_REPETITION_REWARD"])


def test_a_control_with_another_feature_is_steered_as_well():
    found = check_interactions(settings(rare_negative__source="random_feature", rare_negative__verify=False), ALL)
    assert reasons(found) == ["RARE_NEGATIVE_UNVERIFIED"]


BROKEN = {
    "overlong__mode": "filter",
    "importance_correction__mode": "sequence_mask",
    "importance_correction__off_policy_mask_threshold": 1.0,
    "dynamic_sampling__enabled": True,
    "sampling__repetition_penalty": 1.1,
    "rewards": [],
    "rare_negative__max_tokens": 0,
    "rare_negative__stop_after_loops": 0,
    "rare_negative__verify": False,
    "rare_negative__on_miss": "keep",
    "rare_negative__engine": "sglang",
}


def test_everything_that_is_wrong_is_told_at_once():
    found = check_interactions(settings(**BROKEN), NONE)
    assert sorted(reasons(found)) == [
        "DYNAMIC_SAMPLING_KEEPS_EVERYTHING",
        "IMPORTANCE_CORRECTION_DROPS_RARE_NEGATIVES",
        "METRICS_MIXED",
        "NO_REPETITION_REWARD",
        "OFF_POLICY_MASK_DROPS_RARE_NEGATIVES",
        "OVERLONG_FILTER_DROPS_RARE_NEGATIVES",
        "RARE_NEGATIVE_UNBOUNDED",
        "RARE_NEGATIVE_UNVERIFIED",
        "SAMPLING_FORBIDS_LOOPS",
        "STEERING_IN_SERVING_ENGINE",
    ]
    by_reason = {error.reason: error.message for error in found.refusals}
    assert "sglang" in by_reason["STEERING_IN_SERVING_ENGINE"]
    assert "sequence_mask" in by_reason["IMPORTANCE_CORRECTION_DROPS_RARE_NEGATIVES"]


@pytest.mark.parametrize("rare", [0, None])
def test_without_rare_negatives_no_row_applies(rare):
    for broken in (settings(**BROKEN, rare_negative__per_group=rare), {"rl": {"overlong": {"mode": "filter"}}}, {}):
        found = check_interactions(copy.deepcopy(broken), NONE)
        assert (found.refusals, found.warnings, found.exemptions) == ([], {}, {})


def test_every_row_is_tested_and_says_what_to_do():
    tested = {reason for _, _, reason in EXEMPTED} | {case[1] for case in [*REFUSED, *WARNED]}
    assert tested == {row.reason for row in INTERACTIONS}
    assert {row.stock for row in INTERACTIONS} == {
        "overlong filter",
        "importance correction",
        "off-policy sequence mask",
        "dynamic sampling",
        "token-mean loss",
        "joint normalisation",
        "reward without repetition term",
        "steering that does not repeat",
        "metrics",
        "repetition penalty, min_p",
        "serving engine",
        "CUDA graphs",
        "prefix cache",
    }
    for row in INTERACTIONS:
        assert row.message.endswith(".")
        assert row.remedy.endswith(".")
        assert (row.exemption is not None) == (row.outcome is Outcome.EXEMPT)
