"""Controls change the stream as much as what they control, and in another direction; costs equal the plain formula."""

from __future__ import annotations

import math

import pytest
import torch

from qscope.data import TokenStream, open_text
from qscope.errors import UserError
from qscope.models import capture_residuals, logits_of
from qscope.models.hooks import edit_residuals
from qscope.steering.batch import SteeredBatch
from qscope.steering.controls import Activity, control_arm, refuse_meaningless_controls, with_factor
from qscope.steering.scales import Scales
from qscope.steering.side_effects import compression, languages, neutral_costs, repeated_ngrams
from qscope.v1 import steer_pb2
from qscope.v1.text_pb2 import TextSource
from tests.steering.conftest import D_SAE, SAES, make_edit, make_spec, prompt_of, resolved, sae_of

ZERO, FLIPPED, RANDOM, FOREIGN = (
    getattr(steer_pb2, f"STEERING_CONTROL_{name}") for name in ("ZERO", "FLIPPED", "RANDOM", "FOREIGN")
)
ACTIVITY = Activity(torch.linspace(0, 0.5, D_SAE), torch.linspace(0, 3, D_SAE))


def change_of(spec) -> torch.Tensor:
    return torch.stack([edit.strength_M @ edit.directions_MD for edit in spec.edits])


def arm(spec, control: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return control_arm(spec, control, generator, saes=SAES, activity_of=lambda layer: ACTIVITY)


@pytest.fixture
def spec():
    return resolved(make_edit([1, 2], [30, 31], "add", 3.0), make_edit([3], [40], "add", -2.0))


def test_zero_and_flipped(spec):
    assert arm(spec, ZERO).changes_nothing
    torch.testing.assert_close(change_of(arm(spec, FLIPPED)), -change_of(spec))


@pytest.mark.parametrize("control", [RANDOM, FOREIGN])
def test_a_random_and_a_foreign_direction_are_as_long_and_elsewhere(spec, control):
    own, other = change_of(spec), change_of(arm(spec, control))
    if control == RANDOM:
        torch.testing.assert_close(other.norm(dim=1), own.norm(dim=1), rtol=1e-5, atol=0)
    else:
        for mine, theirs in zip(spec.edits, arm(spec, control).edits, strict=True):
            torch.testing.assert_close(theirs.directions_MD.norm(dim=1), mine.directions_MD.norm(dim=1))
            assert not set(mine.features) & set(theirs.features)
    assert torch.cosine_similarity(own, other).abs().max() < 0.9
    assert not torch.equal(change_of(arm(spec, control, seed=1)), other)
    torch.testing.assert_close(change_of(arm(spec, control)), other)


@pytest.mark.parametrize("control", [RANDOM, FOREIGN])
def test_a_negative_strength_goes_the_other_way_along_the_same_direction(control):
    up, down = (change_of(arm(resolved(make_edit([1, 2], [30], "add", s)), control)) for s in (3.0, -3.0))
    torch.testing.assert_close(down, -up)


def test_a_foreign_feature_is_about_as_active_and_alive(spec):
    for edit in arm(spec, FOREIGN).edits:
        for feature in edit.features:
            assert ACTIVITY.rate_F[feature] > 0
            assert abs(feature - 35) <= 16 + 5, (
                "activities rise with the id here, so a neighbour in one is in the other"
            )


def test_every_control_has_a_hash_of_its_own(spec):
    hashes = {spec.hash, *(arm(spec, control).hash for control in (ZERO, FLIPPED, RANDOM, FOREIGN))}
    assert len(hashes) == 5


def test_a_factor_scales_every_strength_and_a_scale_around_one():
    spec = make_spec(make_edit([1], [5], "add", 3.0), make_edit([1], [6], "scale", 3.0), make_edit([1], [7], "zero"))
    half = with_factor(spec, 0.5)
    assert [edit.strength for edit in half.edits][:2] == [1.5, 2.0]
    assert [edit.strength for edit in with_factor(spec, 0.0).edits][:2] == [0.0, 1.0]
    with pytest.raises(UserError) as caught:
        with_factor(make_spec(make_edit([1], [7], "zero")), 0.5)
    assert caught.value.reason == "NOTHING_TO_SWEEP"


@pytest.mark.parametrize(
    ("edit", "control"),
    [
        (make_edit([1], [5], "set"), FLIPPED),
        (make_edit([1], [5], "zero"), RANDOM),
        (make_edit([1], [], vector=[1.0]), FOREIGN),
    ],
)
def test_controls_that_say_nothing_are_refused(edit, control):
    with pytest.raises(UserError) as caught:
        refuse_meaningless_controls(make_spec(edit), [ZERO, control] if edit.op == 1 else [control])
    assert caught.value.reason == "CONTROL_MEANINGLESS"
    assert caught.value.remedy


def test_costs_on_neutral_text_equal_the_plain_formula(tiny_model):
    loaded = tiny_model("qwen3")
    specs = [
        resolved(),
        resolved(make_edit([1], [5], "add", 4.0)),
        resolved(make_edit([2], [9], "add", 4.0, "generated")),
    ]

    def stream() -> TokenStream:
        source = TextSource(source="embedded-heldout", field="text", split="train", context=16, pack=True)
        return TokenStream(open_text(source, at="t", seed=0), loaded.tokenizer, context=16, pack=True, repeat=True)

    found = neutral_costs(loaded, specs, stream(), 64, SAES)
    ids = torch.cat([stream().next_batch(8).input_ids_BT])
    for spec, cost in zip(specs, found, strict=True):
        loss, kl, n = 0.0, 0.0, 0
        for row in ids:
            clean = logits_of(loaded, row[None])[0].double().log_softmax(-1)
            batch = SteeredBatch(loaded, [prompt_of(row[:8].tolist())], [spec], SAES)
            with edit_residuals(loaded, batch.edits()):
                new = logits_of(loaded, row[None])[0].double().log_softmax(-1)
            for position in range(7, 15):
                loss -= new[position, row[position + 1]].item()
                kl += (clean[position].exp() * (clean[position] - new[position])).sum().item()
                n += 1
        assert cost.tokens == n == 64
        assert cost.loss == pytest.approx(loss / n, rel=1e-5)
        assert cost.kl == pytest.approx(kl / n, rel=1e-4, abs=1e-7)
        assert cost.perplexity_ratio == pytest.approx(math.exp(loss / n - found[0].loss), rel=1e-4)
    assert found[0].kl == pytest.approx(0, abs=1e-9)
    assert found[1].kl > 1e-6


def test_repetition_and_compression_of_known_texts():
    assert repeated_ngrams([1, 2, 3, 4, 5], 3) == 0
    # 123 231 312 123 231: two of five came before.
    assert repeated_ngrams([1, 2, 3, 1, 2, 3, 1], 3) == pytest.approx(2 / 5)
    assert repeated_ngrams([1, 2], 3) == 0
    assert compression("") == 1
    assert compression("la " * 400) < 0.05 < compression("Eight quick wizards jump over 1,273 boxes.")


def test_languages_of_texts_without_letters_are_empty():
    found = languages(["The file is saved in the folder.", "文件保存在文件夹中。", "123 !!", ""])
    assert found == ["en", "zh", "", ""]
    assert languages(["Die Datei wird gespeichert."], among=["en", "de"]) == ["de"]


def test_calibration_is_the_median_length_and_the_largest_activation(tiny_model):
    from qscope.steering.calibration import _text, measure_activity, measure_scales

    loaded = tiny_model("qwen3")
    scales = measure_scales(loaded, [1], [(1, 5), (2, 6)], SAES, tokens=2000)
    assert isinstance(scales, Scales)
    stream, norms, best, fired, total = _text(loaded), [], {(1, 5): 0.0, (2, 6): 0.0}, torch.zeros(D_SAE), 0
    while stream.tokens < 2000:
        captured = capture_residuals(loaded, [1, 2], stream.next_batch(8).input_ids_BT)
        norms.append(captured[1][:, 1:].norm(dim=-1).flatten())
        for layer, feature in best:
            x_ND = captured[layer][:, 1:].flatten(0, 1)
            values, indices = sae_of(layer).encode(x_ND)
            z_NF = torch.zeros(len(x_ND), D_SAE).scatter(1, indices, values)
            best[layer, feature] = max(best[layer, feature], z_NF[:, feature].max().item())
            if layer == 1:
                fired += (z_NF > 0).sum(0)
                total += len(x_ND)
    assert scales.median_norm[1] == pytest.approx(torch.cat(norms).median().item(), rel=1e-5)
    for key, value in best.items():
        assert scales.max_activation[key] == pytest.approx(value, rel=1e-4)
    activity = measure_activity(loaded, sae_of(1), tokens=2000)
    torch.testing.assert_close(activity.rate_F, fired / total)
