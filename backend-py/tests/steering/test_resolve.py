"""Specs to numbers: units, files, and one sentence with a remedy for every mistake."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from qscope.errors import UserError
from qscope.sae.topk import TopKSae
from qscope.steering.resolve import resolve
from qscope.steering.saes import LoadedSaes
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
    strength=st.floats(-1e3, 1e3).filter(lambda number: number == 0 or abs(number) > 1e-30),
    features=st.lists(st.integers(0, D_SAE - 1), min_size=1, max_size=5, unique=True),
    layers=st.lists(st.integers(0, N_LAYERS - 1), min_size=1, max_size=N_LAYERS, unique=True),
)
def test_any_sound_edit_resolves_to_finite_numbers(strength, features, layers):
    spec = resolved(make_edit(layers, features, "add", strength, unit=pb.STRENGTH_UNIT_NORM), scales=SCALES)
    assert [edit.layer for edit in spec.edits] == layers
    for edit in spec.edits:
        assert torch.isfinite(edit.strength_M @ edit.directions_MD).all()
        assert spec.changes_nothing == (not bool(edit.strength_M.any()))


@pytest.mark.parametrize(
    ("op", "nothing", "something"),
    [("add", [0.0], [1.0, -1.0]), ("scale", [1.0], [0.0, 2.0]), ("clamp_min", [0.0, -1.0], [1.0])],
)
def test_a_strength_that_leaves_things_alone_asks_for_no_change(op, nothing, something):
    for strengths, expected in ((nothing, True), (something, False)):
        for strength in strengths:
            assert resolved(make_edit([1], [5, 6], op, strength)).changes_nothing is expected
    whole = resolved(make_edit([1], [5], op, nothing[0]), make_edit([1], [6], op, something[0]))
    assert not whole.changes_nothing


@pytest.mark.parametrize("op", ["set", "clamp_max", "zero", "negate", "projection_cap"])
def test_other_operations_ask_for_a_change_at_any_strength(op):
    for strength in (0.0, 1.0):
        assert not resolved(make_edit([1], [5], op, strength)).changes_nothing


BEYOND = [1e39, 1e100, 1e300, 1e308]


@pytest.mark.parametrize("number", [*BEYOND, 1e-50, 1e-60])
def test_a_vector_that_float32_cannot_hold_is_refused(number, tmp_path):
    error = refusal(make_spec(make_edit([1], [], vector=[number] * D_MODEL)))
    assert (error.reason, error.field) == ("VECTOR_UNUSABLE", "steer.steering.edits[0].vector")
    save_file({"vector": torch.full((D_MODEL,), number, dtype=torch.float64)}, tmp_path / "v.safetensors")
    assert refusal(make_spec(make_edit([1], [], vector_file=f"{tmp_path}/v.safetensors"))).reason == "VECTOR_UNUSABLE"


@pytest.mark.parametrize("unit", [pb.STRENGTH_UNIT_RAW, pb.STRENGTH_UNIT_NORM, pb.STRENGTH_UNIT_MAX])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("number", BEYOND)
def test_a_strength_that_float32_cannot_hold_is_refused(number, sign, unit):
    for op in ("add", "set", "clamp_max", "scale"):
        error = refusal(make_spec(make_edit([1], [5], op, sign * number, unit=unit)))
        assert (error.reason, error.field) == ("STRENGTH_UNUSABLE", "steer.steering.edits[0].strength")
    for name in ("low", "high"):
        error = refusal(make_spec(make_edit([1], [5], "projection_cap", unit=unit, **{name: sign * number})))
        assert (error.reason, error.field) == ("STRENGTH_UNUSABLE", f"steer.steering.edits[0].{name}")
    # Unused by these.
    assert resolved(make_edit([1], [5], "zero", sign * number, unit=unit), scales=SCALES).edits


def test_a_strength_that_vanishes_in_float32_is_refused_where_it_would_change_nothing():
    assert refusal(make_spec(make_edit([1], [5], "add", 1e-50))).reason == "STRENGTH_UNUSABLE"
    assert resolved(make_edit([1], [5], "set", 1e-50)).edits[0].strength_M.item() == 0
    assert resolved(make_edit([1], [5], "add", 0.0)).changes_nothing


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_vectors_whose_squares_leave_float32_have_their_length(size):
    (edit,) = resolved(
        make_edit([1], [], "add", 0.5, vector=[size] * D_MODEL, unit=pb.STRENGTH_UNIT_NORM), scales=SCALES
    ).edits
    assert (edit.strength_M @ edit.directions_MD).norm().item() == pytest.approx(0.5 * 11.0, rel=1e-5)


def test_a_decoder_row_without_length_has_no_unit_direction():
    def dead(layer: int) -> TopKSae:
        sae = sae_of(layer)
        sae.W_dec_FD[5] = 0
        return sae

    saes = LoadedSaes(dead)
    for edit in (make_edit([1], [4, 5], unit=pb.STRENGTH_UNIT_NORM), make_edit([1], [4, 5], "projection_cap")):
        with pytest.raises(UserError) as caught:
            resolved(edit, saes=saes, scales=SCALES)
        assert (caught.value.reason, caught.value.field) == ("VECTOR_UNUSABLE", "steering.edits[0].features[1]")
    assert resolved(make_edit([1], [5], "zero", unit=pb.STRENGTH_UNIT_NORM), saes=saes).edits
