"""Qwen's tokenizer in all but its pieces: special tokens, pre-tokenisation, normalisation, chat template."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qscope.embedded import model_path

TOKENIZER = AutoTokenizer.from_pretrained(model_path())


def test_loads_as_qwens_tokenizer_with_qwens_roles():
    assert type(TOKENIZER).__name__ in ("Qwen2Tokenizer", "Qwen2TokenizerFast")
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token, TOKENIZER.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert len(TOKENIZER) == 8192


@pytest.mark.parametrize("token", ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>"])
def test_special_tokens_are_one_id_each_at_the_end_of_the_vocabulary(token):
    ids = TOKENIZER(f"a{token}b")["input_ids"]
    assert len(ids) == 3
    assert ids[1] == TOKENIZER.convert_tokens_to_ids(token) >= 8192 - 26


def test_thinking_marks_survive_where_chat_marks_are_skipped():
    ids = TOKENIZER("<think>x</think><|im_end|>")["input_ids"]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<think>x</think>"


def test_digits_are_cut_one_by_one():
    assert TOKENIZER.tokenize("1234") == ["1", "2", "3", "4"]


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_decodes_to_its_nfc_form(text):
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)


def rendered(messages, **options):
    return TOKENIZER.apply_chat_template(messages, tokenize=False, **options)


ASK = [{"role": "user", "content": "Hi"}]
SYSTEM = [{"role": "system", "content": "S"}]


# The strings Qwen3-8B's own template gives.
@pytest.mark.parametrize(
    ("messages", "options", "expected"),
    [
        (ASK, {}, "<|im_start|>user\nHi<|im_end|>\n"),
        (ASK, {"add_generation_prompt": True}, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            SYSTEM + ASK,
            {"add_generation_prompt": True, "enable_thinking": False},
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        (
            [*ASK, {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nYo"}, *ASK],
            {},
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
        ),
        (
            [*ASK, {"role": "assistant", "content": "Yo"}],
            {},
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nYo<|im_end|>\n",
        ),
        (
            [*ASK, {"role": "assistant", "content": "Yo", "reasoning_content": "why"}],
            {},
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\nwhy\n</think>\n\nYo<|im_end|>\n",
        ),
    ],
)
def test_chat_template_writes_what_qwen3_writes(messages, options, expected):
    assert rendered(messages, **options) == expected
    ids = TOKENIZER.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    assert TOKENIZER.decode(ids) == expected
