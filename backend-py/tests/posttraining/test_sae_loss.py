"""The SAE loss against numbers worked out by hand and a plain loop, and what one step's gradient must not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from qscope.errors import UserError
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.sae_loss import (
    UNTAGGED,
    FeatureReduction,
    HeldFeatures,
    Normalisation,
    SaeLoss,
    answer_mask,
)
from qscope.sae.topk import TopKSae
from tests.posttraining.tiny import residuals

MEAN, SUM = FeatureReduction.MEAN, FeatureReduction.SUM
OFFICIAL = Normalisation.OFFICIAL_CODE

# Worked out by hand. Features: f_0 = x_0 + 1/2, f_1 = x_1 - 1/4. Languages: 0 is held down, 1 and 2 are others.
#
#   row  language  label      x             f              alpha         ReLU(f - alpha)
#   0    1         prompt     9, 9          (not counted)
#   0    1         answer     -1.25, 1      -0.75, 0.75    -1, 0.25      0.25, 0.5
#   0    1         answer     0.5, -3       1, -3.25       -1, 0.25      2, 0
#   1    0         answer     4, 4          (its own language)           0, 0
#   1    0         answer     5, 5          (its own language)           0, 0
#   1    0         padding    8, 8          (not counted)
#   2    2         prompt     7, 7          (not counted)
#   2    2         answer     -0.25, -0.5   0.25, -0.75    0, -0.5       0.25, 0
#   2    2         padding    6, 6          (not counted)
#
# Together 3, over 5 answer tokens and 2 features.
HAND_X = [[[9, 9], [-1.25, 1], [0.5, -3]], [[4, 4], [5, 5], [8, 8]], [[7, 7], [-0.25, -0.5], [6, 6]]]
HAND_LABELS = [[-100, 5, 5], [5, 5, -100], [-100, 5, -100]]
HAND_LANGUAGE = [1, 0, 2]
HAND_GRADIENT = [[[0, 0], [1, 1], [1, 0]], [[0, 0], [0, 0], [0, 0]], [[0, 0], [1, 0], [0, 0]]]


def hand_features(layer: int = 1) -> HeldFeatures:
    rows = FeatureRows(layer, (3, 8), torch.eye(2), torch.tensor([0.5, -0.25]))
    alpha_GM = torch.tensor([[-50.0, -50.0], [-1.0, 0.25], [0.0, -0.5]])
    return HeldFeatures(rows, torch.tensor([0, 0]), alpha_GM, torch.tensor([[False] * 2, [True] * 2, [True] * 2]))


def hand_term(loss: SaeLoss, dtype=torch.float64, **batch):
    x_BTD = torch.tensor(HAND_X, dtype=dtype, requires_grad=True)
    mask_BT = answer_mask(torch.tensor(HAND_LABELS))
    term = loss({1: x_BTD}, torch.tensor(HAND_LANGUAGE), mask_BT, GlobalBatch.of([mask_BT], **batch))
    term.loss.backward()
    return term, x_BTD.grad


@pytest.mark.parametrize(
    ("options", "wanted", "slope"),
    [
        ({"feature_reduction": SUM}, 3 / 5, 1 / 5),
        ({"feature_reduction": MEAN}, 3 / 10, 1 / 10),
        ({"normalisation": OFFICIAL}, 3 / 11, 1 / 11),
    ],
    ids=["sum", "mean", "official-code"],
)
def test_the_hand_table(options, wanted, slope):
    term, gradient_BTD = hand_term(SaeLoss([hand_features()], weight=0.5, **options))
    assert term.loss.item() == pytest.approx(0.5 * wanted, abs=1e-15)
    torch.testing.assert_close(
        gradient_BTD, 0.5 * slope * torch.tensor(HAND_GRADIENT, dtype=torch.float64), rtol=1e-15, atol=0
    )
    assert (term.excess[1].item(), term.active[1].item(), term.held[1].item()) == (3.0, 4, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_hand_table_in_the_formats_of_models(dtype):
    # Every number of the table is exact in bfloat16.
    term, gradient_BTD = hand_term(SaeLoss([hand_features()], weight=1.0, feature_reduction=SUM), dtype)
    assert term.loss.dtype == torch.float32
    assert term.loss.item() == pytest.approx(0.6, rel=1e-6)
    assert gradient_BTD.dtype == dtype


def test_the_official_weight_grows_with_the_number_of_micro_batches():
    # The trap: the official code adds a mean per micro-batch, 32 of them, so what it calls 5e-4 is 0.016 of a mean over
    # the step, and half of that of a sum over two features; but for the 1 in its divisor of 11.
    official = SaeLoss([hand_features()], weight=5e-4, normalisation=OFFICIAL)
    mean, total = (
        SaeLoss([hand_features()], weight=0.016),
        SaeLoss([hand_features()], weight=0.008, feature_reduction=SUM),
    )
    mask_BT = answer_mask(torch.tensor(HAND_LABELS))
    arguments = ({1: torch.tensor(HAND_X, dtype=torch.float64)}, torch.tensor(HAND_LANGUAGE), mask_BT)
    one, many = GlobalBatch.of([mask_BT]), GlobalBatch.of([mask_BT] * 32)
    step = 32 * official(*arguments, many).loss.item()
    assert step == pytest.approx(32 * official(*arguments, one).loss.item())
    assert step * 11 / 10 == pytest.approx(32 * mean(*arguments, many).loss.item())
    assert step * 11 / 10 == pytest.approx(32 * total(*arguments, many).loss.item())
    # The mean over the step does not grow; and a trainer that divides by their number divides the official one.
    assert mean(*arguments, one).loss.item() == pytest.approx(32 * mean(*arguments, many).loss.item())
    divided = GlobalBatch.of([mask_BT] * 32, micro_batches=32)
    assert official(*arguments, divided).loss.item() / 32 == pytest.approx(5e-4 * 3 / 11)


def reference(held, resids, language_BT, answer_BT, weight, reduction, tokens) -> float:
    """The definition, one number at a time."""
    total = 0.0
    for part in held:
        targets = part.target_M.tolist()
        for b in range(answer_BT.shape[0]):
            for t in range(answer_BT.shape[1]):
                language = int(language_BT[b, t])
                if not answer_BT[b, t] or language == UNTAGGED:
                    continue
                for m, target in enumerate(targets):
                    if target == language:
                        continue
                    x_D, w_D = resids[part.rows.layer][b, t].tolist(), part.rows.W_enc_MD[m].tolist()
                    f = math.fsum(x * w for x, w in zip(x_D, w_D, strict=True)) + float(part.rows.b_enc_M[m])
                    share = targets.count(target) if reduction is MEAN else 1
                    total += max(0.0, f - float(part.alpha_GM[language, m])) / share
    return weight * total / tokens


@pytest.mark.parametrize("reduction", [MEAN, SUM])
@pytest.mark.parametrize("targets", [(0,), (0, 2)])
def test_any_layers_targets_and_languages_of_tokens_equal_the_definition(held, reduction, targets):
    noise = torch.Generator().manual_seed(8)
    parts = [held(1, 3, targets), held(2, 2, targets)]
    resids = {layer: torch.randn(4, 6, 16, generator=noise, dtype=torch.float64) for layer in (1, 2)}
    answer_BT = torch.rand(4, 6, generator=noise) < 0.7
    language_BT = torch.randint(-1, 3, (4, 6), generator=noise)
    batch = GlobalBatch.of([answer_BT, answer_BT[:1]])
    loss = SaeLoss(parts, weight=0.3, feature_reduction=reduction)
    assert loss.layers == [1, 2]
    found = loss(resids, language_BT, answer_BT, batch).loss.item()
    wanted = reference(parts, resids, language_BT, answer_BT, 0.3, reduction, batch.tokens)
    assert found == pytest.approx(wanted, rel=1e-13)
    assert wanted > 0


def step_gradients(trained, rows, loss, split, **options):
    """Gradients of one step over groups of rows, added up as a trainer does."""
    trained.model.zero_grad()
    parts = [rows.take(index) for index in split]
    batch = GlobalBatch.of([part.answer_BT for part in parts], **options)
    for part in parts:
        resids = residuals(trained.model, trained.decoder, part, loss.layers)
        # A trainer that divides does so here.
        (loss(resids, part.language_B, part.answer_BT, batch).loss / batch.micro_batches).backward()
    return trained.gradients()


SPLITS = [[[row] for row in range(8)], [[0, 3, 1], [2], [7, 6, 5, 4]]]


@pytest.mark.parametrize("split", SPLITS, ids=["1 x 8", "unequal"])
@pytest.mark.parametrize("divides", [False, True])
def test_accumulation_does_not_change_the_gradient(trained, rows, held, split, divides):
    loss = SaeLoss([held(1), held(2)], weight=0.7)
    whole = step_gradients(trained, rows, loss, [list(range(8))])
    parts = step_gradients(trained, rows, loss, split, micro_batches=len(split) if divides else 1)
    assert sorted(whole) == sorted(parts)
    assert max(gradient.abs().max() for gradient in whole.values()) > 1e-3
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-12, atol=1e-12, msg=name)


def test_the_official_normalisation_does_change_it(trained, rows, held):
    loss = SaeLoss([held(1)], weight=0.7, normalisation=OFFICIAL)
    whole = step_gradients(trained, rows, loss, [list(range(8))])
    parts = step_gradients(trained, rows, loss, SPLITS[0])
    name = "model.layers.0.mlp.up_proj.weight"
    assert parts[name].norm() > 3 * whole[name].norm()


def test_the_gradient_reaches_the_layers_below_and_nothing_else(trained, rows, held):
    gradients = step_gradients(trained, rows, SaeLoss([held(1)], weight=1.0), [list(range(8))])
    reached = {name.split(".")[2] for name in gradients if ".layers." in name}
    assert reached == {"0", "1"}
    assert "model.norm.weight" not in gradients
    assert gradients["model.embed_tokens.weight"].any()
    part = held(1)
    assert not part.rows.W_enc_MD.requires_grad
    assert part.rows.W_enc_MD.grad is None


@pytest.mark.parametrize("language", [0, UNTAGGED], ids=["its own language", "untagged"])
def test_a_row_that_no_feature_is_held_down_on_has_exactly_no_gradient(trained, rows, held, language):
    row = rows.take([1])
    loss = SaeLoss([held(2)], weight=1.0)
    batch = GlobalBatch.of([row.answer_BT])
    resids = residuals(trained.model, trained.decoder, row, [2])
    term = loss(resids, torch.tensor([language]), row.answer_BT, batch)
    term.loss.backward()
    assert term.loss.item() == 0.0
    assert term.held[2].item() == 0
    assert all(not gradient.any() for gradient in trained.gradients().values())
    # The same row in another language has one.
    resids = residuals(trained.model, trained.decoder, row, [2])
    loss(resids, torch.tensor([1]), row.answer_BT, batch).loss.backward()
    assert trained.gradients()["model.embed_tokens.weight"].any()


def test_such_a_row_beside_others_gets_nothing_and_counts_in_the_mean(held):
    resid_BTD = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    resid_BTD.requires_grad_()
    mask_BT = torch.ones(2, 5, dtype=torch.bool)
    loss, batch = SaeLoss([held(0)], weight=1.0), GlobalBatch.of([mask_BT])
    term = loss({0: resid_BTD}, torch.tensor([1, 0]), mask_BT, batch)
    term.loss.backward()
    assert not resid_BTD.grad[1].any()
    assert resid_BTD.grad[0].any()
    alone = loss({0: resid_BTD[:1]}, torch.tensor([1]), mask_BT[:1], GlobalBatch.of([mask_BT[:1]])).loss
    assert term.loss.item() == pytest.approx(alone.item() / 2)


def test_one_language_may_be_held_down_on_its_own_rows_too(held):
    part = held(0)
    included = HeldFeatures(part.rows, part.target_M, part.alpha_GM, torch.ones_like(part.holds_GM))
    mask_BT = torch.ones(1, 5, dtype=torch.bool)
    resid_BTD = torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    arguments = ({0: resid_BTD}, torch.tensor([0]), mask_BT, GlobalBatch.of([mask_BT]))
    assert SaeLoss([included], weight=1.0)(*arguments).loss > 0
    assert SaeLoss([part], weight=1.0)(*arguments).loss == 0


def test_what_is_not_finite_at_padding_stays_out(held):
    resid_BTD = torch.randn(1, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask_BT = torch.tensor([[True, True, False, False]])
    resid_BTD[0, 2], resid_BTD[0, 3] = torch.nan, torch.inf
    resid_BTD.requires_grad_()
    term = SaeLoss([held(0)], weight=1.0)({0: resid_BTD}, torch.tensor([1]), mask_BT, GlobalBatch.of([mask_BT]))
    term.loss.backward()
    assert math.isfinite(term.loss.item())
    assert resid_BTD.grad.isfinite().all()
    assert not resid_BTD.grad[0, 2:].any()


def test_autocast_does_not_round_the_product():
    noise = torch.Generator().manual_seed(4)
    sae = TopKSae(torch.randn(9, 32, generator=noise), torch.zeros(9), torch.empty(0, 32), torch.zeros(32), k=3)
    rows, x_BTD = FeatureRows.of(sae, [7, 2]), torch.randn(2, 3, 32, generator=noise)
    wanted = (x_BTD.double() @ sae.W_enc_FD[[7, 2]].double().T).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = rows.pre_activations(x_BTD)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)


def test_rows_are_copies_in_the_order_asked_for_and_the_sae_can_go():
    W_FD, b_F = torch.randn(100, 8), torch.randn(100)
    rows = FeatureRows.of(TopKSae(W_FD, b_F, torch.empty(0, 8), torch.zeros(8), k=3, layer=4), [70, 2])
    assert (rows.layer, rows.features) == (4, (70, 2))
    assert rows.W_enc_MD.untyped_storage().nbytes() == 2 * 8 * 4
    torch.testing.assert_close(rows.W_enc_MD, W_FD[[70, 2]], rtol=0, atol=0)
    torch.testing.assert_close(rows.b_enc_M, b_F[[70, 2]], rtol=0, atol=0)
    half = FeatureRows.of(TopKSae(W_FD.bfloat16(), b_F.bfloat16(), torch.empty(0, 8), torch.zeros(8), k=3), [1])
    assert half.W_enc_MD.dtype == torch.float32


def test_a_feature_the_sae_does_not_have_is_refused():
    sae = TopKSae(torch.randn(5, 8), torch.zeros(5), torch.empty(0, 8), torch.zeros(8), k=3, layer=4)
    with pytest.raises(UserError, match="Feature 5 does not exist: the SAE of layer 4 has 5 features") as caught:
        FeatureRows.of(sae, [0, 5], field="sft.sae_loss.features")
    assert (caught.value.reason, caught.value.field) == ("FEATURE_OUT_OF_RANGE", "sft.sae_loss.features")


@pytest.mark.parametrize("weight", [0.0, -0.1, math.nan, math.inf])
def test_a_weight_that_does_nothing_is_refused(weight):
    with pytest.raises(UserError, match="weight") as caught:
        SaeLoss([hand_features()], weight=weight)
    assert caught.value.reason == "SAE_LOSS_WEIGHT"


def test_the_official_code_knows_one_language_and_a_mean(held):
    with pytest.raises(UserError, match="one target language"):
        SaeLoss([held(1, 2, (0, 1))], weight=1.0, normalisation=OFFICIAL)
    with pytest.raises(UserError, match="a mean over features"):
        SaeLoss([held(1)], weight=1.0, normalisation=OFFICIAL, feature_reduction=SUM)


def test_a_step_without_answers_adds_nothing(held):
    mask_BT = torch.zeros(1, 4, dtype=torch.bool)
    batch = GlobalBatch.of([mask_BT])
    assert (batch.tokens, batch.scale) == (0, 0.0)
    resid_BTD = torch.randn(1, 4, 16, dtype=torch.float64)
    assert SaeLoss([held(0)], weight=1.0)({0: resid_BTD}, torch.tensor([1]), mask_BT, batch).loss.item() == 0.0


def test_a_sequence_that_is_sharded_is_noticed(held):
    mask_BT = torch.ones(1, 8, dtype=torch.bool)
    with pytest.raises(AssertionError, match="sharded"):
        SaeLoss([held(0)], weight=1.0)(
            {0: torch.randn(1, 4, 16)}, torch.tensor([1]), mask_BT, GlobalBatch.of([mask_BT])
        )
