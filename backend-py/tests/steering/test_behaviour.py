"""Conditions, aborts, conflicts, kinds of tokens, and the failure that a silent no-op must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qscope.errors import UserError
from qscope.models import capture_residuals, logits_of
from qscope.models.forward_tokens import ForwardTokens
from qscope.models.generation import Generation
from qscope.models.hooks import ResidualEdits
from qscope.models.prompts import ANSWER, SPECIAL, TEMPLATE, THINK, render_prompt
from qscope.steering.batch import SteeredBatch
from qscope.steering.edit import activations
from qscope.steering.where import Selector, TokenKinds, token_ids
from qscope.v1 import generation_pb2, inference_pb2
from qscope.v1 import steering_pb2 as pb
from tests.steering.conftest import GREEDY, SAES, generate, make_edit, prompt_of, resolved, sae_of

LONG = [40, 41, 77, 90, 12, 55, 63, 200, 9]


@pytest.fixture
def loaded(tiny_model):
    return tiny_model("qwen3")


def firing(loaded, layer: int) -> torch.Tensor:
    """z_TF of the row LONG, dense."""
    sae = sae_of(layer)
    values, indices = sae.encode(capture_residuals(loaded, [layer], torch.tensor([LONG]))[layer][0])
    return torch.zeros(len(LONG), sae.d_sae).scatter(1, indices, values)


def sometimes_firing(loaded, layer: int) -> tuple[int, list[int]]:
    """A feature that fires at some but not all positions after the first, and these positions."""
    fires_TF = firing(loaded, layer)[1:] > 0
    count_F = fires_TF.sum(0)
    feature = int(((count_F > 0) & (count_F < len(LONG) - 1)).nonzero()[0])
    return feature, (fires_TF[:, feature].nonzero()[:, 0] + 1).tolist()


def edited_positions(loaded, spec) -> list[int]:
    """Positions of the row whose residual stream is changed at the last layer of the spec's first edit."""
    layer = spec.edits[0].layer
    clean = capture_residuals(loaded, [layer], torch.tensor([LONG]))[layer][0]
    batch = SteeredBatch(loaded, [prompt_of(LONG)], [spec], SAES)
    seen: list[torch.Tensor] = []
    hooks = batch.edits()
    inner = hooks[layer]
    hooks[layer] = lambda resid_BTD, tokens: seen.append(inner(resid_BTD, tokens)) or seen[-1]
    with ResidualEdits(loaded, hooks):
        logits_of(loaded, torch.tensor([LONG]))
    return (seen[0][0] - clean).norm(dim=1).nonzero()[:, 0].tolist()


def test_an_edit_with_a_condition_happens_where_the_feature_fires_and_nowhere_else(loaded):
    feature, positions = sometimes_firing(loaded, 1)
    for layer in (1, 2):
        spec = resolved(make_edit([layer], [7], "add", 3.0, when=[{"layer": 1, "feature": feature}]))
        if layer == 1:
            assert edited_positions(loaded, spec) == positions
        _, _, batch = generate(loaded, [LONG], [spec])
        count = batch.row_proofs()[0].layers[layer]
        assert count.prompt == len(positions)
        assert count.prompt + count.generated + count.skipped == len(LONG) - 1 + 5


def test_a_condition_above_every_activation_is_a_failure_that_says_so(loaded):
    spec = resolved(make_edit([1], [7], "add", 3.0, when=[{"layer": 1, "feature": 3, "above": 1e9}]))
    _, _, batch = generate(loaded, [LONG], [spec])
    with pytest.raises(UserError, match="condition held at none of 13") as caught:
        batch.refuse_if_nothing_happened()
    assert caught.value.reason == "NOTHING_STEERED"


def test_silent_features_and_empty_places_are_failures(loaded):
    never = int((firing(loaded, 1).sum(0) == 0).nonzero()[0])
    _, _, batch = generate(loaded, [LONG], [resolved(make_edit([1], [never], "zero", phase="prompt"))])
    with pytest.raises(UserError, match="silent"):
        batch.refuse_if_nothing_happened()
    one = generation_pb2.Sampling(temperature=0, top_p=1, max_tokens=1)
    _, _, batch = generate(loaded, [LONG], [resolved(make_edit([1], [7], phase="generated"))], one)
    with pytest.raises(UserError, match="No token was selected"):
        batch.refuse_if_nothing_happened()


