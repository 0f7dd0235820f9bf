"""features.json: what is written is read back, and nothing else is."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.features.files import load_features, save_features
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet, ModelRecord, SaeRecord


def feature_set() -> FeatureSet:
    return FeatureSet(
        kind="contrast",
        model="embedded",
        sae="runs/x",
        model_record=ModelRecord(name="embedded", n_layers=6),
        sae_records=[SaeRecord(layer=3, d_in=8, d_sae=64, k=4)],
        entries=[
            FeatureEntry(layer=3, feature=63, score=1.5, max_activation=9.25, label="Ünï", n_positive=10),
            FeatureEntry(layer=3, feature=0, score=0.5, class_alphas={"de": -1.5}, curve=[0.0, 1.0]),
        ],
    )


@pytest.fixture
def saved(tmp_path):
    return save_features(feature_set(), tmp_path / "run" / "artifacts")


def test_what_is_saved_is_loaded_from_file_folder_and_run(saved) -> None:
    for place in (saved, saved.parent, saved.parent.parent):
        assert load_features(place) == feature_set()
    text = json.loads(saved.read_text())
    assert text["entries"][1]["score"] == 0.5
    assert text["entries"][0]["feature"] == 63, "every number stands there, also those that are zero"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text[: len(text) // 2], "not a whole feature file"),
        (lambda text: "", "not a whole feature file"),
        (lambda text: "[" * 10_000, "not a whole feature file"),
        (lambda text: text.replace('"kind": "contrast"', '"kind": ""'), "names no kind"),
        (lambda text: text.replace('"feature": 63', '"feature": 64'), "entry 0 names feature 3/64"),
        (lambda text: text.replace('"layer": 3', '"layer": 4', 1), "entry 0 names feature 4/63"),
        (lambda text: text.replace("9.25", '"NaN"'), "entry 0 holds a number that is not finite"),
        (lambda text: text.replace("-1.5", '"-Infinity"'), "entry 1 holds a number that is not finite"),
        (lambda text: text.replace('"score"', '"skore"', 1), "skore"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(saved, change, why) -> None:
    changed = change(saved.read_text())
    assert changed != saved.read_text()
    saved.write_text(changed)
    with pytest.raises(UserError) as caught:
        load_features(saved, field="steer.features")
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert (caught.value.reason, caught.value.field) == ("FEATURES_DAMAGED", "steer.features")


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(UserError) as caught:
        load_features(tmp_path)
    assert caught.value.reason == "FEATURES_NOT_FOUND"


_TEXT = json_format.MessageToJson(feature_set(), preserving_proto_field_name=True).encode()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_bytes_changed_at_random_give_a_set_or_one_clear_error(tmp_path_factory, data) -> None:
    content = bytearray(_TEXT)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.mktemp("f") / "features.json"
    path.write_bytes(bytes(content))
    try:
        features = load_features(path)
    except UserError:
        with pytest.raises(UserError, match="not a whole feature file"):
            load_features(path)
    else:
        assert all(entry.feature < 64 for entry in features.entries)
