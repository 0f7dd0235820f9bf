"""From a file of language features to what the loss holds down."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qscope.errors import UserError
from qscope.features.encoders import model_record, sae_record
from qscope.models import ModelFacts
from qscope.posttraining.held_features import (
    Threshold,
    held_features,
    language_ids,
    loss_layers,
    refuse_other_model,
)
from qscope.posttraining.sae_loss import UNTAGGED
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet

FACTS = ModelFacts(
    name="Qwen3-tiny",
    commit="",
    architecture="Qwen3ForCausalLM",
    model_type="qwen3",
    n_layers=4,
    d_model=8,
    vocab_size=50,
    dtype="float32",
    parameters=1,
    tuning="base",
    fingerprint="aa",
)


@pytest.fixture
def saes() -> dict[int, TopKSae]:
    noise = torch.Generator().manual_seed(0)
    return {
        layer: TopKSae(
            torch.randn(20, 8, generator=noise),
            torch.randn(20, generator=noise),
            torch.empty(0, 8),
            torch.zeros(8),
            k=3,
            layer=layer,
        )
        for layer in (2, 3)
    }


@pytest.fixture
def found(saes) -> FeatureSet:
    """Three features of zh and ja at each layer; alpha tells layer, feature and language apart."""
    names = {"en": 0.25, "ja": 0.5, "zh": 0.75}
    entries = [
        FeatureEntry(
            layer=layer,
            feature=feature,
            score=score,
            group=group,
            class_alphas={name: -(10 * layer + feature) - value for name, value in names.items()},
        )
        for layer in (2, 3)
        # Not in the order of their scores.
        for feature, score, group in [(5, 1.0, "zh"), (9, 3.0, "zh"), (1, 2.0, "zh"), (9, 5.0, "ja"), (4, 4.0, "ja")]
    ]
    return FeatureSet(
        kind="language",
        model="Qwen3-tiny",
        sae="saes",
        entries=entries,
        model_record=model_record(FACTS),
        sae_records=[sae_record(sae) for sae in saes.values()],
    )


def test_the_best_features_with_their_rows_and_thresholds(found, saes):
    parts, languages = held_features(found, saes, targets=["zh", "ja"], top_k=2)
    assert languages == ["en", "ja", "zh"]
    assert [part.rows.layer for part in parts] == [2, 3]
    part = parts[1]
    assert part.rows.features == (9, 1, 9, 4)
    assert part.target_M.tolist() == [2, 2, 1, 1]
    torch.testing.assert_close(part.rows.W_enc_MD, saes[3].W_enc_FD[[9, 1, 9, 4]], rtol=0, atol=0)
    assert part.alpha_GM.tolist() == [
        [-39.25, -31.25, -39.25, -34.25],
        [-39.5, -31.5, -39.5, -34.5],
        [-39.75, -31.75, -39.75, -34.75],
    ]
    # Features of zh are free on rows in zh, those of ja on rows in ja.
    assert part.holds_GM.tolist() == [[True] * 4, [True, True, False, False], [False, False, True, True]]


def test_threshold_zero_and_rows_of_the_target_itself(found, saes):
    parts, _ = held_features(found, saes, targets=["zh"], top_k=1, threshold=Threshold.ZERO, exclude_target=False)
    assert parts[0].rows.features == (9,)
    assert not parts[0].alpha_GM.any()
    assert parts[0].holds_GM.all()


def test_a_language_without_the_thresholds_of_every_feature_is_none(found, saes):
    del found.entries[0].class_alphas["en"]
    _, languages = held_features(found, saes, targets=["zh"], top_k=1)
    assert languages == ["ja", "zh"]


@pytest.mark.parametrize(
    ("options", "reason", "text"),
    [
        ({"targets": ["ko"], "top_k": 1}, "LANGUAGE_UNKNOWN", "'ko': the feature file knows en, ja, zh"),
        ({"targets": ["ja"], "top_k": 3}, "FEATURES_NOT_FOUND", "has 2 features of ja at layer 2, and 3 are wanted"),
    ],
)
def test_what_the_file_does_not_have_is_refused(found, saes, options, reason, text):
    with pytest.raises(UserError, match=text) as caught:
        held_features(found, saes, **options)
    assert caught.value.reason == reason


def test_a_file_without_thresholds_and_other_saes_are_refused(found, saes):
    saes[3].b_enc_F += 1
    with pytest.raises(UserError) as caught:
        held_features(found, saes, targets=["zh"], top_k=1)
    assert caught.value.reason == "FEATURES_OF_ANOTHER_SAE"
    found.entries[4].class_alphas.clear()
    with pytest.raises(UserError, match="no mean pre-activations") as caught:
        held_features(found, saes, targets=["zh"], top_k=1)
    assert caught.value.reason == "FEATURES_WITHOUT_ALPHA"


def test_languages_of_rows(found):
    assert language_ids(["zh", "en", None, "zh"], ["en", "zh"]) == [1, 0, UNTAGGED, 1]
    with pytest.raises(UserError, match="'zn': the feature file knows en, zh") as caught:
        language_ids(["zh", "zn"], ["en", "zh"])
    assert caught.value.remedy == "Write zh."
    # An empty text is a code like any other: nobody said on purpose that the row has no language.
    with pytest.raises(UserError):
        language_ids([""], ["en", "zh"])


def test_layers():
    assert loss_layers([], 4, [0, 2, 3]) == [2, 3]
    assert loss_layers([], 1, [0]) == [0]
    assert loss_layers([2, 0, 2], 4, [0, 2, 3]) == [0, 2]
    with pytest.raises(UserError, match="Layer 4 does not exist") as caught:
        loss_layers([2, 4], 4, [2])
    assert caught.value.field == "sft.sae_loss.layers[1]"
    with pytest.raises(UserError, match="no feature of layer 3") as caught:
        loss_layers([], 4, [2])
    assert caught.value.reason == "FEATURES_NOT_FOUND"


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, False),
        ({"name": "a copy"}, False),
        ({"fingerprint": "bb"}, True),
        ({"fingerprint": "bb", "dtype": "bfloat16"}, False),
        ({"d_model": 16}, True),
        ({"n_layers": 5}, True),
        ({"commit": "c1"}, False),
    ],
)
def test_thresholds_of_another_model_are_refused(found, change, refused):
    facts = replace(FACTS, **change)
    if not refused:
        return refuse_other_model(found, facts)
    with pytest.raises(UserError) as caught:
        refuse_other_model(found, facts)
    assert caught.value.reason == "FEATURES_OF_ANOTHER_MODEL"


def test_commits_are_compared_where_both_are_known(found):
    found.model_record.commit = "c1"
    refuse_other_model(found, replace(FACTS, commit="c1"))
    with pytest.raises(UserError, match="measured on Qwen3-tiny"):
        refuse_other_model(found, replace(FACTS, commit="c2"))
