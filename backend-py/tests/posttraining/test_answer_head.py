"""The output layer at the positions of answers: against plain float64, in pieces, and beside TRL's."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from trl.trainer.utils import add_fused_lm_head

from qscope.posttraining.answer_head import add_answer_head, answer_scores

#: Two rows; the second is padded. Answers begin at different places.
IDS_BT = torch.tensor([[40, 41, 77, 9, 12, 30], [55, 63, 200, 9, 0, 0]])
LABELS_BT = torch.tensor([[-100, -100, 77, 9, 12, 30], [-100, 63, 200, 9, -100, -100]])
MASK_BT = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
CALL = {"input_ids": IDS_BT, "attention_mask": MASK_BT, "labels": LABELS_BT}


def by_hand(logits_NV: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    p_NV = logits_NV.exp() / logits_NV.exp().sum(1, keepdim=True)
    return p_NV[torch.arange(len(target_N)), target_N].log(), -(p_NV * p_NV.log()).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.7, -1.3)])
@pytest.mark.parametrize("held", [1 << 25, 100, 37, 1])
def test_scores_and_their_gradients_are_those_of_the_plain_formula(held, weights, temperature) -> None:
    noise = torch.Generator().manual_seed(3)
    hidden_ND = torch.randn(11, 8, generator=noise)
    head = nn.Linear(8, 37)
    with torch.no_grad():
        for part in head.parameters():
            part.copy_(torch.randn(part.shape, generator=noise))
    target_N, share_N = torch.randint(37, (11,), generator=noise), torch.rand(11, generator=noise)

    hidden_ND.requires_grad_(True)
    found_N2 = answer_scores(hidden_ND, head, target_N, temperature=temperature, held=held)
    (share_N[:, None] * found_N2 * torch.tensor(weights)).sum().backward()

    exact, there_ND = copy.deepcopy(head).double(), hidden_ND.detach().double().requires_grad_(True)
    exact.zero_grad()
    wanted_N2 = torch.stack(by_hand(exact(there_ND) / temperature, target_N), 1)
    (share_N.double()[:, None] * wanted_N2 * torch.tensor(weights)).sum().backward()

    torch.testing.assert_close(found_N2.double(), wanted_N2, atol=2e-5, rtol=1e-5)
    for mine, exactly in zip((hidden_ND, *head.parameters()), (there_ND, *exact.parameters()), strict=True):
        torch.testing.assert_close(mine.grad.double(), exactly.grad, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("adapters", [False, True])
def test_it_gives_what_trl_gives(adapters, tiny_model) -> None:
    torch.manual_seed(0)
    models = [copy.deepcopy(tiny_model().model).requires_grad_(not adapters) for _ in range(2)]
    for model in models:
        add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    if adapters:
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        models = [get_peft_model(model, config) for model in models]
        models[1].load_state_dict(models[0].state_dict())
    theirs, ours = models
    add_answer_head(ours, temperature=0.7)
    outputs = [model(**CALL, fused_lm_head=True) for model in (theirs, ours)]
    for name in ("log_probs", "entropy"):
        torch.testing.assert_close(*(getattr(one, name) for one in outputs), atol=1e-5, rtol=1e-5)
    for one in outputs:
        (one.log_probs.sum() + 0.3 * one.entropy.sum()).backward()
    grads = [{n: p.grad for n, p in model.named_parameters() if p.grad is not None} for model in models]
    assert grads[0].keys() == grads[1].keys()
    assert grads[0]
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=2e-5, rtol=1e-4)


def test_logits_of_answers_are_those_of_the_whole_pass(tiny_model) -> None:
    model = copy.deepcopy(tiny_model().model)
    whole_BTV = model(input_ids=IDS_BT, attention_mask=MASK_BT).logits
    add_answer_head(model)
    found_NV = model(**CALL, answer_logits=True)["logits"]
    torch.testing.assert_close(found_NV, whole_BTV[:, :-1][LABELS_BT[:, 1:] != -100], atol=1e-5, rtol=1e-5)


def test_a_micro_batch_without_an_answer_has_a_gradient_of_nothing(tiny_model) -> None:
    model = copy.deepcopy(tiny_model().model).requires_grad_(True)
    add_fused_lm_head(model)
    add_answer_head(model)
    out = model(**{**CALL, "labels": torch.full_like(LABELS_BT, -100)}, fused_lm_head=True)
    assert out.log_probs.abs().sum() == 0
    out.log_probs.sum().backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.parameters())


def test_any_other_call_is_the_models_own(tiny_model) -> None:
    model = copy.deepcopy(tiny_model().model)
    plain, signature = model(**CALL), inspect.signature(model.forward)
    add_fused_lm_head(model)
    add_answer_head(model)
    again = model(**CALL)
    assert torch.equal(again.logits, plain.logits)
    assert torch.equal(again.loss, plain.loss)
    assert inspect.signature(model.forward) == signature
    assert torch.equal(model(input_ids=IDS_BT, attention_mask=MASK_BT).logits, plain.logits)


def test_a_model_that_changes_its_logits_keeps_its_own_way(tiny_model) -> None:
    model = copy.deepcopy(tiny_model().model)
    model.config.final_logit_softcapping = 0.5
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    before = model(**CALL, fused_lm_head=True)
    add_answer_head(model)
    assert torch.equal(model(**CALL, fused_lm_head=True).log_probs, before.log_probs)
    # What is capped at 0.5 is nearly even over the vocabulary.
    mask_BT = LABELS_BT[:, 1:] != -100
    assert float(before.entropy[mask_BT].min()) > 0.9 * torch.tensor(float(model.config.vocab_size)).log()
