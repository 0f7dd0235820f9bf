"""Streamed text is the decoded text: no broken characters, no lost ends, stop texts cut exactly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.models.generation import TextStream


def streamed(tokenizer, ids: list[int], stop: list[str] | None = None) -> tuple[list[str], TextStream]:
    stream = TextStream(tokenizer, stop or [])
    pieces = []
    for token in ids:
        pieces.append(stream.push(token))
        if stream.stopped:
            return pieces, stream
    pieces.append(stream.finish())
    return pieces, stream


@given(text=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_pieces_join_to_the_text_and_none_ends_in_half_a_character(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces, stream = streamed(tokenizer, ids)
    assert "".join(pieces) == stream.text == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


@given(
    before=st.text("abc\n€", max_size=12),
    stop=st.text("abc\n€", min_size=1, max_size=4),
    after=st.text("abc", max_size=5),
)
@settings(max_examples=300, deadline=None)
def test_a_stop_text_ends_the_row_before_its_first_occurrence(tokenizer, before, stop, after):
    text = before + stop + after
    pieces, stream = streamed(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], [stop])
    assert stream.stopped
    assert "".join(pieces) == stream.text == text[: text.find(stop)]


@given(text=st.text("ab", max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_stop_text_that_never_comes_takes_nothing_away(tokenizer, text):
    pieces, stream = streamed(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], ["abX", "bbbX"])
    assert not stream.stopped
    assert "".join(pieces) == text


def test_bytes_that_are_no_text_come_out_at_the_end(tokenizer):
    euro = tokenizer("€", add_special_tokens=False)["input_ids"]
    pieces, _ = streamed(tokenizer, euro[:2])
    assert pieces[:2] == ["", ""]
    assert set(pieces[2]) == {"\ufffd"}


@pytest.mark.parametrize("stops", [["END"], ["EN", "END"], ["ND", "END"]])
def test_the_earliest_of_several_stop_texts_counts(tokenizer, stops):
    pieces, _ = streamed(tokenizer, tokenizer("so END here", add_special_tokens=False)["input_ids"], stops)
    expected = "so END here"[: min("so END here".find(stop) for stop in stops)]
    assert "".join(pieces) == expected
