"""Documents: which tokens count, what a template adds, how they are split and batched."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qscope.data import open_text
from qscope.errors import UserError
from qscope.features.documents import Document, DocumentReader, batches, split
from qscope.v1.features_pb2 import Rendering, TokenMasks
from qscope.v1.text_pb2 import TextSource

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>a{% if not enable_thinking %}!{% endif %}{% endif %}"
)


@pytest.fixture
def chat_tokenizer(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    return tokenizer


def reader(tmp_path, tokenizer, texts, context=64, rendering=None, **masks) -> DocumentReader:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": text, "tag": n % 2}) + "\n" for n, text in enumerate(texts)))
    on = {"skip_first_token": True, "skip_special_tokens": True, **masks}
    return DocumentReader(
        open_text(TextSource(source=str(path)), label="tag", label_field="x.tag"),
        tokenizer,
        context=context,
        rendering=rendering or Rendering(),
        masks=TokenMasks(**on),
    )


def counted(tokenizer, document: Document) -> str:
    return tokenizer.decode(document.ids_T[document.group_T >= 0])


def test_first_and_special_tokens_do_not_count(tmp_path, tokenizer) -> None:
    read = reader(tmp_path, tokenizer, ["abc<|im_end|>def", "", "x", "yz"])
    documents = read.take(10)
    assert [counted(tokenizer, one) for one in documents] == ["bcdef", "z"]
    assert [(one.number, one.label) for one in documents] == [(0, "0"), (3, "1")]
    assert (read.read, read.empty, read.cut) == (2, 2, 0)
    (first, *_) = reader(tmp_path, tokenizer, ["abc<|im_end|>d"], skip_first_token=False).take(1)
    assert counted(tokenizer, first) == "abcd"
    (every,) = reader(tmp_path, tokenizer, ["a<|im_end|>"], skip_first_token=False, skip_special_tokens=False).take(1)
    assert counted(tokenizer, every) == "a<|im_end|>"


def test_a_document_is_cut_at_the_context_and_counted_as_cut(tmp_path, tokenizer) -> None:
    read = reader(tmp_path, tokenizer, ["abcdefgh", "abc"], context=4)
    assert [len(one.ids_T) for one in read.take(5)] == [4, 3]
    assert read.cut == 1


@pytest.mark.parametrize("text", ["hello", " user:hello ", "<|im_start|>user:hello", "\n\nh\n"])
@pytest.mark.parametrize("thinking", [True, False])
def test_in_a_template_only_the_document_counts(tmp_path, chat_tokenizer, text, thinking) -> None:
    rendering = Rendering(chat=True, thinking=thinking)
    (one,) = reader(tmp_path, chat_tokenizer, [text], rendering=rendering).take(1)
    whole = chat_tokenizer.decode(one.ids_T)
    assert whole == f"<|im_start|>user:{text}<|im_end|><|im_start|>a{'' if thinking else '!'}"
    assert counted(chat_tokenizer, one) == text.replace("<|im_start|>", "")


def test_what_the_template_cannot_do_is_said(tmp_path, tokenizer, monkeypatch) -> None:
    with pytest.raises(UserError) as caught:
        reader(tmp_path, tokenizer, ["a"], rendering=Rendering(thinking=True))
    assert (caught.value.reason, caught.value.field) == ("THINKING_WITHOUT_CHAT", "rendering.thinking")
    for template in ("{{ messages[0].content | length }}", "{{ raise_exception('no') }}"):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        with pytest.raises(UserError) as caught:
            reader(tmp_path, tokenizer, ["a"], rendering=Rendering(chat=True))
        assert caught.value.reason == "NO_CHAT_TEMPLATE"


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("one <think> two </think> three", ["one", "three"]),
        ("one </think> two <think> three </think> four", ["two", "four"]),
        ("one <think> two </think> three </think> four <think> five </think> six", ["one", "three", "four", "six"]),
        ("one <think> two", ["one"]),
        ("one two", ["one", "two"]),
    ],
)
def test_thinking_can_be_left_out(text, counted) -> None:
    from qscope.models import load_model
    from qscope.v1.model_pb2 import ModelOptions

    tokenizer = load_model("embedded", ModelOptions()).tokenizer
    read = DocumentReader(
        open_text(TextSource(source="embedded-heldout")),
        tokenizer,
        context=64,
        rendering=Rendering(),
        masks=TokenMasks(skip_thinking=True),
    )
    ids_T = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    counts_T = np.ones(len(ids_T), dtype=bool)
    read._mask(ids_T, counts_T)
    assert tokenizer.decode(ids_T[counts_T]).split() == counted


def test_thinking_cannot_be_left_out_without_its_tags(tmp_path, tokenizer) -> None:
    with pytest.raises(UserError) as caught:
        reader(tmp_path, tokenizer, ["abc"], skip_thinking=True)
    assert (caught.value.reason, caught.value.field) == ("THINKING_UNKNOWN", "masks.skip_thinking")


def test_a_reader_goes_on_where_its_state_was_taken(tmp_path, tokenizer) -> None:
    texts = [f"text number {n}" for n in range(200)]
    whole = reader(tmp_path, tokenizer, texts)
    whole.take(70)
    resumed = reader(tmp_path, tokenizer, texts)
    resumed.load_state(json.loads(json.dumps(whole.state())))
    assert [one.number for one in resumed.take(300)] == [one.number for one in whole.take(300)] == list(range(70, 200))


@pytest.mark.parametrize("shuffle", [0, 16])
def test_a_where_that_nothing_fits_obeys_a_stop(tmp_path, tokenizer, shuffle) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {n}", "tag": "a"}) + "\n" for n in range(500)))
    source = TextSource(source=str(path), where="tag=b", shuffle_documents=shuffle)
    read = DocumentReader(open_text(source), tokenizer, context=8, rendering=Rendering(), masks=TokenMasks())
    asked = iter(range(1000))
    assert read.take(10, lambda: next(asked) >= 20) == []
    assert next(asked) < 30, "it went on to the end"


def test_a_source_without_anything_that_counts_is_refused(tmp_path, tokenizer) -> None:
    with pytest.raises(UserError) as caught:
        reader(tmp_path, tokenizer, ["", "a", "<|im_end|><|im_end|>"]).require(5)
    assert (caught.value.reason, caught.value.field) == ("NO_TEXT", "text.source")
    assert "3 rows" in caught.value.message


def test_a_split_depends_on_the_texts_and_the_seed_alone(documents) -> None:
    given = documents(101, seed=4)
    once = split([*given, *given[:10]], 0.3, seed=7)
    assert once.duplicates == 10
    assert (len(once.ranking), len(once.held_out)) == (71, 30)
    names = [{one.digest for one in half} for half in (once.ranking, once.held_out)]
    assert not names[0] & names[1]
    backwards = split(given[::-1], 0.3, seed=7)
    assert {one.digest for one in backwards.held_out} == names[1]
    assert {one.digest for one in split(given, 0.3, seed=8).held_out} != names[1]
    assert [len(half) for half in (split(given[:5], 0.01, 0).held_out, split(given[:5], 0.99, 0).ranking)] == [2, 2]


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_batches_hold_every_document_once_within_the_limit(documents, batch_tokens) -> None:
    given = documents(37, seed=2, group=3)
    rows = []
    for batch in batches(given, batch_tokens):
        shape = batch.input_ids_BT.shape
        assert shape[0] == 1 or shape.numel() <= batch_tokens
        for index, row in enumerate(batch.rows_B.tolist()):
            mask_T = batch.attention_mask_BT[index]
            np.testing.assert_array_equal(batch.input_ids_BT[index][mask_T].numpy(), given[row].ids_T)
            np.testing.assert_array_equal(batch.group_BT[index][mask_T].numpy(), given[row].group_T)
            assert (batch.group_BT[index][~mask_T] == -1).all()
            rows.append(row)
    assert sorted(rows) == list(range(37))
