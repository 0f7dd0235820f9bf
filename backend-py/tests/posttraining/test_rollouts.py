"""Rollouts: the same in any batch, steered from the last prompt token on, cut after whole loops."""

from __future__ import annotations

import pytest
import torch

from qscope.errors import Stopped, UserError
from qscope.models import logits_of
from qscope.models.generation import Generation
from qscope.models.hooks import ResidualEdits
from qscope.posttraining.loop_steering import best_features, named_features, steering_of
from qscope.posttraining.repetition import repetition_of
from qscope.posttraining.rollouts import Request, Sampler, Steered
from qscope.steering.batch import SteeredBatch
from qscope.steering.groups import change_of
from qscope.steering.saes import LoadedSaes
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet
from qscope.v1.generation_pb2 import Sampling
from tests.steering.conftest import SAES, prompt_of, sae_of

FREE = Sampling(temperature=1, top_p=1, max_tokens=12, ignore_end=True)
PROMPTS = [(40, 41, 77), (90,), (55, 63, 200, 9), (7, 8), (40, 41, 77)]
REQUESTS = [Request(prompt, number) for number, prompt in enumerate(PROMPTS)]
NORMS = {1: 3.0, 2: 5.0}


def test_a_rollout_is_the_same_in_any_batch_and_in_any_order(tiny_model):
    whole = Sampler(tiny_model(), FREE)(REQUESTS)
    for rows in (1, 2, 4):
        assert [one.ids for one in Sampler(tiny_model(), FREE, rows=rows)(REQUESTS)] == [one.ids for one in whole]
    turned = Sampler(tiny_model(), FREE, rows=2)(REQUESTS[::-1])
    assert [one.ids for one in turned] == [one.ids for one in whole][::-1]
    # Another seed is another rollout of the same prompt.
    assert whole[0].ids != whole[4].ids


