"""Saved features as edits: the best of each layer, with what the file knows about them."""

from __future__ import annotations

import pytest

from qscope.errors import UserError
from qscope.features.encoders import sae_record
from qscope.features.files import save_features
from qscope.steering.feature_file import expand_feature_files
from qscope.v1 import steering_pb2 as pb
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet
from tests.steering.conftest import D_MODEL, D_SAE, SAES, make_edit, make_spec, resolved, sae_of


@pytest.fixture
def file(tmp_path):
    entries = [
        FeatureEntry(
            layer=layer,
            feature=10 * layer + rank,
            score=9.0 - rank,
            max_activation=5.0 + rank,
            median_residual_norm=2.0,
        )
        for layer in (1, 3)
        for rank in range(3)
    ]
    found = FeatureSet(kind="contrast", model="tiny", sae="x", entries=entries)
    found.model_record.d_model = D_MODEL
    for layer in (1, 3):
        found.sae_records.add(layer=layer, d_in=D_MODEL, d_sae=D_SAE, k=8)
    return save_features(found, tmp_path)


def expand(path, layers=(), top=1, **more):
    edit = make_edit(list(layers), [], feature_file=str(path), **more)
    edit.top = top
    return expand_feature_files(make_spec(edit), d_model=D_MODEL, saes=SAES, at="steer.steering")


def test_the_best_of_every_layer_become_one_edit_each(file):
    spec, scales = expand(file, top=2, strength=4.0)
    assert [(list(e.layers), list(e.features), e.strength) for e in spec.edits] == [
        ([1], [10, 11], 4.0),
        ([3], [30, 31], 4.0),
    ]
    assert not any(edit.feature_file for edit in spec.edits)
    assert scales.max_activation == {(1, 10): 5.0, (1, 11): 6.0, (3, 30): 5.0, (3, 31): 6.0}
    assert scales.median_norm == {1: 2.0, 3: 2.0}


def test_layers_choose_among_those_of_the_file(file):
    spec, _ = expand(file, layers=[3])
    assert [list(edit.layers) for edit in spec.edits] == [[3]]
    with pytest.raises(UserError, match="no feature of layer 2") as caught:
        expand(file, layers=[2])
    assert (caught.value.reason, caught.value.field) == ("FEATURES_NOT_FOUND", "steer.steering.edits[0].feature_file")
    assert "1, 3" in caught.value.remedy


def test_its_maxima_are_the_unit_max(file):
    spec, scales = expand(file, layers=[1], unit=pb.STRENGTH_UNIT_MAX, strength=0.5)
    (edit,) = resolved(*spec.edits, scales=scales).edits
    assert edit.strength_M.item() == pytest.approx(2.5)


def test_features_of_a_model_of_another_width_are_refused(file):
    with pytest.raises(UserError) as caught:
        expand_feature_files(make_spec(make_edit([], [], feature_file=str(file))), d_model=64, saes=SAES)
    assert caught.value.reason == "FEATURES_OF_ANOTHER_MODEL"


def test_features_of_another_sae_are_refused_and_those_of_this_one_are_not(tmp_path):
    found = FeatureSet(kind="contrast", model="tiny", sae="runs/here", entries=[FeatureEntry(layer=1, feature=3)])
    found.sae_records.add().CopyFrom(sae_record(sae_of(1)))
    spec, _ = expand(save_features(found, tmp_path))
    assert list(spec.edits[0].features) == [3]
    other = sae_of(1)
    other.W_enc_FD[0, 0] += 1
    found.sae_records[0].CopyFrom(sae_record(other))
    with pytest.raises(UserError, match="another SAE of layer 1") as caught:
        expand(save_features(found, tmp_path))
    assert caught.value.reason == "FEATURES_OF_ANOTHER_SAE"
    assert "runs/here" in caught.value.remedy


@pytest.mark.parametrize("content", ["", "{", '{"kind": 3}', "[]"])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "features.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        expand(path)
    assert caught.value.field == "steer.steering.edits[0].feature_file"
    assert "\n" not in str(caught.value)


def test_other_edits_pass_as_they_are(file):
    plain = make_edit([1], [5], strength=3.0)
    spec, scales = expand_feature_files(make_spec(plain), d_model=D_MODEL, saes=SAES)
    assert list(spec.edits) == [plain]
    assert not scales.max_activation
