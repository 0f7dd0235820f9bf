"""Steering on all six kinds of Qwen models: exact where it must be, counted, and independent of how it is run."""

from __future__ import annotations

import pytest
import torch

from qscope.models import capture_residuals, logits_of
from qscope.models.generation import Generation
from qscope.models.hooks import ResidualEdits
from qscope.steering.batch import SteeredBatch
from qscope.v1 import generation_pb2
from tests.steering.conftest import (
    GREEDY,
    N_LAYERS,
    SAES,
    generate,
    make_edit,
    prompt_of,
    resolved,
    sae_of,
)

SHORT, LONG = [40], [40, 41, 77, 90, 12, 55, 63, 200, 9]
PROMPTS = [SHORT, LONG, LONG[:4], [7, 8]]
EXACT = {"atol": 1e-5, "rtol": 0}


def hook_count(loaded) -> int:
    # Not zero to begin with: transformers leaves its own behind after output_hidden_states.
    return len(loaded.model._forward_pre_hooks) + sum(len(block._forward_hooks) for block in loaded.decoder.blocks)


def active_features(loaded, ids: list[int], layer: int, count: int = 2) -> list[int]:
    """Features that fire on most tokens of a row, so that set and zero have something to change."""
    resid_TD = capture_residuals(loaded, [layer], torch.tensor([ids]))[layer][0, 1:]
    _, indices_TK = sae_of(layer).encode(resid_TD)
    return torch.bincount(indices_TK.flatten(), minlength=64).argsort(descending=True)[:count].tolist()


def all_specs(loaded):
    first, second = active_features(loaded, LONG, 1)
    return [
        resolved(make_edit([0, 3], [5], "add", 3.0)),
        resolved(make_edit([1], [first, second], "set", 1.5), make_edit([2], [9], "add", -2.0, "generated")),
        resolved(make_edit([1], [first], "zero"), make_edit([2], [3, 4], "clamp_max", 0.1)),
        resolved(),
    ]


def test_the_empty_spec_installs_no_hook_and_returns_identical_logits(kind):
    batch = SteeredBatch(kind, [prompt_of(LONG)], [resolved()], SAES)
    assert batch.edits() == {}
    clean = logits_of(kind, torch.tensor([LONG]))
    with ResidualEdits(kind, batch.edits()):
        assert torch.equal(logits_of(kind, torch.tensor([LONG])), clean)
    batch.refuse_if_nothing_happened()


def test_a_row_without_edits_beside_steered_rows_is_what_it_is_alone(kind):
    specs = [resolved(make_edit([0, 1, 2, 3], [5], "add", 40.0)), resolved()]
    tokens, logprobs, _ = generate(kind, [LONG, LONG], specs)
    alone, alone_logprobs, _ = generate(kind, [LONG], [resolved()])
    assert tokens[1] == alone[0]
    torch.testing.assert_close(torch.tensor(logprobs[1]), torch.tensor(alone_logprobs[0]), **EXACT)
    assert tokens[0] != alone[0], "the steered row must differ, or the test shows nothing"


def test_strength_zero_is_exactly_the_base_text_and_the_base_comes_back_afterwards(kind):
    hooks = hook_count(kind)
    base, base_logprobs, _ = generate(kind, [LONG], [resolved()])
    zero, zero_logprobs, batch = generate(kind, [LONG], [resolved(make_edit([0, 2], [5], "add", 0.0))])
    assert (zero, zero_logprobs) == (base, base_logprobs)
    batch.refuse_if_nothing_happened()
    assert batch.row_proofs()[0].changed == 0
    generate(kind, [LONG], [resolved(make_edit([0, 2], [5], "add", 50.0))])
    assert generate(kind, [LONG], [resolved()])[:2] == (base, base_logprobs)
    assert hook_count(kind) == hooks


