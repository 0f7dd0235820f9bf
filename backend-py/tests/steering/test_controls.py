"""Controls change the stream as much as what they control, and in another direction; costs equal the plain formula."""

from __future__ import annotations

import math

import pytest
import torch

from qscope.data import TokenStream, open_text
from qscope.errors import Stopped, UserError
from qscope.models import capture_residuals, logits_of
from qscope.models.hooks import ResidualEdits
from qscope.sae.topk import TopKSae
from qscope.steering.baselines import with_directions
from qscope.steering.batch import SteeredBatch
from qscope.steering.controls import Activity, control_arm, refuse_meaningless_controls, with_factor
from qscope.steering.saes import LoadedSaes
from qscope.steering.scales import Scales
from qscope.steering.side_effects import neutral_costs
from qscope.v1 import steer_pb2
from qscope.v1.text_pb2 import TextSource
from tests.steering.conftest import D_SAE, SAES, make_edit, make_spec, prompt_of, resolved, sae_of

ZERO, FLIPPED, RANDOM, FOREIGN = (
    getattr(steer_pb2, f"STEERING_CONTROL_{name}") for name in ("ZERO", "FLIPPED", "RANDOM", "FOREIGN")
)
ACTIVITY = Activity(torch.linspace(0, 0.5, D_SAE), torch.linspace(0, 3, D_SAE))


def change_of(spec) -> torch.Tensor:
    """What a spec of additions adds to the stream, by layer: the sum of its edits there."""
    sums: dict[int, torch.Tensor] = {}
    for edit in spec.edits:
        sums[edit.layer] = sums.get(edit.layer, 0) + edit.strength_M @ edit.directions_MD
    return torch.stack([sums[layer] for layer in sorted(sums)])


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
    torch.testing.assert_close(other.norm(dim=1), own.norm(dim=1), rtol=1e-5, atol=0)
    for mine, theirs in zip(spec.edits, arm(spec, control).edits, strict=True):
        assert not set(mine.features) & set(theirs.features)
    assert torch.cosine_similarity(own, other).abs().max() < 0.9
    assert not torch.equal(change_of(arm(spec, control, seed=1)), other)
    torch.testing.assert_close(change_of(arm(spec, control)), other)


def alike_and_not() -> LoadedSaes:
    """SAEs whose features 30 and 31 point almost the same way, 32 and 33 at right angles; the others are random."""

    def make(layer: int):
        sae = sae_of(layer)
        W_dec_FD = torch.nn.functional.normalize(sae.W_dec_FD, dim=1)
        W_dec_FD[30:34] = 0
        W_dec_FD[30, 0] = W_dec_FD[32, 2] = W_dec_FD[33, 3] = 1
        W_dec_FD[31, :2] = torch.tensor([0.9, 0.19**0.5])
        return TopKSae(sae.W_enc_FD, sae.b_enc_F, W_dec_FD, sae.b_dec_D, k=sae.k, layer=layer)

    return LoadedSaes(make)


@pytest.mark.parametrize("conflict", ["SUM", "SEQUENTIAL"])
@pytest.mark.parametrize(("pair", "length"), [((30, 31), 3.8**0.5), ((32, 33), 2**0.5)])
@pytest.mark.parametrize("apart", [True, False])
def test_what_is_matched_is_the_sum_of_the_edits_of_a_layer(pair, length, apart, conflict):
    """Two features of cosine 0.9 change the stream by 1.95, two at right angles by 1.41; in one edit or in two."""
    saes = alike_and_not()
    features = [[one] for one in pair] if apart else [list(pair)]
    edits = [make_edit([1, 2], ids, "add", 1.0) for ids in features]
    spec = resolved(*edits, conflict=conflict, saes=saes)
    directions = {layer: torch.randn(32, generator=torch.Generator().manual_seed(layer)) for layer in (1, 2)}
    arms = [
        control_arm(spec, control, torch.Generator().manual_seed(0), saes=saes, activity_of=lambda layer: ACTIVITY)
        for control in (RANDOM, FOREIGN)
    ]
    for other in (spec, *arms, with_directions(spec, directions, "x")):
        torch.testing.assert_close(change_of(other).norm(dim=1), torch.full((2,), length), rtol=1e-5, atol=0)
    assert [len(edit.features) for edit in arms[1].edits] == [len(edit.features) for edit in spec.edits]
    foreign = [(edit.layer, feature) for edit in arms[1].edits for feature in edit.features]
    assert len(set(foreign)) == len(foreign) == 4
    assert [edit.layer for edit in arms[0].edits] == [1, 2]


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        (make_edit([1], [30], phase="prompt"), make_edit([1], [31], phase="generated"), "SUM"),
        (make_edit([1], [30], when=[{"layer": 0, "feature": 3, "above": 1.0}]), make_edit([1], [31]), "SUM"),
        (make_edit([1], [30]), make_edit([1], [31]), "PRIORITY"),
        (make_edit([1], [30]), make_edit([2], [31]), "SUM"),
    ],
)
def test_edits_that_do_not_always_add_up_are_matched_one_by_one(first, second, conflict):
    spec = resolved(first, second, conflict=conflict)
    for control in (RANDOM, FOREIGN):
        other = arm(spec, control)
        for own, theirs in zip(spec.edits, other.edits, strict=True):
            assert (theirs.layer, theirs.where, theirs.when) == (own.layer, own.where, own.when)
            lengths = [(edit.strength_M @ edit.directions_MD).norm().item() for edit in (own, theirs)]
            assert lengths[1] == pytest.approx(lengths[0], rel=1e-5)


