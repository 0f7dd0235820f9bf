"""Capture and edit hooks on tiny random models of every supported family."""

from __future__ import annotations

import pytest
import torch

from qscope.errors import UserError
from qscope.models import UpperBlocks, capture_residuals, check_hooks, edit_residual, logits_of, select_layers
from qscope.models.architectures import hidden_of, with_hidden

FAMILIES = ["qwen3", "qwen3_moe", "qwen3_5", "qwen3_5_moe", "qwen3_5_wrapper", "llama", "gpt2"]
IDS_BT = torch.arange(3, 27).view(2, 12)


@pytest.fixture(params=FAMILIES)
def loaded(request, tiny_model):
    return tiny_model(request.param)


def hook_count(loaded) -> int:
    return sum(len(block._forward_hooks) for block in loaded.decoder.blocks)


def test_captured_values_are_the_models_own_hidden_states(loaded):
    captured = capture_residuals(loaded, [0, 2, 3], IDS_BT)
    with torch.no_grad():
        states = loaded.model(IDS_BT, output_hidden_states=True).hidden_states
        last_BTD = loaded.decoder.final_norm(captured[3])
    assert sorted(captured) == [0, 2, 3]
    assert captured[0].shape == (2, 12, 32)
    torch.testing.assert_close(captured[0], states[1])
    torch.testing.assert_close(captured[2], states[3])
    torch.testing.assert_close(last_BTD, states[4])
    assert not torch.allclose(captured[3], states[4]), "the last hook must read before the final norm"
    check_hooks(loaded)


@pytest.mark.parametrize("last", [0, 1, 3])
def test_nothing_above_the_last_hooked_layer_runs(loaded, last):
    calls: dict[str, int] = {}

    def count(name):
        def hook(module, inputs):
            calls[name] = calls.get(name, 0) + 1

        return hook

    parts = {f"block {i}": block for i, block in enumerate(loaded.decoder.blocks)}
    parts |= {"norm": loaded.decoder.final_norm, "head": loaded.model.get_output_embeddings()}
    handles = [part.register_forward_pre_hook(count(name)) for name, part in parts.items()]
    try:
        capture_residuals(loaded, [last], IDS_BT)
        assert calls == {f"block {i}": 1 for i in range(last + 1)}
        logits_of(loaded, IDS_BT)
        assert calls["head"] == 1, "the counters do count"
    finally:
        for handle in handles:
            handle.remove()


def test_hooks_are_gone_after_a_capture_and_after_a_failure(loaded):
    before = hook_count(loaded)
    capture_residuals(loaded, [1, 2], IDS_BT)
    assert hook_count(loaded) == before
    with pytest.raises(IndexError):
        capture_residuals(loaded, [1], torch.full((1, 4), 10_000))
    with pytest.raises(ZeroDivisionError), edit_residual(loaded, 1, lambda resid_BTD: 1 / 0):
        logits_of(loaded, IDS_BT)
    assert hook_count(loaded) == before


def test_padding_on_the_right_does_not_change_the_tokens_before_it(loaded):
    alone = capture_residuals(loaded, [2], IDS_BT[:1, :7])[2]
    mask_BT = torch.ones(2, 12, dtype=torch.bool)
    mask_BT[0, 7:] = False
    padded = capture_residuals(loaded, [2], IDS_BT, mask_BT)[2]
    torch.testing.assert_close(padded[:1, :7], alone, atol=1e-5, rtol=1e-4)


def test_the_identity_edit_changes_no_bit_and_a_real_edit_reaches_the_logits(loaded):
    clean = logits_of(loaded, IDS_BT)
    with edit_residual(loaded, 1, lambda resid_BTD: resid_BTD):
        assert torch.equal(logits_of(loaded, IDS_BT), clean)
    with edit_residual(loaded, 1, lambda resid_BTD: resid_BTD * 0):
        zeroed = logits_of(loaded, IDS_BT)
    assert not torch.allclose(zeroed, clean)
    assert torch.equal(logits_of(loaded, IDS_BT), clean)