def test_rows_of_a_padded_batch_equal_single_runs(kind):
    specs = all_specs(kind)
    tokens, logprobs, batch = generate(kind, PROMPTS, specs)
    for row, (prompt, spec) in enumerate(zip(PROMPTS, specs, strict=True)):
        single, single_logprobs, one = generate(kind, [prompt], [spec])
        assert tokens[row] == single[0]
        torch.testing.assert_close(torch.tensor(logprobs[row]), torch.tensor(single_logprobs[0]), **EXACT)
        mine, alone = batch.row_proofs()[row], one.row_proofs()[0]
        for layer, count in alone.layers.items():
            other = mine.layers[layer]
            assert (other.prompt, other.generated) == (count.prompt, count.generated)
            assert other.mean_relative == pytest.approx(count.mean_relative, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("chunk", [0, 1, 4])
def test_cached_equals_uncached(kind, chunk):
    # Without the cache a step reads the prompt again, in passes of one token too.
    specs = all_specs(kind)
    tokens, logprobs, _ = generate(kind, PROMPTS, specs)
    again, again_logprobs, _ = generate(kind, PROMPTS, specs, use_cache=False, prefill_chunk=chunk)
    assert tokens == again
    torch.testing.assert_close(torch.tensor(logprobs), torch.tensor(again_logprobs), **EXACT)


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunked_prefill_equals_whole_and_counts_the_same(kind, chunk):
    # Chunks of four leave one of a single token: not a decoding step, whatever its length says.
    specs = all_specs(kind)
    tokens, logprobs, batch = generate(kind, PROMPTS, specs)
    chunked, chunked_logprobs, other = generate(kind, PROMPTS, specs, prefill_chunk=chunk)
    assert tokens == chunked
    torch.testing.assert_close(torch.tensor(logprobs), torch.tensor(chunked_logprobs), **EXACT)
    for mine, theirs in zip(batch.row_proofs(), other.row_proofs(), strict=True):
        assert {k: (v.prompt, v.generated) for k, v in mine.layers.items()} == {
            k: (v.prompt, v.generated) for k, v in theirs.layers.items()
        }


def test_padding_on_the_left_and_on_the_right_agree(kind):
    spec = all_specs(kind)[1]
    lengths, width = [len(LONG), 4], len(LONG)
    found = []
    for side in ("left", "right"):
        ids_BT, mask_BT = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
        for row, length in enumerate(lengths):
            place = slice(width - length, width) if side == "left" else slice(0, length)
            ids_BT[row, place], mask_BT[row, place] = torch.tensor(LONG[:length]), 1
        batch = SteeredBatch(kind, [prompt_of(LONG[:2]), prompt_of(LONG[:2])], [spec, spec], SAES)
        positions_BT = (mask_BT.cumsum(1) - 1).clamp_min(0)
        with ResidualEdits(kind, batch.edits()), torch.no_grad():
            logits_BTV = kind.model(ids_BT, attention_mask=mask_BT, position_ids=positions_BT, use_cache=False).logits
        found.append(([logits_BTV[row][mask_BT[row] == 1] for row in range(2)], batch.row_proofs()))
    for row in range(2):
        torch.testing.assert_close(found[0][0][row], found[1][0][row], atol=1e-5, rtol=1e-4)
        for layer, count in found[0][1][row].layers.items():
            other = found[1][1][row].layers[layer]
            assert (count.prompt, count.generated) == (other.prompt, other.generated)


@pytest.mark.parametrize("op", ["add", "set", "clamp_min", "clamp_max", "scale", "zero", "negate"])
def test_the_edit_equals_the_plain_formula_and_keeps_the_error_term(kind, op):
    layer = 1
    features = active_features(kind, LONG, layer)
    ids_BT, sae = torch.tensor([LONG]), sae_of(layer).to(dtype=torch.float64)
    before_TD = capture_residuals(kind, [layer], ids_BT)[layer][0].double()
    # Plain: dense codes, one change per feature, reconstruction plus the untouched error.
    scores_TF = torch.relu(before_TD @ sae.W_enc_FD.t() + sae.b_enc_F)
    kept_TK = scores_TF.topk(sae.k).indices
    z_TF = torch.zeros_like(scores_TF).scatter(1, kept_TK, scores_TF.gather(1, kept_TK))
    error_TD = before_TD - (z_TF @ sae.W_dec_FD + sae.b_dec_D)
    # Between the activations that occur, so that both clamps have something to do.
    strength = round(z_TF[1:, features].max().item() / 2, 4)
    spec = resolved(make_edit([layer], features, op, strength))
    new_TF = z_TF.clone()
    for feature in features:
        z_T = z_TF[:, feature]
        new_TF[1:, feature] = {
            "add": z_T + strength,
            "set": torch.full_like(z_T, strength),
            "clamp_min": z_T.clamp_min(strength),
            "clamp_max": z_T.clamp_max(strength),
            "scale": strength * z_T,
            "zero": torch.zeros_like(z_T),
            "negate": -z_T,
        }[op][1:]
    expected_TD = new_TF @ sae.W_dec_FD + sae.b_dec_D + error_TD
    after: list[torch.Tensor] = []
    batch = SteeredBatch(kind, [prompt_of(LONG)], [spec], SAES)
    hooks = batch.edits()
    wrapped = {layer: lambda resid_BTD, tokens: after.append(hooks[layer](resid_BTD, tokens)) or after[-1]}
    with ResidualEdits(kind, wrapped):
        logits_of(kind, ids_BT)
    torch.testing.assert_close(after[0][0].double(), expected_TD, atol=2e-5, rtol=1e-5)
    changed_T = (expected_TD - before_TD).norm(dim=1) > 1e-12
    proof = batch.row_proofs()[0].layers[layer]
    assert (proof.prompt, proof.generated) == (int(changed_T.sum()), 0)
    assert proof.prompt > 0
    relative_T = (expected_TD - before_TD).norm(dim=1) / before_TD.norm(dim=1)
    assert proof.mean_relative == pytest.approx(relative_T[changed_T].mean().item(), rel=1e-4)
    assert proof.max_relative == pytest.approx(relative_T.max().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("phase", "where", "prompt", "generated"),
    [
        ("all", {}, len(LONG) - 1, 5),
        ("all", {"include_first_token": True}, len(LONG), 5),
        ("prompt", {}, len(LONG) - 1, 0),
        ("generated", {}, 0, 5),
        ("generated", {"include_last_prompt_token": True}, 1, 5),
        ("all", {"only": {"positions": [2, -1, -50, 99]}}, 2, 0),
        ("all", {"except": {"positions": [2, -1]}}, len(LONG) - 3, 5),
    ],
)
@pytest.mark.parametrize("op", ["add", "set"])
def test_edits_are_counted_exactly(kind, phase, where, prompt, generated, op):
    # Six tokens are drawn and five of them read again: the last is never an input.
    spec = resolved(make_edit([0, 2], [5], op, 11.0, phase, where=where))
    _, _, batch = generate(kind, [LONG], [spec])
    proof = batch.row_proofs()[0]
    assert {layer: (c.prompt, c.generated) for layer, c in proof.layers.items()} == dict.fromkeys(
        [0, 2], (prompt, generated)
    )
    # Chunks of this call: one prefill, five decoding steps.
    assert batch.proof.forward_passes == 6


def test_a_prompt_of_one_token_is_a_prompt(kind):
    spec = resolved(make_edit([1], [5], "add", 5.0, "prompt", where={"include_first_token": True}))
    _, _, batch = generate(kind, [SHORT], [spec])
    count = batch.row_proofs()[0].layers[1]
    assert (count.prompt, count.generated) == (1, 0)


def test_a_large_strength_at_every_layer_changes_the_text(kind):
    base, _, _ = generate(kind, [LONG], [resolved()])
    for layer in range(N_LAYERS):
        steered, _, _ = generate(kind, [LONG], [resolved(make_edit([layer], [5], "add", 200.0))])
        assert steered != base, f"layer {layer}"


def test_rows_with_equal_noise_draw_equal_tokens_in_any_batch(kind):
    sampling = generation_pb2.Sampling(temperature=1.0, top_p=0.9, max_tokens=8, ignore_end=True)
    tokens, _, _ = generate(kind, [LONG, LONG, LONG], [resolved()] * 3, sampling, noise=[4, 5, 4])
    assert tokens[0] == tokens[2]
    assert tokens[0] != tokens[1]
    alone, _, _ = generate(kind, [LONG], [resolved()], sampling, noise=[5])
    assert tokens[1] == alone[0]


def test_two_generations_in_turn_do_not_see_each_others_steering(kind):
    specs = [resolved(make_edit([1], [5], "add", 60.0)), resolved()]
    expected = [generate(kind, [LONG], [spec])[0][0] for spec in specs]
    batches = [SteeredBatch(kind, [prompt_of(LONG)], [spec], SAES) for spec in specs]
    runs = [Generation(kind, [LONG], GREEDY, [0], edits=batch.edits()) for batch in batches]
    tokens: list[list[int]] = [[], []]
    while not all(run.done for run in runs):
        for index, run in enumerate(runs):
            tokens[index] += [drawn.token for drawn in run.step().drawn]
    assert tokens == expected
    assert expected[0] != expected[1]
