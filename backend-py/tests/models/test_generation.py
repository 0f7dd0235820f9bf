"""The decoding loop: rows that have ended leave the batch, and log-probabilities are told at a temperature."""

from __future__ import annotations

import pytest
import torch

from qscope.models import logits_of
from qscope.models.generation import Generation
from qscope.v1.generation_pb2 import Sampling

FREE = Sampling(temperature=1, top_p=1, max_tokens=24, ignore_end=True)
PROMPTS = [[40, 41, 77], [90, 12], [55, 63, 200, 9], [7], [8, 9, 10], [30, 31]]
#: After how many tokens each row is ended from outside.
LENGTHS = [3, 24, 1, 24, 5, 3]


def run(loaded, *, drop: bool, **more):
    generation = Generation(loaded, PROMPTS, FREE, list(range(6)), drop_ended=drop, **more)
    tokens, logprobs, widths = [[] for _ in PROMPTS], [[] for _ in PROMPTS], []
    while not generation.done:
        for drawn in generation.step().drawn:
            tokens[drawn.row].append(drawn.token)
            logprobs[drawn.row].append(drawn.logprob)
            if len(tokens[drawn.row]) == LENGTHS[drawn.row]:
                generation.end(drawn.row)
        widths.append(len(generation._ids_BL))
    return tokens, logprobs, widths


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe", "llama", "gpt2"])
def test_rows_that_have_ended_leave_the_batch_and_the_others_go_on_as_before(tiny_model, family):
    kept, kept_logprobs, wide = run(tiny_model(family), drop=False)
    tokens, logprobs, widths = run(tiny_model(family), drop=True)
    assert tokens == kept
    assert [len(row) for row in tokens] == LENGTHS
    for row, expected in zip(logprobs, kept_logprobs, strict=True):
        torch.testing.assert_close(torch.tensor(row), torch.tensor(expected), atol=1e-5, rtol=0)
    assert set(wide) == {6}
    assert widths[-1] == 3
    assert widths == sorted(widths, reverse=True)


def test_a_cache_that_cannot_be_taken_apart_keeps_its_rows(tiny_model):
    tokens, _, widths = run(tiny_model("qwen3_5"), drop=True)
    assert tokens == run(tiny_model("qwen3_5"), drop=False)[0]
    assert set(widths) == {6}


def test_no_row_is_dropped_under_edits(tiny_model):
    edits = {1: lambda resid_BTD, tokens: resid_BTD + 0.5}
    tokens, _, widths = run(tiny_model("qwen3"), drop=True, edits=edits)
    assert tokens == run(tiny_model("qwen3"), drop=False, edits=edits)[0]
    assert set(widths) == {6}


def test_log_probabilities_are_told_at_the_temperature_asked_for(tiny_model):
    loaded = tiny_model("qwen3")
    warm = Sampling(temperature=0.7, top_p=1, max_tokens=5, ignore_end=True)
    for told in (1.0, 0.7):
        generation, ids, found = Generation(loaded, [[40, 41]], warm, [3], logprobs_at=told), [40, 41], []
        while not generation.done:
            drawn = generation.step().drawn[0]
            ids.append(drawn.token)
            found.append(drawn.logprob)
        logits_TV = logits_of(loaded, torch.tensor([ids]))[0].double() / told
        expected_T = logits_TV.log_softmax(-1)[1:-1].gather(1, torch.tensor(ids[2:])[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found).double(), expected_T, atol=1e-5, rtol=0)