def test_a_foreign_feature_of_another_operation_keeps_the_length_of_its_direction():
    spec = resolved(make_edit([1], [30, 31], "set", 3.0), make_edit([1], [40, 41], "add", 3.0))
    (own, _), (theirs, added) = spec.edits, arm(spec, FOREIGN).edits
    torch.testing.assert_close(theirs.directions_MD.norm(dim=1), own.directions_MD.norm(dim=1))
    lengths = [(edit.strength_M @ edit.directions_MD).norm() for edit in (spec.edits[1], added)]
    torch.testing.assert_close(lengths[1], lengths[0], rtol=1e-5, atol=0)


def test_one_feature_alone_has_the_controls_it_always_had():
    """The plain formula, bit by bit: runs of one feature stay comparable with those made before sums were matched."""
    spec = resolved(make_edit([1], [30], "add", 3.0))
    (own,), (random,), (foreign,) = spec.edits, arm(spec, RANDOM).edits, arm(spec, FOREIGN).edits
    random_D = torch.randn(32, generator=torch.Generator().manual_seed(0))
    change_D = own.strength_M @ own.directions_MD
    assert torch.equal(random.directions_MD[0], random_D / random_D.norm() * change_D.norm())
    assert random.strength_M.tolist() == [1]
    row_D = SAES.directions(1, list(foreign.features))[0]
    assert torch.equal(foreign.directions_MD[0], row_D * (own.directions_MD[0].norm() / row_D.norm()))


def test_a_control_of_no_change_is_none_and_knows_it():
    spec = resolved(make_edit([1], [30, 31], "add", 0.0))
    for control in (RANDOM, FOREIGN):
        assert arm(spec, control).changes_nothing


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


def test_no_strength_is_the_unsteered_text_which_nothing_ends():
    spec = resolved(make_edit([1], [30]), abort_when=[{"layer": 2, "feature": 3}])
    assert arm(spec, ZERO).abort_when == ()
    for control in (FLIPPED, RANDOM, FOREIGN):
        assert arm(spec, control).abort_when == spec.abort_when


def test_a_spec_without_edits_has_no_control_but_asking():
    spec = make_spec(abort_when=[{"layer": 2, "feature": 3}])
    for name, control in steer_pb2.SteeringControl.items():
        if control in (steer_pb2.STEERING_CONTROL_UNSPECIFIED, steer_pb2.STEERING_CONTROL_PROMPT):
            continue
        with pytest.raises(UserError, match="spec has none") as caught:
            refuse_meaningless_controls(spec, [control])
        assert (caught.value.reason, caught.value.field) == ("CONTROL_MEANINGLESS", "steer.controls[0]"), name
    refuse_meaningless_controls(spec, [steer_pb2.STEERING_CONTROL_PROMPT], prompt_prefix="In German: ")


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
            with ResidualEdits(loaded, batch.edits()):
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
    # Of 8 sequences of 16 tokens: all but the first token, and the second half.
    assert [cost.changed_positions for cost in found] == [0, 8 * 15, 8 * 8]


def test_costs_tell_how_far_they_are_and_obey_a_stop(tiny_model):
    loaded = tiny_model("qwen3")
    specs = [resolved(), resolved(make_edit([1], [5], "add", 4.0))]
    source = TextSource(source="embedded-heldout", field="text", split="train", context=16, pack=True)

    def stream() -> TokenStream:
        return TokenStream(open_text(source, at="t", seed=0), loaded.tokenizer, context=16, pack=True, repeat=True)

    told: list[tuple[int, int]] = []
    neutral_costs(loaded, specs, stream(), 60, SAES, on_progress=lambda *now: told.append(now))
    assert told == [(64, 128), (128, 128)]
    with pytest.raises(Stopped):
        neutral_costs(loaded, specs, stream(), 60, SAES, should_stop=lambda: len(told) >= 2)
    assert len(told) == 2


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