def test_a_row_is_aborted_where_the_feature_fires_and_the_others_go_on(loaded):
    base, _, _ = generate(loaded, [LONG], [resolved()])
    whole = torch.tensor([LONG + base[0]])
    layer, sae = 2, sae_of(2)
    values, indices = sae.encode(capture_residuals(loaded, [layer], whole)[layer][0])
    z_TF = torch.zeros(whole.shape[1], sae.d_sae).scatter(1, indices, values)
    # Fires at a generated token but nowhere in the prompt.
    silent_F = z_TF[: len(LONG)].amax(0) == 0
    late_F = z_TF[len(LONG) : -1].amax(0) * silent_F
    feature = int(late_F.argmax())
    assert late_F[feature] > 0, "the test needs such a feature"
    first = int((z_TF[len(LONG) :, feature] > 0).nonzero()[0])
    spec = resolved(abort_when=[{"layer": layer, "feature": feature}])
    tokens, _, _ = generate(loaded, [LONG, LONG], [spec, resolved()])
    # The token at which it fires has been drawn; nothing is drawn after it.
    assert tokens == [base[0][: first + 1], base[0]]


def test_priority_leaves_the_token_to_the_first_edit_and_sum_adds(loaded):
    first, second = (
        make_edit([1], [7], "add", 3.0, where={"only": {"positions": [2, 3]}}),
        make_edit([1], [9], "add", 5.0),
    )
    sae, clean = sae_of(1), capture_residuals(loaded, [1], torch.tensor([LONG]))[1][0]

    def change(**more) -> torch.Tensor:
        batch = SteeredBatch(loaded, [prompt_of(LONG)], [resolved(first, second, **more)], SAES)
        seen: list[torch.Tensor] = []
        inner = batch.edits()[1]
        with ResidualEdits(loaded, {1: lambda r, t: seen.append(inner(r, t)) or seen[-1]}):
            logits_of(loaded, torch.tensor([LONG]))
        return seen[0][0] - clean

    a, b = 3.0 * sae.W_dec_FD[7], 5.0 * sae.W_dec_FD[9]
    torch.testing.assert_close(change()[2], a + b, atol=1e-5, rtol=0)
    torch.testing.assert_close(change(conflict="PRIORITY")[2], a, atol=1e-5, rtol=0)
    torch.testing.assert_close(change(conflict="PRIORITY")[4], b, atol=1e-5, rtol=0)
    torch.testing.assert_close(change(conflict="SEQUENTIAL")[2], a + b, atol=1e-5, rtol=0)


def test_sequential_edits_see_each_other(loaded):
    layer = 1
    feature = int(firing(loaded, layer)[2].argmax())
    spec = resolved(
        make_edit([layer], [feature], "add", 6.0), make_edit([layer], [feature], "zero"), conflict="SEQUENTIAL"
    )
    sae, clean = sae_of(layer), capture_residuals(loaded, [layer], torch.tensor([LONG]))[layer][0]
    batch = SteeredBatch(loaded, [prompt_of(LONG)], [spec], SAES)
    seen: list[torch.Tensor] = []
    inner = batch.edits()[layer]
    with ResidualEdits(loaded, {layer: lambda r, t: seen.append(inner(r, t)) or seen[-1]}):
        logits_of(loaded, torch.tensor([LONG]))
    pushed = clean[2] + 6.0 * sae.W_dec_FD[feature]
    z = activations(sae, pushed[None], torch.tensor([feature]))[0, 0]
    torch.testing.assert_close(seen[0][0, 2], pushed - z * sae.W_dec_FD[feature], atol=1e-4, rtol=0)


def test_without_topk_reads_a_feature_that_others_push_out(loaded):
    sae = sae_of(1)
    resid_TD = capture_residuals(loaded, [1], torch.tensor([LONG]))[1][0]
    pre_TF = sae.pre_activations(resid_TD)
    kept = firing(loaded, 1)
    pushed_out = ((pre_TF > 0) & (kept == 0)).nonzero()
    assert len(pushed_out), "the test needs one"
    token, feature = pushed_out[0].tolist()
    ids = torch.tensor([feature])
    assert activations(sae, resid_TD[token][None], ids).item() == 0
    shortcut = activations(sae, resid_TD[token][None], ids, without_topk=True).item()
    assert shortcut == pytest.approx(pre_TF[token, feature].item(), rel=1e-4)


def test_the_projection_cap_bounds_the_projection(loaded):
    spec = resolved(make_edit([1], [7], "projection_cap", low=-0.01, high=0.01))
    batch = SteeredBatch(loaded, [prompt_of(LONG)], [spec], SAES)
    seen: list[torch.Tensor] = []
    inner = batch.edits()[1]
    with ResidualEdits(loaded, {1: lambda r, t: seen.append(inner(r, t)) or seen[-1]}):
        logits_of(loaded, torch.tensor([LONG]))
    unit = sae_of(1).W_dec_FD[7] / sae_of(1).W_dec_FD[7].norm()
    clean = capture_residuals(loaded, [1], torch.tensor([LONG]))[1][0]
    assert (clean[1:] @ unit).abs().max() > 0.01, "there must be something to cap"
    assert (seen[0][0, 1:] @ unit).abs().max() <= 0.01 + 1e-6


