"""The token stream: golden sequences, exact resume, counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.data import TokenStream, end_of_text_id, measure_supply, open_text
from qscope.errors import UserError
from qscope.v1.text_pb2 import TextSource


def write(folder: Path, texts: list[str], name: str = "text.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def stream(source: str, tokenizer, *, context=8, pack=True, repeat=False, shuffle=0, seed=0) -> TokenStream:
    reader = open_text(TextSource(source=source, field="text", shuffle_documents=shuffle), seed=seed)
    return TokenStream(reader, tokenizer, context=context, pack=pack, repeat=repeat)


def decoded(tokenizer, batch) -> list[str]:
    rows = zip(batch.input_ids_BT, batch.attention_mask_BT, strict=True)
    return [tokenizer.decode(ids[mask]) for ids, mask in rows]


def test_packed_rows_are_the_documents_joined_by_end_of_text(tmp_path, tokenizer):
    source = write(tmp_path, ["abc", "defghij", "k"])
    batch = stream(source, tokenizer, context=5).next_batch(10)
    assert decoded(tokenizer, batch) == [
        "abc<|endoftext|>d",
        "efghi",
        "j<|endoftext|>k<|endoftext|>",
    ]
    assert batch.attention_mask_BT.tolist()[2] == [True] * 4 + [False]
    assert batch.first_token_BT.tolist() == [[True] + [False] * 4] * 3
    assert batch.tokens == 14


def test_unpacked_rows_start_with_a_document_and_long_ones_are_cut(tmp_path, tokenizer):
    source = write(tmp_path, ["abc", "defghij", "k"])
    batch = stream(source, tokenizer, context=5, pack=False).next_batch(10)
    assert decoded(tokenizer, batch) == ["abc", "defgh", "ij", "k"]
    assert batch.input_ids_BT.shape == (4, 5)


def test_an_unpacked_batch_is_no_wider_than_its_longest_row(tmp_path, tokenizer):
    batch = stream(write(tmp_path, ["abc", "de"]), tokenizer, context=500, pack=False).next_batch(2)
    assert batch.input_ids_BT.shape == (2, 3)


def test_special_token_strings_become_special_tokens_and_nothing_is_prepended(tmp_path, tokenizer):
    batch = stream(write(tmp_path, ["<|im_start|>x<|im_end|>"]), tokenizer, context=4).next_batch(1)
    assert tokenizer.convert_ids_to_tokens(batch.input_ids_BT[0].tolist()) == [
        "<|im_start|>",
        "x",
        "<|im_end|>",
        "<|endoftext|>",
    ]


def test_end_of_text_is_preferred_to_end_of_turn(tokenizer):
    assert tokenizer.eos_token == "<|im_end|>"
    assert end_of_text_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_repeat_counts_passes_and_joins_them_seamlessly(tmp_path, tokenizer):
    tokens = stream(write(tmp_path, ["ab", " ", "c"]), tokenizer, context=7, repeat=True)
    text = tokenizer.decode(torch.cat([tokens.next_batch(1).input_ids_BT[0] for _ in range(5)]))
    assert text == ("ab<|endoftext|>c<|endoftext|>" * 7)
    tokens.next_batch(1)
    assert tokens.stats() == {"tokens_read": 42, "documents": 16, "empty_documents": 8, "passes": 8}


def test_without_repeat_the_text_ends(tmp_path, tokenizer):
    tokens = stream(write(tmp_path, ["abcd"]), tokenizer, context=5)
    assert tokens.next_batch(3).input_ids_BT.shape == (1, 5)
    assert tokens.next_batch(3) is None
    assert tokens.next_batch(3) is None
    assert tokens.passes == 1


@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("texts", [[], ["", "  \n "]])
def test_a_source_without_text_is_refused(tmp_path, tokenizer, texts, repeat):
    with pytest.raises(UserError) as caught:
        stream(write(tmp_path, texts), tokenizer, repeat=repeat).next_batch(1)
    assert caught.value.reason == "NO_TEXT"
    assert caught.value.field == "text.source"


def test_shuffle_is_a_permutation_that_depends_on_seed_and_pass(tmp_path, tokenizer):
    source = write(tmp_path, [f"{i:02d}" for i in range(40)])

    def order(seed, passes=1):
        tokens = stream(source, tokenizer, context=2, pack=False, repeat=True, shuffle=10, seed=seed)
        ids = torch.cat([tokens.next_batch(1).input_ids_BT for _ in range(40 * passes)])
        return [int(tokenizer.decode(row)) for row in ids]

    first = order(seed=1)
    assert sorted(first) == list(range(40))
    assert first != list(range(40))
    assert all(sorted(first[i : i + 10]) == list(range(i, i + 10)) for i in range(0, 40, 10)), "windows stay windows"
    assert order(seed=1) == first
    assert order(seed=2) != first
    assert order(seed=1, passes=2)[40:] != first


documents = st.lists(st.text(alphabet="the <|im_start|>ab\n€", max_size=40), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    texts=documents.filter(lambda texts: any(text.strip() for text in texts)),
    context=st.integers(2, 20),
    sequences=st.integers(1, 5),
    cut=st.integers(0, 12),
    pack=st.booleans(),
    repeat=st.booleans(),
    shuffle=st.sampled_from([0, 1, 2, 7, 100]),
)
def test_a_resumed_stream_continues_with_the_very_same_tokens(
    tmp_path_factory, tokenizer, texts, context, sequences, cut, pack, repeat, shuffle
):
    folder = tmp_path_factory.mktemp("text")
    half = len(texts) // 2
    write(folder, texts[:half], "a.jsonl")
    write(folder, texts[half:], "b.jsonl")

    def fresh():
        return stream(str(folder), tokenizer, context=context, pack=pack, repeat=repeat, shuffle=shuffle, seed=3)

    whole, first = fresh(), fresh()
    for _ in range(cut):
        expected, got = whole.next_batch(sequences), first.next_batch(sequences)
        assert (expected is None) == (got is None)
    second = fresh()
    second.load_state(json.loads(json.dumps(first.state())))
    for _ in range(6):
        expected, got = whole.next_batch(sequences), second.next_batch(sequences)
        assert (expected is None) == (got is None)
        if expected is None:
            break
        assert torch.equal(expected.input_ids_BT, got.input_ids_BT)
        assert torch.equal(expected.attention_mask_BT, got.attention_mask_BT)
    assert second.stats() == whole.stats()
    assert second.state() == whole.state()


def test_resume_beyond_one_chunk_and_inside_a_long_document(tmp_path, tokenizer):
    texts = [f"document {i} " * (1 + 3000 * (i == 70)) for i in range(200)]
    source = write(tmp_path, texts)
    whole = stream(source, tokenizer, context=50)
    for _ in range(400):
        whole.next_batch(1)
    resumed = stream(source, tokenizer, context=50)
    resumed.load_state(whole.state())
    while (expected := whole.next_batch(7)) is not None:
        assert torch.equal(expected.input_ids_BT, resumed.next_batch(7).input_ids_BT)
    assert resumed.next_batch(7) is None
    assert resumed.stats() == whole.stats()


def test_changed_text_is_refused_on_resume(tmp_path, tokenizer):
    source = write(tmp_path, ["abc", "def"])
    state = stream(source, tokenizer).state()
    write(tmp_path, ["abc", "deg"])
    with pytest.raises(UserError) as caught:
        stream(source, tokenizer).load_state(state)
    assert caught.value.reason == "TEXT_CHANGED"


def test_supply_counts_a_small_text_whole_and_stops_early_on_a_large_one(tmp_path, tokenizer):
    source = write(tmp_path, ["abcd"] * 1000)
    whole = measure_supply(stream(source, tokenizer, context=10), enough_tokens=10**9)
    assert (whole.tokens, whole.sequences, whole.complete) == (5000, 500, True)
    early = measure_supply(stream(source, tokenizer, context=10), enough_tokens=100)
    assert not early.complete
    assert 100 <= early.tokens < 5000


def test_a_document_longer_than_one_tokenizer_call_stays_one_document(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("qscope.data.tokens._PIECE_CHARACTERS", 4)
    batch = stream(write(tmp_path, ["abcdefghij", "k"]), tokenizer, context=20).next_batch(1)
    assert tokenizer.decode(batch.input_ids_BT[0][:13]) == "abcdefghij<|endoftext|>k<|endoftext|>"
