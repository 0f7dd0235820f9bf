"""The penalty on rewards against numbers by hand, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from qscope.errors import UserError
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.sae_loss import FeatureReduction
from qscope.posttraining.sae_penalty import SaePenalty, WatchedFeatures, penalty_excess

MEAN, SUM = FeatureReduction.MEAN, FeatureReduction.SUM


def watched(layer: int = 0) -> WatchedFeatures:
    """f_0 = x_0 + 1/2 above 1, f_1 = x_1 - 1/4 above -1/2."""
    rows = FeatureRows(layer, (3, 8), torch.eye(2), torch.tensor([0.5, -0.25]))
    return WatchedFeatures(rows, torch.tensor([1.0, -0.5]))


# Excesses by hand: (1.5, 0), (0, 1.25), then a token of the prompt, and padding.
X_BTD = torch.tensor([[[9.0, 9], [2, -3], [0, 1]], [[9, 9], [9, 9], [9, 9]]])
GENERATED_BT = torch.tensor([[False, True, True], [False, False, False]])


@pytest.mark.parametrize(("reduction", "wanted"), [(SUM, 2.75 / 2), (MEAN, 2.75 / 4)])
def test_numbers_by_hand(reduction, wanted):
    penalty = SaePenalty([watched()], weight=0.5, feature_reduction=reduction)
    excess_B = penalty.excess({0: X_BTD}, GENERATED_BT)
    # A rollout without tokens of its own costs nothing.
    assert excess_B.tolist() == [wanted, 0.0]
    assert penalty.penalised(torch.tensor([1.0, -1.0]), excess_B).tolist() == [1 - wanted / 2, -1.0]


def test_layers_are_added():
    penalty = SaePenalty([watched(0), watched(2)], weight=1.0, feature_reduction=SUM)
    assert penalty.layers == [0, 2]
    assert penalty.excess({0: X_BTD, 2: X_BTD}, GENERATED_BT)[0].item() == 2.75


def test_an_ungraded_rollout_stays_ungraded():
    found = SaePenalty([watched()], weight=1.0).penalised(torch.tensor([math.nan, 1.0]), torch.tensor([0.5, 0.0]))
    assert found.isnan().tolist() == [True, False]


def test_what_is_not_finite_outside_the_rollout_stays_out():
    x_BTD = X_BTD.clone()
    x_BTD[0, 0], x_BTD[1] = math.nan, math.inf
    penalty = SaePenalty([watched()], weight=1.0, feature_reduction=SUM)
    assert penalty.excess({0: x_BTD}, GENERATED_BT).tolist() == [2.75 / 2, 0.0]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_a_weight_that_rewards_is_refused(weight):
    with pytest.raises(UserError) as caught:
        SaePenalty([watched()], weight=weight)
    assert caught.value.reason == "SAE_PENALTY_WEIGHT"


def test_neither_padding_nor_the_rollouts_beside_it_matter(tiny_model):
    loaded = tiny_model("qwen3")
    noise = torch.Generator().manual_seed(6)
    parts = []
    for layer in (1, 2):
        rows = FeatureRows(layer, (0, 1, 2), torch.randn(3, 32, generator=noise), torch.zeros(3))
        parts.append(WatchedFeatures(rows, torch.tensor([0.1, -0.2, 0.3])))
    penalty = SaePenalty(parts, weight=1.0)
    prompts, lengths = [3, 5, 2], [4, 1, 9]
    singles, wholes = [], []
    for prompt, length in zip(prompts, lengths, strict=True):
        ids_1T = torch.randint(3, 250, (1, prompt + length), generator=noise)
        generated_1T = torch.arange(prompt + length)[None] >= prompt
        singles.append(penalty_excess(loaded, penalty, ids_1T, torch.ones_like(ids_1T), generated_1T))
        wholes.append((ids_1T, generated_1T))
    width = 14
    for left in (True, False):
        ids_BT, mask_BT, generated_BT = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width), []
        for b, (ids_1T, generated_1T) in enumerate(wholes):
            length = ids_1T.shape[1]
            place = slice(width - length, width) if left else slice(0, length)
            ids_BT[b, place], mask_BT[b, place] = ids_1T[0], 1
            row_T = torch.zeros(width, dtype=torch.bool)
            row_T[place] = generated_1T[0]
            generated_BT.append(row_T)
        together_B = penalty_excess(loaded, penalty, ids_BT, mask_BT, torch.stack(generated_BT))
        torch.testing.assert_close(together_B, torch.cat(singles), rtol=1e-4, atol=1e-6)
    assert (together_B > 0).all()
    assert not together_B.requires_grad
