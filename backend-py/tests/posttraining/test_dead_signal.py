"""What would train nothing is refused, and the taps under it read what the model computes."""

from __future__ import annotations

import pytest
import torch

from qscope.errors import UserError
from qscope.models.taps import tap_residuals
from qscope.posttraining.dead_signal import (
    refuse_dead_capture,
    refuse_no_answer,
    refuse_nothing_held,
    refuse_nothing_trainable,
)
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.sae_loss import SaeLoss
from tests.posttraining.tiny import residuals


def reason_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert caught.value.remedy
    assert caught.value.field
    return caught.value.reason


def test_taps_are_the_models_own_tensors_and_leave_nothing_behind(trained, rows):
    states = trained.model(rows.ids_BT, output_hidden_states=True).hidden_states
    hooks = [len(block._forward_hooks) for block in trained.decoder.blocks]
    with tap_residuals(trained.decoder, [0, 1]) as resids:
        trained.model(rows.ids_BT)
    assert sorted(resids) == [0, 1]
    torch.testing.assert_close(resids[0], states[1], rtol=0, atol=0)
    torch.testing.assert_close(resids[1], states[2], rtol=0, atol=0)
    assert resids[1].requires_grad
    kept = resids[0]
    with pytest.raises(ZeroDivisionError), tap_residuals(trained.decoder, [0]):
        raise ZeroDivisionError
    trained.model(rows.ids_BT)
    assert resids[0] is kept
    assert [len(block._forward_hooks) for block in trained.decoder.blocks] == hooks


def gradient_of_step(trained, rows, held):
    loss = SaeLoss([held(1), held(2)], weight=1.0)
    trained.model.zero_grad()
    resids = residuals(trained.model, trained.decoder, rows, loss.layers)
    refuse_dead_capture(resids, loss.layers)
    before = dict(resids)
    loss(resids, rows.language_B, rows.answer_BT, GlobalBatch.of([rows.answer_BT])).loss.backward()
    assert all(resids[layer] is before[layer] for layer in loss.layers), "the recomputation took its place"
    return trained.gradients()


def test_checkpointing_that_is_not_reentrant_keeps_the_gradient(trained, rows, held):
    plain = gradient_of_step(trained, rows, held)
    trained.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for name, gradient in gradient_of_step(trained, rows, held).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-12, atol=1e-14, msg=name)


def test_what_is_computed_inside_a_reentrant_pass_is_dead_and_found_out(trained, rows, held):
    plain = gradient_of_step(trained, rows, held)
    trained.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    trained.model.enable_input_require_grads()
    inside = {}

    def copy(module, inputs, output):
        inside[1] = output.float()

    handle = trained.decoder.blocks[1].register_forward_hook(copy)
    # The block's own output gets its graph when the block is left.
    for name, gradient in gradient_of_step(trained, rows, held).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-12, atol=1e-14, msg=name)
    residuals(trained.model, trained.decoder, rows, [1])
    handle.remove()
    with pytest.raises(UserError, match="layer 1 carries no gradient") as caught:
        refuse_dead_capture(inside, [1])
    assert caught.value.reason == "DEAD_SAE_LOSS"


def test_a_pass_under_no_grad_and_a_layer_without_a_tap_are_found_out(trained, rows):
    with torch.no_grad():
        resids = residuals(trained.model, trained.decoder, rows, [2])
    assert reason_of(refuse_dead_capture, resids, [2]) == "DEAD_SAE_LOSS"
    with pytest.raises(UserError, match="layer 0 was not captured"):
        refuse_dead_capture(residuals(trained.model, trained.decoder, rows, [2]), [2, 0])


def train_only(trained, *names: str) -> None:
    for name, p in trained.model.named_parameters():
        p.requires_grad_(any(part in name for part in names))


@pytest.mark.parametrize(
    ("names", "layers", "lives"),
    [
        (["layers.1."], [1, 2], True),
        (["layers.1."], [2], True),
        (["layers.2."], [2], True),
        (["layers.2."], [1, 2], False),
        (["embed_tokens"], [0], True),
        (["lm_head", "model.norm"], [2], False),
        ([], [2], False),
    ],
)
def test_something_must_be_trained_at_or_below_every_layer(trained, rows, held, names, layers, lives):
    train_only(trained, *names)
    if lives:
        refuse_nothing_trainable(trained.model, trained.decoder, layers)
    else:
        assert reason_of(refuse_nothing_trainable, trained.model, trained.decoder, layers) == "NOTHING_TRAINABLE_BELOW"
    # The rule says what autograd does.
    resids = residuals(trained.model, trained.decoder, rows, layers)
    assert all(resids[layer].requires_grad for layer in layers) == lives


def test_the_remedy_names_the_first_layer_that_would_do(trained):
    train_only(trained, "layers.2.", "lm_head")
    with pytest.raises(UserError, match=r"at or below layer 0.*loss layers from 2 on"):
        refuse_nothing_trainable(trained.model, trained.decoder, [1, 0])


def test_data_in_the_held_language_alone_is_refused():
    refuse_nothing_held({"zh": 10, "en": 1}, ["zh"])
    refuse_nothing_held({"zh": 10, "en": 1}, ["zh", "en"])
    assert reason_of(refuse_nothing_held, {"zh": 10, "en": 0}, ["zh"]) == "NOTHING_HELD"
    assert reason_of(refuse_nothing_held, {}, ["zh"]) == "NOTHING_HELD"


def test_a_step_without_an_answer_is_refused():
    refuse_no_answer(1)
    assert reason_of(refuse_no_answer, 0) == "NO_ANSWER_TOKENS"