def test_log_probabilities_are_those_of_the_policy_that_was_sampled_from(tiny_model):
    loaded = tiny_model()
    warm = Sampling(temperature=0.6, top_p=1, max_tokens=6, ignore_end=True)
    for one, request in zip(Sampler(loaded, warm)(REQUESTS), REQUESTS, strict=True):
        ids = torch.tensor([request.prompt + one.ids])
        logits_TV = logits_of(loaded, ids)[0].double() / 0.6
        start = len(request.prompt)
        expected_T = logits_TV.log_softmax(-1)[start - 1 : -1].gather(1, ids[0, start:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(one.logprobs).double(), expected_T, atol=1e-5, rtol=0)


def test_what_ended_a_rollout_is_no_part_of_its_answer(tiny_model):
    loaded = tiny_model()
    long = Sampling(temperature=1, top_p=1, max_tokens=400)
    ends = {0, 2}
    made = Sampler(loaded, long)([Request((40, 41), number) for number in range(12)])
    ended = [one for one in made if not one.truncated]
    cut = [one for one in made if one.truncated]
    assert ended
    assert cut
    assert all(one.ids[-1] in ends and one.answer_ids == one.ids[:-1] for one in ended)
    assert all(len(one.ids) == 400 and one.answer_ids == one.ids for one in cut)
    assert all(loaded.tokenizer.decode(one.answer_ids) == one.text for one in made)


def test_a_stop_text_ends_a_rollout_by_itself_and_is_no_part_of_its_answer(tiny_model):
    loaded = tiny_model()
    free = Sampler(loaded, FREE)(REQUESTS)[0]
    stop = loaded.tokenizer.decode([free.ids[5]])
    stopping = Sampling(temperature=1, top_p=1, max_tokens=12, ignore_end=True, stop=[stop])
    first = next(place for place in range(12) if stop in loaded.tokenizer.decode(free.ids[: place + 1]))
    one = Sampler(loaded, stopping)(REQUESTS)[0]
    assert one.ids == free.ids[: first + 1]
    assert not one.truncated
    assert stop not in one.text
    assert loaded.tokenizer.decode(one.answer_ids) == one.text


def test_a_stop_text_that_is_complete_with_the_last_token_allowed_is_no_truncation(tiny_model):
    loaded = tiny_model()
    free = Sampler(loaded, FREE)(REQUESTS)[0]
    stop = loaded.tokenizer.decode([free.ids[5]])
    first = next(place for place in range(12) if stop in loaded.tokenizer.decode(free.ids[: place + 1]))
    for tokens, truncated in ((first + 1, False), (first, True)):
        short = Sampling(temperature=1, top_p=1, max_tokens=tokens, ignore_end=True, stop=[stop])
        one = Sampler(loaded, short)(REQUESTS)[0]
        assert one.ids == free.ids[:tokens]
        assert (one.truncated, one.stopped) == (truncated, not truncated)
        assert loaded.tokenizer.decode(one.answer_ids) == one.text


def test_nothing_is_left_to_the_checkpoints_generation_config(tiny_model):
    loaded = tiny_model()
    before = [one.ids for one in Sampler(loaded, FREE)(REQUESTS)]
    config = loaded.model.generation_config
    kept = {name: getattr(config, name) for name in ("repetition_penalty", "temperature", "top_k", "do_sample")}
    try:
        config.repetition_penalty, config.temperature, config.top_k, config.do_sample = 5.0, 0.01, 1, False
        assert [one.ids for one in Sampler(loaded, FREE)(REQUESTS)] == before
    finally:
        for name, value in kept.items():
            setattr(config, name, value)


def test_a_model_in_training_is_read_without_dropout_and_goes_on_training(tiny_model):
    loaded = tiny_model("gpt2")
    before = [one.ids for one in Sampler(loaded, FREE)(REQUESTS)]
    loaded.model.train()
    try:
        assert [one.ids for one in Sampler(loaded, FREE)(REQUESTS)] == before
        assert loaded.model.training
    finally:
        loaded.model.eval()


def test_being_asked_to_stop_ends_it(tiny_model):
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        Sampler(tiny_model(), FREE, should_stop=lambda: next(asked))(REQUESTS)


def steered_at(loaded, strength: float, chosen=None, loops: int = 0) -> Steered:
    spec = steering_of(loaded, SAES, chosen or {1: [5]}, strength, NORMS)
    return Steered(spec, SAES, loops)


def test_steering_begins_at_the_last_prompt_token_and_holds_at_every_generated_one(tiny_model):
    loaded = tiny_model()
    one = Sampler(loaded, FREE)([REQUESTS[0]], steered=steered_at(loaded, 3.0))[0]
    ids = PROMPTS[0] + one.ids
    direction_D = sae_of(1).W_dec_FD[5]
    change_D = 3.0 * NORMS[1] * direction_D / direction_D.norm()

    def by_hand(resid_BTD, tokens):
        edited_BTD = resid_BTD.clone()
        edited_BTD[:, len(PROMPTS[0]) - 1 :] += change_D
        return edited_BTD

    with ResidualEdits(loaded, {1: by_hand}):
        logits_TV = logits_of(loaded, torch.tensor([ids]))[0].double()
    expected_T = logits_TV.log_softmax(-1)[2:-1].gather(1, torch.tensor(one.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(one.logprobs).double(), expected_T, atol=1e-4, rtol=0)
    # The first token comes from the last one of the prompt, and is another one already.
    assert one.logprobs[0] != Sampler(loaded, FREE)([REQUESTS[0]])[0].logprobs[0]


def test_every_token_but_the_last_is_steered_once(tiny_model):
    loaded = tiny_model()
    spec = steered_at(loaded, 3.0).spec
    batch = SteeredBatch(loaded, [prompt_of(list(PROMPTS[0]))], [spec], SAES)
    generation = Generation(loaded, [PROMPTS[0]], FREE, [0], edits=batch.edits())
    while not generation.done:
        generation.step()
    count = batch.row_proofs()[0].layers[1]
    assert (count.prompt, count.generated) == (1, FREE.max_tokens - 1)


def test_several_features_add_up_to_the_strength_and_not_to_more(tiny_model):
    loaded = tiny_model()
    for chosen in ({1: [5]}, {1: [5, 6, 7]}, {1: [3], 2: [8, 9]}):
        spec = steering_of(loaded, SAES, chosen, 0.5, NORMS)
        assert {edit.layer: float(change_of([edit]).norm()) for edit in spec.edits} == {
            layer: pytest.approx(0.5 * NORMS[layer], rel=1e-5) for layer in chosen
        }


def looping(loaded):
    """A model that is pushed so far that it says one thing only."""
    sae = sae_of(3)
    head_VD = loaded.model.get_output_embeddings().weight.detach()
    sae.W_dec_FD[0] = head_VD[65]
    return LoadedSaes(lambda layer: sae)


def test_a_steered_loop_is_cut_after_whole_repetitions_and_counts_as_truncated(tiny_model):
    loaded = tiny_model()
    saes = looping(loaded)
    spec = steering_of(loaded, saes, {3: [0]}, 50.0, {3: 10.0})
    # A random model's logits lie close together.
    long = Sampling(temperature=0.02, top_p=1, max_tokens=300, ignore_end=True)
    one = Sampler(loaded, long)([REQUESTS[0]], steered=Steered(spec, saes, 8))[0]
    assert one.truncated
    # A period of one token: eight of them are no loop, and 64 are.
    assert len(one.ids) == 64
    assert repetition_of(one.answer_ids, truncated=one.truncated).endless
    endless = Sampler(loaded, long)([REQUESTS[0]], steered=Steered(spec, saes, 0), max_tokens=100)[0]
    assert len(endless.ids) == 100
    assert endless.ids[:64] == one.ids


def test_the_best_features_are_those_of_the_layer_with_the_best_of_all():
    entries = [(1, 4, 0.5), (2, 9, 0.9), (2, 3, 0.1), (1, 5, 0.8), (2, 9, 0.7)]
    found = FeatureSet(entries=[FeatureEntry(layer=a, feature=b, score=c) for a, b, c in entries])
    assert best_features(found, 1, at="rl") == {2: [9]}
    assert best_features(found, 2, at="rl") == {2: [9, 3]}
    with pytest.raises(UserError) as error:
        best_features(found, 3, at="rl")
    assert error.value.reason == "FEATURES_NOT_FOUND"
    with pytest.raises(UserError):
        best_features(FeatureSet(), 1, at="rl")
    assert named_features(["2/9", "1/4", "2/3"]) == {1: [4], 2: [9, 3]}