def test_replacing_the_last_block_is_the_final_norm_and_head_of_the_replacement(loaded):
    new_BTD = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(0))
    with edit_residual(loaded, 3, lambda resid_BTD: new_BTD.double()):
        got = logits_of(loaded, IDS_BT)
    with torch.no_grad():
        expected = loaded.model.get_output_embeddings()(loaded.decoder.final_norm(new_BTD))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_the_upper_blocks_alone_give_the_logits_of_a_whole_pass_with_that_edit(loaded, layer, padded):
    new_BTD = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(0))
    mask_BT = None
    if padded:
        mask_BT = torch.ones(2, 12, dtype=torch.bool)
        mask_BT[0, 7:] = False
    with edit_residual(loaded, layer, lambda resid_BTD: new_BTD):
        whole = logits_of(loaded, IDS_BT, mask_BT)
    assert torch.equal(UpperBlocks(loaded).logits(layer, new_BTD, IDS_BT, mask_BT), whole)


def test_the_upper_blocks_run_nothing_below_and_leave_no_trace(loaded):
    clean = logits_of(loaded, IDS_BT)
    resid_BTD = capture_residuals(loaded, [1], IDS_BT)[1]
    upper = UpperBlocks(loaded)
    ran: list[tuple[int, torch.Tensor]] = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output, i=i: ran.append((i, hidden_of(output))))
        for i, block in enumerate(loaded.decoder.blocks)
    ]
    inside = [next(block.children()) for block in loaded.decoder.blocks]
    worked: list[int] = []
    handles += [part.register_forward_hook(lambda *_, i=i: worked.append(i)) for i, part in enumerate(inside)]
    try:
        assert torch.equal(upper.logits(1, resid_BTD, IDS_BT), clean)
        assert worked == [2, 3]
        assert torch.equal(dict(ran)[1], resid_BTD)
        with pytest.raises(RuntimeError):
            upper.logits(1, resid_BTD[:, :, :5], IDS_BT)
    finally:
        for handle in handles:
            handle.remove()
    assert torch.equal(logits_of(loaded, IDS_BT), clean)
    assert all("forward" not in vars(block) for block in loaded.decoder.blocks)


def test_an_edit_in_place_or_of_another_shape_is_our_bug(loaded):
    with pytest.raises(AssertionError, match="in place"), edit_residual(loaded, 0, lambda resid_BTD: resid_BTD.mul_(2)):
        logits_of(loaded, IDS_BT)
    with pytest.raises(AssertionError, match="is not"), edit_residual(loaded, 0, lambda resid_BTD: resid_BTD[:1]):
        logits_of(loaded, IDS_BT)


def test_the_self_check_notices_a_hook_on_the_wrong_layer(tiny_model):
    loaded = tiny_model("qwen3")
    # An edit registered after output_hidden_states attached its own hooks is invisible to those: the two must differ.
    check_hooks(loaded)
    with (
        edit_residual(loaded, 2, lambda resid_BTD: resid_BTD + 1),
        pytest.raises(UserError) as caught,
    ):
        check_hooks(loaded)
    assert caught.value.reason == "HOOK_MISMATCH"
    check_hooks(loaded)


def test_what_a_block_returns_is_read_by_kind_never_by_index():
    resid_BTD = torch.randn(2, 3, 4)
    assert hidden_of(resid_BTD) is resid_BTD
    assert hidden_of((resid_BTD, "cache")) is resid_BTD
    assert with_hidden((resid_BTD, "cache"), resid_BTD + 1)[1] == "cache"
    with pytest.raises(UserError, match="returned"):
        hidden_of(resid_BTD[0])
    with pytest.raises(UserError, match="returned"):
        hidden_of({"hidden": resid_BTD})


def test_layers_are_sorted_default_to_all_and_out_of_range_names_the_field():
    assert select_layers([], 3) == [0, 1, 2]
    assert select_layers([2, 0], 3) == [0, 2]
    with pytest.raises(UserError, match="numbered 0 to 2") as caught:
        select_layers([1, 3], 3)
    assert (caught.value.reason, caught.value.field) == ("LAYER_OUT_OF_RANGE", "train_sae.layers[1]")
