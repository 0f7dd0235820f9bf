"""Each term beside the cross-entropy, held to a plain loop in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.sae_loss import UNTAGGED, SaeLoss
from qscope.posttraining.sft_terms import ACTIVE, EntropyTerm, Forward, KlTerm, SaeTerm, TokenProbabilityTerm
from tests.posttraining.tuned import held_tiny

V = 7
LABELS_BT = torch.tensor([[-100, -100, 3, 5, -100], [-100, 2, 6, 1, 4]])
#: Where those answer tokens are predicted from.
POSITIONS = [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]
LANGUAGE_BT = torch.tensor([[1] * 5, [0] * 5])
BATCH = GlobalBatch(tokens=20, ranks=2)


def logits(seed: int) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(2, 5, V, generator=noise, dtype=torch.float64)).requires_grad_(True)


def forward(logits_BTV: Tensor, **more: object) -> Forward:
    answer_BT = LABELS_BT[:, 1:] != -100
    return Forward(
        {"input_ids": LABELS_BT}, LABELS_BT, LANGUAGE_BT, BATCH, logits_NV=logits_BTV[:, :-1][answer_BT], **more
    )


def softmax(row: list[float]) -> list[float]:
    exps = [math.exp(value - max(row)) for value in row]
    return [value / sum(exps) for value in exps]


def test_kl_is_to_the_model_before_and_over_the_whole_vocabulary() -> None:
    now_BTV, before_BTV = logits(1), logits(2)
    asked = []

    def start(**inputs: object) -> dict[str, Tensor]:
        asked.append((inputs, torch.is_grad_enabled()))
        return {"logits": before_BTV[:, :-1][LABELS_BT[:, 1:] != -100]}

    loss, numbers = KlTerm(0.3, start)(forward(now_BTV))
    wanted = 0.0
    for row, place in POSITIONS:
        p, q = softmax(now_BTV[row, place].tolist()), softmax(before_BTV[row, place].tolist())
        wanted += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert loss.item() == pytest.approx(0.3 * 2 / 20 * wanted, rel=1e-5)
    total, count = numbers["kl"]
    assert (total.item(), count) == (pytest.approx(wanted, rel=1e-5), 6)
    assert [grad for _, grad in asked] == [False]
    loss.backward()
    assert now_BTV.grad is not None
    assert before_BTV.grad is None
    now_NV = forward(now_BTV).logits_NV
    zero, _ = KlTerm(0.3, lambda **_: {"logits": now_NV.detach()})(forward(now_BTV))
    assert zero.item() == pytest.approx(0.0, abs=1e-6)


def test_probability_of_foreign_tokens_is_summed_and_the_own_language_is_left_alone() -> None:
    now_BTV = logits(3)
    # Rows of language 0 have nothing foreign; to language 1 tokens 2 and 5 are.
    held_GV = torch.zeros(2, V - 1, dtype=torch.bool)
    held_GV[1, [2, 5]] = True
    loss, numbers = TokenProbabilityTerm(0.7, held_GV)(forward(now_BTV))
    wanted = 0.0
    for row, place in POSITIONS:
        if row == 0:
            p = softmax(now_BTV[row, place].tolist())
            wanted += p[2] + p[5]
    assert loss.item() == pytest.approx(0.7 * 2 / 20 * wanted, rel=1e-5)
    assert numbers["token_probability"][0].item() == pytest.approx(wanted, rel=1e-5)
    loss.backward()
    assert now_BTV.grad is not None
    assert now_BTV.grad[1].abs().max() == 0
    assert now_BTV.grad[0, 1].abs().max() > 0
    unknown = torch.full_like(LANGUAGE_BT, UNTAGGED)
    made = forward(now_BTV)
    silent = Forward(made.inputs, made.labels_BT, unknown, BATCH, logits_NV=made.logits_NV)
    assert float(TokenProbabilityTerm(0.7, held_GV)(silent)[0].detach()) == 0


def test_the_entropy_bonus_falls_with_the_entropy() -> None:
    entropy = torch.tensor(12.5, requires_grad=True)
    loss, _ = EntropyTerm(0.01)(forward(logits(4), entropy=entropy))
    assert loss.item() == pytest.approx(-0.01 * 2 / 20 * 12.5)
    loss.backward()
    assert float(entropy.grad) == pytest.approx(-0.001)


def test_the_sae_term_is_the_loss_and_refuses_a_dead_capture_once() -> None:
    loss = SaeLoss([held_tiny(1), held_tiny(3)], weight=0.5)
    term = SaeTerm(loss)
    assert term.layers == (1, 3)
    resids = {layer: torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(layer)) for layer in (1, 3)}
    with pytest.raises(UserError, match="carries no gradient"):
        term(forward(logits(5), resids=resids))
    live = {layer: resid.requires_grad_(True) for layer, resid in resids.items()}
    made = forward(logits(5), resids=live)
    value, numbers = term(made)
    plain = loss(live, LANGUAGE_BT, made.answer_BT, BATCH)
    assert value.item() == plain.loss.item()
    active, held = numbers[ACTIVE]
    # Language 1 is a row of two answer tokens, three features, two layers.
    assert int(held) == 2 * 3 * 2
    assert 0 < int(active) <= int(held)