def test_bfloat16_streams_are_edited_in_float32_and_stay_bfloat16(tiny_model):
    import copy

    from qscope.models import wrap_model

    base = tiny_model("qwen3")
    loaded = wrap_model(copy.deepcopy(base.model).to(torch.bfloat16), base.tokenizer, name="bf16")
    for op in ("add", "set"):
        tokens, _, batch = generate(loaded, [LONG], [resolved(make_edit([1], [7], op, 8.0))])
        assert len(tokens[0]) == 6
        assert batch.row_proofs()[0].changed == 13


# -- kinds of tokens ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    from qscope.models import load_model
    from qscope.v1.model_pb2 import PRECISION_AUTO, ModelOptions

    return load_model("embedded", ModelOptions(precision=PRECISION_AUTO))


def chat(**more) -> generation_pb2.PromptFormat:
    return generation_pb2.PromptFormat(chat=True, **{"thinking": generation_pb2.THINKING_OFF, **more})


@pytest.mark.parametrize("text", ["What is 2 + 3?", "user", "assistant", "<|im_end|> user\n", "  spaces around  "])
def test_template_tokens_are_those_nobody_wrote(embedded, text):
    prompt = render_prompt(embedded.tokenizer, text, chat(system="Be brief."))
    written = embedded.tokenizer.decode(prompt.ids_T[(prompt.flags_T & TEMPLATE) == 0])
    assert written.replace(" ", "") == ("Be brief." + text).replace(" ", "")


def test_a_closed_think_block_is_not_thinking_and_an_open_one_is(embedded):
    closed = render_prompt(embedded.tokenizer, "Hi", chat())
    assert not closed.thinking_open
    opened = render_prompt(embedded.tokenizer, "Hi <think> so", generation_pb2.PromptFormat())
    assert opened.thinking_open
    inside = embedded.tokenizer.decode(opened.ids_T[(opened.flags_T & THINK) != 0])
    assert inside.strip() == "so"


def test_generated_tokens_are_thinking_until_the_block_closes_then_answer(embedded):
    tokenizer = embedded.tokenizer
    prompt = render_prompt(tokenizer, "Hi <think>", generation_pb2.PromptFormat())
    close, end = tokenizer.convert_tokens_to_ids("</think>"), tokenizer.convert_tokens_to_ids("<|im_end|>")
    word = tokenizer(" so", add_special_tokens=False)["input_ids"][0]
    kinds = TokenKinds([prompt], tokenizer)
    expected = [THINK, 0, ANSWER, SPECIAL]
    found = []
    for index, token in enumerate([word, close, word, end]):
        tokens = ForwardTokens(np.array([[token]]), np.array([[len(prompt) + index]]), np.array([[True]]))
        found.append(int(kinds.flags(tokens)[0, 0]) & (THINK | ANSWER | SPECIAL))
    # </think> may or may not count as special to a tokenizer; it is neither thinking nor answer.
    assert [f & (THINK | ANSWER) for f in found] == [f & (THINK | ANSWER) for f in expected]
    assert found[3] == SPECIAL
    # Read again from the start, as a loop without a cache does.
    whole = np.concatenate([prompt.ids_T, [word, close, word, end]])[None]
    again = kinds.flags(ForwardTokens(whole, np.arange(whole.shape[1])[None], np.ones_like(whole, dtype=bool)))
    assert (again[0, -4:] & (THINK | ANSWER)).tolist() == [f & (THINK | ANSWER) for f in found]


@pytest.mark.parametrize("kind", ["SPECIAL", "TEMPLATE", "THINK", "ANSWER"])
def test_places_select_by_kind_and_by_its_exclusion(embedded, kind):
    prompt = render_prompt(embedded.tokenizer, "Hi <think> so", chat())
    ids = np.concatenate([prompt.ids_T, embedded.tokenizer(" then", add_special_tokens=False)["input_ids"]])[None]
    tokens = ForwardTokens(ids, np.arange(ids.shape[1])[None], np.ones_like(ids, dtype=bool))
    flags = TokenKinds([prompt], embedded.tokenizer).flags(tokens)
    bit = {"SPECIAL": SPECIAL, "TEMPLATE": TEMPLATE, "THINK": THINK, "ANSWER": ANSWER}[kind]
    classes = {"classes": [getattr(pb, f"TOKEN_CLASS_{kind}")]}

    def select(**where) -> np.ndarray:
        place = pb.SteeringPlace(phase=pb.PHASE_ALL, include_first_token=True, **where)
        return Selector(place, [0], np.array([len(prompt)]), {})(tokens, flags)

    assert (select(only=classes) == ((flags & bit) != 0)).all()
    assert (select(**{"except": classes}) == ((flags & bit) == 0)).all()
    assert select(only=classes).any(), "the prompt must hold one"


