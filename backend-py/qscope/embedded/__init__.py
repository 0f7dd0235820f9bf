"""The small real model and text that ship with qscope: `model: embedded`.

A Qwen3 of 2.2 M parameters trained by `scripts/embedded-model`, in Hugging Face layout under model/, with the text held
out of its training and a sample of its training split. What it is and how good it is: model/README.md.
"""

from __future__ import annotations

from pathlib import Path

MODEL_NAME = "embedded"

_HERE = Path(__file__).resolve().parent


def model_path() -> Path:
    """The model's folder, for `from_pretrained`: config, weights, tokenizer with chat template, model card."""
    return _HERE / "model"


def train_text_path() -> Path:
    """Sample of the training split, .jsonl.gz with fields text, language, source.

    Documents are shuffled and streams interleaved, so any prefix is a fair sample of the whole.
    """
    return _HERE / "text" / "train.jsonl.gz"


def heldout_text_path() -> Path:
    """Text the model never saw, .jsonl.gz with the same fields."""
    return _HERE / "text" / "heldout.jsonl.gz"
