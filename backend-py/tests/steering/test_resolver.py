"""One resolver serves many requests: what one of them names must not change what the next one means."""

from __future__ import annotations

import itertools

import pytest

from qscope.errors import Stopped, UserError
from qscope.features.files import save_features
from qscope.steering import resolver as module
from qscope.steering.resolver import SpecResolver
from qscope.steering.scales import Scales
from qscope.v1 import steering_pb2 as pb
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet
from tests.steering.conftest import D_MODEL, D_SAE, SAES, make_edit, make_spec

LAYER, FEATURE = 1, 5


@pytest.fixture
def measurements(monkeypatch) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """What was measured; every norm is 3, every maximum 7 and that of feature 6 zero."""
    asked = []

    def measure(loaded, layers, features, saes, *, should_stop) -> Scales:
        if should_stop():
            raise Stopped
        asked.append((list(layers), list(features)))
        norms = dict.fromkeys([*layers, *(layer for layer, _ in features)], 3.0)
        return Scales(norms, {pair: 0.0 if pair[1] == 6 else 7.0 for pair in features}, "a test")

    monkeypatch.setattr(module, "measure_scales", measure)
    return asked


@pytest.fixture
def specs(tmp_path) -> dict[str, pb.SteeringSpec]:
    """The same feature by its number and by files that know different things about it."""
    made = {}
    for unit, word in ((pb.STRENGTH_UNIT_NORM, "norm"), (pb.STRENGTH_UNIT_MAX, "max")):
        made[f"plain {word}"] = make_spec(make_edit([LAYER], [FEATURE], unit=unit))
        for name, value in (("file", 2.0), ("other", 5.0), ("silent", 0.0)):
            entry = FeatureEntry(layer=LAYER, feature=FEATURE, max_activation=value, median_residual_norm=value)
            found = FeatureSet(kind="contrast", model="tiny", sae="x", entries=[entry])
            found.model_record.d_model = D_MODEL
            found.sae_records.add(layer=LAYER, d_in=D_MODEL, d_sae=D_SAE, k=8)
            path = tmp_path / name
            path.mkdir(exist_ok=True)
            made[f"{name} {word}"] = make_spec(
                make_edit([], [], feature_file=str(save_features(found, path)), unit=unit)
            )
    return made


def strength(resolver: SpecResolver, spec: pb.SteeringSpec) -> float:
    expanded, known = resolver.expand(spec, at="steering")
    return resolver.resolve(expanded, known, at="steering").edits[0].strength_M.item()


def test_a_spec_means_the_same_whoever_asked_before(tiny_model, specs, measurements):
    loaded = tiny_model("qwen3")
    alone = {name: strength(SpecResolver(loaded, SAES), spec) for name, spec in specs.items()}
    assert [alone[f"{name} max"] for name in ("plain", "file", "other", "silent")] == [14.0, 4.0, 10.0, 14.0]
    assert alone["plain norm"] == alone["silent norm"] == pytest.approx(1.5 * alone["file norm"])
    for first, second in itertools.permutations(specs, 2):
        resolver = SpecResolver(loaded, SAES)
        assert strength(resolver, specs[first]) == alone[first]
        assert strength(resolver, specs[second]) == alone[second], f"{second} after {first}"


def test_what_was_measured_is_not_measured_again_even_if_it_was_nothing(tiny_model, measurements):
    resolver = SpecResolver(tiny_model("qwen3"), SAES)
    for _ in range(2):
        resolver.resolve(make_spec(make_edit([LAYER], [FEATURE], unit=pb.STRENGTH_UNIT_MAX)), Scales(), at="steering")
        with pytest.raises(UserError) as caught:
            resolver.resolve(make_spec(make_edit([LAYER], [6], unit=pb.STRENGTH_UNIT_MAX)), Scales(), at="steering")
        assert caught.value.reason == "UNIT_UNKNOWN"
    assert measurements == [([], [(LAYER, FEATURE)]), ([], [(LAYER, 6)])]


def test_a_measurement_that_was_stopped_leaves_nothing_behind(tiny_model):
    resolver = SpecResolver(tiny_model("qwen3"), SAES)
    spec = make_spec(make_edit([LAYER], [FEATURE], unit=pb.STRENGTH_UNIT_NORM))
    asked = iter([False, True])
    with pytest.raises(Stopped):
        resolver.resolve(spec, Scales(), at="steering", should_stop=lambda: next(asked))
    assert next(asked, None) is None, "it is asked between batches"
    assert resolver.measured == Scales()
