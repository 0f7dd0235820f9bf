"""Every row of the table: where it applies, what it does, that it is silent elsewhere, and that its fields exist."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from qscope.posttraining.interactions import (
    INTERACTIONS,
    RARE_NEGATIVES,
    Exemption,
    Outcome,
    check_interactions,
    settings_of,
    value_at,
)
from qscope.v1.experiment_pb2 import Experiment

ALL, NONE = frozenset(Exemption), frozenset()


def settings(**changes: Any) -> dict:
    """An experiment that every row leaves alone, save the one that always exempts; changes by path."""
    made: dict[str, Any] = {
        "overlong": {"mode": "OVERLONG_MODE_SOFT"},
        "importance_correction": {"mode": "IMPORTANCE_MODE_NONE", "cap": 3},
        "dynamic_sampling": {"enabled": False},
        "rewards": [{"kind": "GRADER_KIND_ANSWER", "weight": 1}, {"kind": "GRADER_KIND_REPETITION", "weight": 1}],
        "sampling": {"temperature": 1, "top_p": 1, "max_tokens": 512},
        "sae_penalty": {
            "mode": "SAE_PENALTY_MODE_RARE_NEGATIVE",
            "rare_negative": {
                "source": "RARE_NEGATIVE_SOURCE_STEERED",
                "per_group": 1,
                "ratio": "STEERED_RATIO_UNSTEERED",
                "max_tokens": 512,
                "stop_after_loops": 8,
                "advantage": "ADVANTAGE_BASELINE_SEPARATE",
                "verify": True,
                "on_miss": "ON_MISS_DROP",
            },
        },
    }
    for path, value in changes.items():
        *parents, name = path.replace("rare__", "sae_penalty__rare_negative__").split("__")
        place = made
        for parent in parents:
            place = place[parent]
        place[name] = value
    # By way of the message itself: a name that is none fails here.
    return settings_of(json_format.ParseDict({"rl": made}, Experiment()))


def reasons(found) -> list[str]:
    return [error.reason for error in found.refusals]


def rewards(*kinds: str, weight: float = 1.0) -> list[dict]:
    return [{"kind": f"GRADER_KIND_{kind.upper()}", "weight": weight} for kind in kinds]


PASTED = {"rare__source": "RARE_NEGATIVE_SOURCE_PASTED"}
RANDOM = {"rare__source": "RARE_NEGATIVE_SOURCE_RANDOM_FEATURES"}
BEHAVIOR = {"rare__ratio": "STEERED_RATIO_BEHAVIOR"}


def test_the_default_is_left_alone_and_its_metrics_are_apart():
    found = check_interactions(settings(), ALL)
    assert found.refusals == []
    assert found.warnings == {}
    assert list(found.exemptions) == [Exemption.METRICS]


def test_settings_have_the_names_of_a_file():
    found = settings(sampling__stop=["\n"])
    assert value_at(found, "rl.overlong.mode") == "soft"
    assert value_at(found, "rl.sae_penalty.rare_negative.advantage") == "separate"
    assert value_at(found, "rl.rewards")[1]["kind"] == "repetition"
    assert value_at(found, "rl.sampling.stop") == ["\n"]
    assert value_at(found, "rl.evaluate.sampling.max_tokens") is None


# Changes of the default; what a trainer that can exempt is told to do; the refusal of one that cannot.
EXEMPTED = [
    ({"overlong__mode": "OVERLONG_MODE_FILTER"}, Exemption.OVERLONG_FILTER, "OVERLONG_FILTER_DROPS_RARE_NEGATIVES"),
    (
        {"importance_correction__mode": "IMPORTANCE_MODE_SEQUENCE_MASK"},
        Exemption.IMPORTANCE_CORRECTION,
        "IMPORTANCE_CORRECTION_DROPS_RARE_NEGATIVES",
    ),
    ({"dynamic_sampling__enabled": True}, Exemption.DYNAMIC_SAMPLING, "DYNAMIC_SAMPLING_KEEPS_EVERYTHING"),
    ({}, Exemption.METRICS, "METRICS_MIXED"),
]


@pytest.mark.parametrize(("changes", "exemption", "reason"), EXEMPTED)
def test_rows_that_exempt(changes, exemption, reason):
    able = check_interactions(settings(**changes), ALL)
    assert able.refusals == []
    assert set(able.exemptions) == {exemption, Exemption.METRICS}
    # One that cannot is refused with the reason; being able to do all the others does not help.
    unable = check_interactions(settings(**changes), ALL - {exemption})
    assert reasons(unable) == [reason]
    assert all(error.remedy and error.field.startswith("rl.") for error in unable.refusals)


AT = "rl.sae_penalty.rare_negative"
REFUSED = [
    (
        {"importance_correction__mode": "IMPORTANCE_MODE_TOKEN_TRUNCATE", **BEHAVIOR},
        "IMPORTANCE_CORRECTED_TWICE",
        "rl.importance_correction.mode",
    ),
    ({**PASTED, **BEHAVIOR}, "PASTED_HAS_NO_SAMPLER", f"{AT}.ratio"),
    ({"rare__max_tokens": 0, "rare__stop_after_loops": 0}, "RARE_NEGATIVE_UNBOUNDED", f"{AT}.max_tokens"),
    ({"rewards": rewards("answer")}, "NO_REPETITION_REWARD", "rl.rewards"),
    ({"rewards": []}, "NO_REPETITION_REWARD", "rl.rewards"),
    ({"rewards": rewards("answer") + rewards("repetition", weight=0)}, "NO_REPETITION_REWARD", "rl.rewards"),
    ({"rewards": rewards("answer") + rewards("endless", weight=-1)}, "NO_REPETITION_REWARD", "rl.rewards"),
    ({"rare__verify": False}, "RARE_NEGATIVE_UNVERIFIED", f"{AT}.verify"),
    ({"rare__max_tokens": 63}, "RARE_NEGATIVE_TOO_SHORT", f"{AT}.max_tokens"),
    ({"sampling__max_tokens": 40}, "RARE_NEGATIVE_TOO_SHORT", "rl.sampling.max_tokens"),
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
    ({"rare__advantage": "ADVANTAGE_BASELINE_JOINT"}, "WRONG_ANSWERS_REWARDED"),
    ({"rewards": rewards("answer", "python")}, "REPETITION_REWARD_UNKNOWN"),
    ({"rare__on_miss": "ON_MISS_KEEP"}, "RARE_NEGATIVE_KEPT_ON_MISS"),
    (RANDOM, "CONTROL_KEPT_ON_MISS"),
]


@pytest.mark.parametrize(("changes", "reason"), WARNED)
def test_rows_that_warn(changes, reason):
    found = check_interactions(settings(**changes), ALL)
    assert found.refusals == []
    assert list(found.warnings) == [reason]
    assert found.warnings[reason].endswith(".")


# What keeps a row from applying although its first condition holds.
SILENT = [
    {"rare__max_tokens": 0},
    {"rare__max_tokens": 64, "sampling__max_tokens": 64},
    {"rare__stop_after_loops": 0},
    {**PASTED, "rare__verify": False},
    {**PASTED, "rare__on_miss": "ON_MISS_KEEP"},
    {"rewards": rewards("answer", "endless")},
    BEHAVIOR,
]


@pytest.mark.parametrize("changes", SILENT)
def test_rows_that_do_not_apply_are_silent(changes):
    found = check_interactions(settings(**changes), ALL)
    assert (found.refusals, found.warnings, list(found.exemptions)) == ([], {}, [Exemption.METRICS])


def test_joint_advantages_warn_only_where_groups_of_wrong_answers_teach():
    joint = {"rare__advantage": "ADVANTAGE_BASELINE_JOINT"}
    found = check_interactions(settings(**joint, dynamic_sampling__enabled=True), ALL)
    assert found.warnings == {}
    # Without a repetition term such groups have no spread: that is the refusal of another row.
    found = check_interactions(settings(**joint, rewards=rewards("answer")), ALL)
    assert (found.warnings, reasons(found)) == ({}, ["NO_REPETITION_REWARD"])


def test_a_control_with_other_features_is_steered_as_well():
    assert reasons(check_interactions(settings(**RANDOM, rare__verify=False), ALL)) == ["RARE_NEGATIVE_UNVERIFIED"]


BROKEN = {
    "overlong__mode": "OVERLONG_MODE_FILTER",
    "importance_correction__mode": "IMPORTANCE_MODE_SEQUENCE_MASK",
    "dynamic_sampling__enabled": True,
    "rewards": [],
    "rare__max_tokens": 0,
    "rare__stop_after_loops": 0,
    "rare__verify": False,
    "rare__on_miss": "ON_MISS_KEEP",
}


def test_everything_that_is_wrong_is_told_at_once():
    found = check_interactions(settings(**BROKEN), NONE)
    assert sorted(reasons(found)) == [
        "DYNAMIC_SAMPLING_KEEPS_EVERYTHING",
        "IMPORTANCE_CORRECTION_DROPS_RARE_NEGATIVES",
        "METRICS_MIXED",
        "NO_REPETITION_REWARD",
        "OVERLONG_FILTER_DROPS_RARE_NEGATIVES",
        "RARE_NEGATIVE_UNBOUNDED",
        "RARE_NEGATIVE_UNVERIFIED",
    ]
    by_reason = {error.reason: error.message for error in found.refusals}
    assert "sequence_mask" in by_reason["IMPORTANCE_CORRECTION_DROPS_RARE_NEGATIVES"]


@pytest.mark.parametrize("mode", ["NONE", "REWARD"])
def test_without_rare_negatives_no_row_applies(mode):
    broken = settings(**BROKEN, sae_penalty__mode=f"SAE_PENALTY_MODE_{mode}")
    for one in (broken, {"rl": {"overlong": {"mode": "filter"}}}, {}):
        found = check_interactions(one, NONE)
        assert (found.refusals, found.warnings, found.exemptions) == ([], {}, {})


def test_every_field_that_is_asked_exists_in_the_contract():
    for where in (RARE_NEGATIVES, *(where for row in INTERACTIONS for where in row.when)):
        message = Experiment.DESCRIPTOR
        for name in where.field.split("."):
            assert message is not None, where.field
            field = message.fields_by_name[name]
            message = field.message_type


def test_every_row_is_tested_and_says_what_to_do():
    tested = {reason for _, _, reason in EXEMPTED} | {case[1] for case in [*REFUSED, *WARNED]}
    assert tested == {row.reason for row in INTERACTIONS}
    assert {row.stock for row in INTERACTIONS} == {
        "overlong filter",
        "importance correction",
        "dynamic sampling",
        "token-mean loss",
        "joint normalisation",
        "reward without repetition term",
        "steering that does not repeat",
        "metrics",
    }
    for row in INTERACTIONS:
        assert row.message.endswith(".")
        assert row.remedy.endswith(".")
        assert (row.exemption is not None) == (row.outcome is Outcome.EXEMPT)