def test_tokens_by_text_must_be_single_tokens(embedded):
    place = pb.SteeringPlace(only={"tokens": ["<|im_start|>"]})
    ids = token_ids(place, embedded.tokenizer, at="where")
    assert ids == {"<|im_start|>": embedded.tokenizer.convert_tokens_to_ids("<|im_start|>")}
    with pytest.raises(UserError, match="not one token") as caught:
        token_ids(pb.SteeringPlace(only={"tokens": ["several words here"]}), embedded.tokenizer, at="where")
    assert caught.value.field == "where.only.tokens[0]"


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_prompt_is_refused(embedded, text):
    with pytest.raises(UserError) as caught:
        render_prompt(embedded.tokenizer, text, generation_pb2.PromptFormat(), at="steer.prompts[0]")
    assert (caught.value.reason, caught.value.field) == ("PROMPT_EMPTY", "steer.prompts[0]")


def test_the_thinking_flag_reaches_the_template(embedded):
    off = render_prompt(embedded.tokenizer, "Hi", chat())
    on = render_prompt(embedded.tokenizer, "Hi", chat(thinking=generation_pb2.THINKING_ON))
    assert off.text.endswith("<think>\n\n</think>\n\n")
    assert not on.text.endswith("</think>\n\n")


def test_a_model_without_a_template_is_refused(tokenizer):
    with pytest.raises(UserError, match="no chat template"):
        render_prompt(tokenizer, "Hi", chat())


def test_end_reasons(loaded):
    from qscope.models.generation import Generation

    run = Generation(loaded, [LONG, LONG], GREEDY, [0, 0])
    run.end(1)
    reasons = {}
    while not run.done:
        reasons |= run.step().ended
    assert reasons == {0: inference_pb2.END_REASON_LENGTH}


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_pass_is_called_decoding_only_when_every_row_reads_what_it_wrote(loaded, chunk):
    """Told by the loop, where other drivers have it read off the call; masks are kept from pass to pass on its word."""
    prompts, told, read = [LONG[:3], LONG[:5]], [], []

    def look(resid_BTD, tokens):
        told.append(tokens)
        return resid_BTD

    run = Generation(loaded, prompts, GREEDY, [0, 1], edits={0: look}, prefill_chunk=chunk)
    reading = ResidualEdits(loaded, {0: lambda resid_BTD, tokens: read.append(tokens) or resid_BTD})
    with reading:
        for step in range(5):
            if step == 3:
                run.end(0)
            run.step()
    prompt_passes = 5 if chunk else 1
    assert [tokens.decoding for tokens in told] == [False] * prompt_passes + [True, True, False, False]
    assert not any(tokens.decoding for tokens in read), "who reads the call cannot know"
    for mine, other in zip(told, read, strict=True):
        assert (mine.ids_BT == other.ids_BT).all()
        assert (mine.valid_BT == other.valid_BT).all()
        assert (mine.position_BT == other.position_BT)[mine.valid_BT].all()
    written = [len(prompt) for prompt in prompts]
    assert all((tokens.position_BT[:, 0] >= written).all() for tokens in told if tokens.decoding)


@pytest.mark.parametrize("where", [{}, {"only": {"classes": [pb.TOKEN_CLASS_ANSWER]}}])
def test_a_row_that_ends_early_is_no_longer_edited(loaded, where):
    specs = [resolved(make_edit([1], [5], "add", 4.0, where=where))] * 2
    batch = SteeredBatch(loaded, [prompt_of(LONG[:3]), prompt_of(LONG[:5])], specs, SAES)
    run = Generation(loaded, [LONG[:3], LONG[:5]], GREEDY, [0, 1], edits=batch.edits())
    for step in range(6):
        if step == 3:
            run.end(0)
        run.step()
    counts = [proof.layers[1] for proof in batch.row_proofs()]
    # The last token drawn is never read; the one drawn when a row was ended still is.
    assert [count.generated for count in counts] == [3, 5]
    assert [count.prompt for count in counts] == ([0, 0] if where else [2, 4])


def test_a_stream_that_is_no_number_ends_the_generation_with_a_reason(loaded):
    run = Generation(loaded, [LONG], GREEDY, [0], edits={1: lambda resid_BTD, tokens: resid_BTD * float("inf")})
    with pytest.raises(UserError, match="infinite or undefined") as caught:
        run.step()
    assert caught.value.reason == "MODEL_NOT_FINITE"
    assert "strength" in caught.value.remedy
