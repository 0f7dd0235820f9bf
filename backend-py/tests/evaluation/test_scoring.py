"""Scores of items against passes by hand in float64, one sequence at a time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from google.protobuf import json_format
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from qscope.data.answers import Answer
from qscope.data.items import Item
from qscope.errors import Stopped, UserError
from qscope.evaluation.scoring import ItemScorer, continued, likeliest
from qscope.models import LoadedModel, load_model
from qscope.v1.features_pb2 import Rendering
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.redundancy_pb2 import ItemScoring

PROMPTS = ["The file is", "Wählen Sie im Menü", "2 + 2 =", "Нажмите кнопку", "To open the dialog,", "保存"]
ANSWERS = [" saved in the folder", " die Option", " 4", " ОК", " choose the menu", "文件"]
CHOICES = [
    (" open", " saved in the folder", " zebra"),
    (" die Option", " xylophon qua"),
    (" 4", " 5", " 13"),
    (" нет", " ОК"),
    (" choose the menu", " q"),
    ("文件", "山"),
]
MEASURES = ("SCORE_MEASURE_CHOICE", "SCORE_MEASURE_EXACT", "SCORE_MEASURE_TOKENS")


def scoring(measure: str, **fields) -> ItemScoring:
    choices = {"choices": ["{c}"]} if measure == MEASURES[0] else {}
    return json_format.ParseDict(
        {"measure": measure, "answer": "{a}", "max_tokens": 5, **choices, **fields}, ItemScoring()
    )


ITEMS = [
    Item("", prompt, number, right=Answer(answer, choices, choices.index(answer)))
    for number, (prompt, answer, choices) in enumerate(zip(PROMPTS, ANSWERS, CHOICES, strict=True))
]


@pytest.fixture(scope="module")
def embedded() -> LoadedModel:
    return load_model("embedded", ModelOptions())


@pytest.fixture(scope="module")
def double(embedded) -> torch.nn.Module:
    return copy.deepcopy(embedded.model).double()


def reference(model: torch.nn.Module, tokenizer, prompt: str, answer: str) -> tuple[list[float], list[bool]]:
    """Log-probability of each token of an answer and whether it is the likeliest, token by token, in float64."""
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"][len(before) :]
    logprobs, greedy = [], []
    for index, token in enumerate(after):
        with torch.no_grad():
            logprob_V = model(torch.tensor([before + after[:index]])).logits[0, -1].double().log_softmax(-1)
        logprobs.append(float(logprob_V[token]))
        greedy.append(int(logprob_V.argmax()) == token)
    return logprobs, greedy


def scorer(loaded: LoadedModel, rows: int = 64, **options) -> ItemScorer:
    return ItemScorer(loaded, Rendering(), batch_rows=rows, **options)


@pytest.mark.parametrize("rows", [1, 4, 64])
def test_the_share_of_tokens_is_that_of_plain_passes_in_float64(embedded, double, rows):
    expected = [np.mean(reference(double, embedded.tokenizer, *pair)[1]) for pair in zip(PROMPTS, ANSWERS, strict=True)]
    found = scorer(embedded, rows).scores(ITEMS, scoring("SCORE_MEASURE_TOKENS"))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # Graded, or the test would not tell a share from a yes or no.
    assert ((found > 0) & (found < 1)).any()


@pytest.mark.parametrize("rows", [1, 64])
def test_the_mean_probability_is_that_of_plain_passes_in_float64(embedded, double, rows):
    expected = [
        np.mean(np.exp(reference(double, embedded.tokenizer, *pair)[0])) for pair in zip(PROMPTS, ANSWERS, strict=True)
    ]
    found = scorer(embedded, rows).scores(ITEMS, scoring("SCORE_MEASURE_PROBABILITY"))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("by_length", [False, True])
def test_choices_are_told_apart_as_in_float64(embedded, double, by_length):
    expected = []
    for prompt, answer, choices in zip(PROMPTS, ANSWERS, CHOICES, strict=True):
        values = {}
        for one in choices:
            total = sum(reference(double, embedded.tokenizer, prompt, one)[0])
            values[one] = total / len(one.strip()) if by_length else total
        expected.append(float(max(values, key=values.__getitem__) == answer))
    found = scorer(embedded).scores(ITEMS, scoring("SCORE_MEASURE_CHOICE", by_length=by_length))
    assert found.tolist() == expected
    assert len(set(expected)) == 2


def test_length_decides_where_whole_likelihoods_favour_the_short(embedded):
    """A long right answer loses as a whole and wins per character: golden, with this model."""
    item = Item("", PROMPTS[0], 0, right=Answer(ANSWERS[0], (ANSWERS[0], " a"), 0))
    both = [scorer(embedded).scores([item], scoring("SCORE_MEASURE_CHOICE", by_length=by))[0] for by in (False, True)]
    assert both == [0.0, 1.0]


def written(model: torch.nn.Module, tokenizer, prompt: str, count: int) -> str:
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        for _ in range(count):
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return tokenizer.decode(ids[start:])


@pytest.mark.parametrize("rows", [1, 64])
def test_exact_is_what_greedy_decoding_writes(embedded, double, rows):
    texts = [written(double, embedded.tokenizer, prompt, 5) for prompt in PROMPTS]
    # Every second answer is what the model writes, the others are not.
    items = [
        Item("", prompt, number, right=Answer(text if number % 2 else f"{text}x"))
        for number, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True))
    ]
    found = scorer(embedded, rows).scores(items, scoring("SCORE_MEASURE_EXACT"))
    assert found.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_stop_text_ends_what_is_written_and_extract_looks_for_the_last_number(embedded, double):
    text = written(double, embedded.tokenizer, "2 + 2 =", 5)
    stop = text[2]
    items = [Item("", "2 + 2 =", 0, right=Answer(text[:2]))]
    assert scorer(embedded).scores(items, scoring("SCORE_MEASURE_EXACT", until=[stop])).tolist() == [1]
    assert scorer(embedded).scores(items, scoring("SCORE_MEASURE_EXACT")).tolist() == [0]


def test_equal_items_are_asked_once_and_have_one_score(embedded):
    asked = []
    found = scorer(embedded, on_progress=lambda done, all_: asked.append(all_)).scores(
        [*ITEMS, *ITEMS[::-1]], scoring("SCORE_MEASURE_TOKENS")
    )
    assert found[: len(ITEMS)].tolist() == found[len(ITEMS) :][::-1].tolist()
    assert asked[-1] == len(ITEMS)


def test_items_that_differ_in_their_answer_alone_are_asked_each(embedded):
    items = [Item("", PROMPTS[0], 0, right=Answer(" zzz")), ITEMS[0]]
    one, other = scorer(embedded).scores(items, scoring("SCORE_MEASURE_TOKENS"))
    assert one != other


def test_likeliest_takes_no_tie():
    assert likeliest([1.0, 3.0, 2.0], 1) == 1
    assert likeliest([3.0, 3.0, 2.0], 0) == 0
    assert likeliest([1.0, 3.0, 2.0], 2) == 0


def test_a_token_across_the_border_is_tokenised_apart(tokenizer):
    """'th' + 'e' is one token of this tokenizer: a model would be asked for what no context leads to."""
    ids = lambda text: tokenizer(text)["input_ids"]  # noqa: E731
    assert continued(tokenizer, "a th", "e end") == (ids("a th"), ids("e end"))
    assert continued(tokenizer, "a", " end") == (ids("a"), ids("a end")[1:])
    # Nothing to read is the end token.
    assert continued(tokenizer, "", "x")[0] == [tokenizer.eos_token_id]


def test_what_follows_is_no_beginning():
    """A tokenizer that marks the beginning of a text (Llama's) would mark a continuation taken by itself as well."""
    letters = {letter: index for index, letter in enumerate("\u2581abc")}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    assert continued(PreTrainedTokenizerFast(tokenizer_object=backend), "a b", "c") == ([0, 1, 0, 2], [3])


def test_a_prompt_longer_than_the_model_is_counted(embedded):
    long = scorer(embedded)
    long.scores([Item("", "word " * 700, 0, right=Answer(" word"))], scoring("SCORE_MEASURE_TOKENS"))
    assert long.cut == 1


def test_answers_without_room_for_a_prompt_are_refused_at_their_field(embedded):
    with pytest.raises(UserError) as caught:
        scorer(embedded, at="b.score.max_tokens").scores(ITEMS, scoring("SCORE_MEASURE_EXACT", max_tokens=512))
    assert (caught.value.reason, caught.value.field) == ("CONTEXT_EXCEEDED", "b.score.max_tokens")


def test_a_model_that_is_not_finite_is_refused(tokenizer, tiny_model):
    loaded = tiny_model("llama")
    broken = copy.deepcopy(loaded.model)
    broken.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(UserError) as caught:
        scorer(type(loaded)(broken, tokenizer, loaded.decoder, loaded.facts)).scores(
            [Item("", "a", 0, right=Answer("b"))], scoring("SCORE_MEASURE_TOKENS")
        )
    assert caught.value.reason == "MODEL_NOT_FINITE"


def test_it_stops_when_asked(embedded):
    with pytest.raises(Stopped):
        scorer(embedded, should_stop=lambda: True).scores(ITEMS, scoring("SCORE_MEASURE_TOKENS"))


def test_prompts_are_rendered_in_the_chat_template_where_asked(embedded):
    chat = ItemScorer(embedded, Rendering(chat=True), batch_rows=8)
    plain = scorer(embedded)
    kind = scoring("SCORE_MEASURE_TOKENS")
    assert chat.scores(ITEMS, kind).tolist() != plain.scores(ITEMS, kind).tolist()
