#!/usr/bin/env python3
"""A byte-level BPE with Qwen3's special tokens, pre-tokenisation and chat template, of its own 8192 pieces.

python build_tokenizer.py CACHE OUT
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Qwen2TokenizerFast

VOCABULARY = 8192
TRAINING_BYTES = 4_000_000  # a language: the same share for each, or Korean and Chinese would be cut into bytes

# Qwen2's and Qwen3's own: digits one by one, letters with one leading mark, at most one blank before punctuation.
PRETOKENISE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# (text, special): thinking and tool marks are plain added tokens in Qwen3, visible to `skip_special_tokens`.
QWEN_TOKENS = (
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True),
    ("<|object_ref_start|>", True), ("<|object_ref_end|>", True), ("<|box_start|>", True), ("<|box_end|>", True),
    ("<|quad_start|>", True), ("<|quad_end|>", True), ("<|vision_start|>", True), ("<|vision_end|>", True),
    ("<|vision_pad|>", True), ("<|image_pad|>", True), ("<|video_pad|>", True),
    ("<tool_call>", False), ("</tool_call>", False), ("<|fim_prefix|>", False), ("<|fim_middle|>", False),
    ("<|fim_suffix|>", False), ("<|fim_pad|>", False), ("<|repo_name|>", False), ("<|file_sep|>", False),
    ("<tool_response>", False), ("</tool_response>", False), ("<think>", False), ("</think>", False),
)  # fmt: skip


def training_texts(path: Path) -> Iterator[str]:
    taken: dict[str, int] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            size = taken.get(row["language"], 0)
            if size < TRAINING_BYTES:
                taken[row["language"]] = size + len(row["text"].encode())
                yield row["text"]


def build(texts: Iterator[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENISE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(QWEN_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # After the learned pieces, as in Qwen's own vocabulary.
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in QWEN_TOKENS])
    return tokenizer


def save(tokenizer: Tokenizer, out: Path) -> None:
    fast = Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        bos_token=None,
        model_max_length=512,
        additional_special_tokens=[text for text, special in QWEN_TOKENS[1:] if special],
        add_prefix_space=False,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    fast.save_pretrained(out, save_jinja_files=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    save(build(training_texts(arguments.cache / "text" / "train.jsonl")), arguments.out)
