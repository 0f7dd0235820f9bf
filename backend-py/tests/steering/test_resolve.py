"""Specs to numbers: units, files, and one sentence with a remedy for every mistake."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from qscope.errors import UserError
from qscope.steering.resolve import resolve
from qscope.steering.scales import Scales
from qscope.v1 import steering_pb2 as pb
from tests.steering.conftest import D_MODEL, D_SAE, N_LAYERS, SAES, make_edit, make_spec, resolved, sae_of

SCALES = Scales({layer: 10.0 + layer for layer in range(N_LAYERS)}, {(1, 5): 4.0}, "a test")


def refusal(spec: pb.SteeringSpec, scales: Scales = SCALES) -> UserError:
    with pytest.raises(UserError) as caught:
        resolve(spec, n_layers=N_LAYERS, d_model=D_MODEL, saes=SAES, scales=scales, at="steer.steering")
    error = caught.value
    assert error.remedy
    assert "\n" not in str(error)
    assert error.field.startswith("steer.steering")
    return error


def test_raw_strength_is_the_coefficient_of_the_shipped_direction():
    (edit,) = resolved(make_edit([1], [5, 9], "add", -3.0)).edits
    torch.testing.assert_close(edit.strength_M, torch.tensor([-3.0, -3.0]))
    torch.testing.assert_close(edit.directions_MD, sae_of(1).W_dec_FD[[5, 9]])


def test_max_is_a_multiple_of_the_observed_activation_and_norm_of_the_residual_length():
    (by_max,) = resolved(make_edit([1], [5], "add", 0.5, unit=pb.STRENGTH_UNIT_MAX), scales=SCALES).edits
    assert by_max.strength_M.item() == pytest.approx(2.0)
    (by_norm,) = resolved(make_edit([1], [5], "add", 0.5, unit=pb.STRENGTH_UNIT_NORM), scales=SCALES).edits
    assert (by_norm.strength_M @ by_norm.directions_MD).norm().item() == pytest.approx(0.5 * 11.0, rel=1e-5)


def test_a_factor_has_no_unit():
    (edit,) = resolved(make_edit([1], [5], "scale", 3.0)).edits
    assert edit.strength_M.item() == 3.0


@pytest.mark.parametrize("op", ["zero", "negate"])
@pytest.mark.parametrize("unit", [pb.STRENGTH_UNIT_NORM, pb.STRENGTH_UNIT_MAX])
def test_operations_without_a_strength_need_no_scale(op, unit):
    edit = make_edit([1], [5], op, unit=unit)
    assert Scales().missing(make_spec(edit)) == ([], [])
    assert len(resolved(edit, scales=Scales()).edits) == 1
    assert Scales().missing(make_spec(make_edit([1], [5], "set", unit=unit))) != ([], [])


def test_the_projection_cap_is_bounded_along_the_unit_direction():
    edit = make_edit([1], [5], "projection_cap", 0.0, low=-0.5, high=0.25, unit=pb.STRENGTH_UNIT_NORM)
    (found,) = resolved(edit, scales=SCALES).edits
    assert found.directions_MD.norm().item() == pytest.approx(1.0)
    assert (found.low_M.item(), found.high_M.item()) == (pytest.approx(-5.5), pytest.approx(2.75))


def test_vectors_in_place_and_in_files(tmp_path):
    vector = torch.arange(1.0, D_MODEL + 1)
    place = make_edit([0, 2], [], "add", 2.0, vector=vector.tolist())
    save_file({"vector": vector}, tmp_path / "one.safetensors")
    save_file({"layer1": vector, "layer3": -vector}, tmp_path / "many.safetensors")
    one = make_edit([0, 2], [], "add", 2.0, vector_file=str(tmp_path / "one.safetensors"))
    many = make_edit([], [], "add", 2.0, vector_file=str(tmp_path / "many.safetensors"))
    for spec, layers in ((place, [0, 2]), (one, [0, 2]), (many, [1, 3])):
        edits = resolved(spec).edits
        assert [edit.layer for edit in edits] == layers
        torch.testing.assert_close(edits[0].directions_MD[0], vector)
    torch.testing.assert_close(resolved(many).edits[1].directions_MD[0], -vector)


def test_the_hash_names_what_is_done_not_how_it_is_written(tmp_path):
    vector = torch.arange(1.0, D_MODEL + 1)
    for name in ("a", "b"):
        save_file({"vector": vector}, tmp_path / name)
    first, second = (resolved(make_edit([0], [], vector_file=str(tmp_path / name))) for name in ("a", "b"))
    assert first.hash == second.hash
    save_file({"vector": vector + 1e-3}, tmp_path / "b")
    assert resolved(make_edit([0], [], vector_file=str(tmp_path / "b"))).hash != first.hash
    assert resolved(make_edit([1], [5])).hash != resolved(make_edit([1], [6])).hash
    assert resolved(make_edit([1], [5])).hash != resolved(make_edit([1], [5], phase="prompt")).hash


@pytest.mark.parametrize(
    ("edit", "reason", "field"),
    [
        (make_edit([0, N_LAYERS], [5]), "LAYER_OUT_OF_RANGE", "edits[0].layers[1]"),
        (make_edit([1], [5, D_SAE]), "FEATURE_OUT_OF_RANGE", "edits[0].features[1]"),
        (make_edit([1], [], vector=[1.0]), "VECTOR_UNUSABLE", "edits[0].vector"),
        (make_edit([1], [], vector=[math.nan] * D_MODEL), "VECTOR_UNUSABLE", "edits[0].vector"),
        (make_edit([1], [], vector=[0.0] * D_MODEL), "VECTOR_UNUSABLE", "edits[0].vector"),
        (make_edit([1], [], vector_file="/nowhere.safetensors"), "VECTOR_UNUSABLE", "edits[0].vector_file"),
        (make_edit([1], [6], unit=pb.STRENGTH_UNIT_MAX), "UNIT_UNKNOWN", "edits[0].unit"),
        (make_edit([1], [6], when=[{"layer": 2, "feature": 1}]), "CONDITION_TOO_HIGH", "edits[0].when[0].layer"),
        (make_edit([1], [6], when=[{"layer": 9, "feature": 1}]), "LAYER_OUT_OF_RANGE", "edits[0].when[0].layer"),
        (make_edit([1], [6], when=[{"layer": 1, "feature": 99}]), "FEATURE_OUT_OF_RANGE", "edits[0].when[0].feature"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(edit, reason, field):
    error = refusal(make_spec(edit))
    assert (error.reason, error.field) == (reason, f"steer.steering.{field}")


def test_an_unknown_residual_norm_is_refused():
    error = refusal(make_spec(make_edit([1], [5], unit=pb.STRENGTH_UNIT_NORM)), Scales())
    assert error.reason == "UNIT_UNKNOWN"


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_damaged_vector_file_is_refused(tmp_path, content):
    path = tmp_path / "v.safetensors"
    path.write_bytes(content)
    assert refusal(make_spec(make_edit([1], [], vector_file=str(path)))).reason == "VECTOR_UNUSABLE"


def test_a_vector_file_without_the_layer_says_what_it_holds(tmp_path):
    save_file({"layer0": torch.ones(D_MODEL)}, tmp_path / "v.safetensors")
    error = refusal(make_spec(make_edit([1], [], vector_file=str(tmp_path / "v.safetensors"))))
    assert "layer0" in error.message
    assert "layer 1" in error.message


def test_edits_that_contradict_each_other_are_refused():
    both = [make_edit([1], [5], "set"), make_edit([1], [5], "zero")]
    assert refusal(make_spec(*both)).reason == "FEATURE_TWICE"
    assert len(resolved(*both, conflict="PRIORITY").edits) == 2
    assert len(resolved(*both, conflict="SEQUENTIAL").edits) == 2
    pair = [make_edit([1], [5]), make_edit([1], [6])]
    assert refusal(make_spec(*pair, conflict="ERROR")).reason == "STEERING_CONFLICT"
    assert len(resolved(make_edit([1], [5]), make_edit([2], [6]), conflict="ERROR").edits) == 2


@given(
    strength=st.floats(-1e3, 1e3),
    features=st.lists(st.integers(0, D_SAE - 1), min_size=1, max_size=5, unique=True),
    layers=st.lists(st.integers(0, N_LAYERS - 1), min_size=1, max_size=N_LAYERS, unique=True),
)
def test_any_sound_edit_resolves_to_finite_numbers(strength, features, layers):
    spec = resolved(make_edit(layers, features, "add", strength, unit=pb.STRENGTH_UNIT_NORM), scales=SCALES)
    assert [edit.layer for edit in spec.edits] == layers
    for edit in spec.edits:
        assert torch.isfinite(edit.strength_M @ edit.directions_MD).all()
        assert spec.changes_nothing == (not bool(edit.strength_M.any()))
