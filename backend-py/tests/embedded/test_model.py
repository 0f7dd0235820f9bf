"""The shipped model is what its card says, loads with plain transformers, and has learned its text."""

from __future__ import annotations

import gzip
import json
import math
import re
from itertools import islice

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from qscope.embedded import heldout_text_path, model_path, train_text_path


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(model_path()).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path())


def rows(path, count=None):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, count)]


def test_is_a_qwen3_in_float32_with_tied_embeddings(model):
    assert isinstance(model, Qwen3ForCausalLM)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_fits_the_repository_and_agrees_with_its_card(model):
    assert (model_path() / "model.safetensors").stat().st_size < 24_000_000
    card = (model_path() / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"\| parameters \| ([\d,]+)", card)
    assert stated is not None
    assert int(stated[1].replace(",", "")) == model.num_parameters()
    evaluation = json.loads((model_path() / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["parameters"] == model.num_parameters()
    for name in ("en", "zh", "ru", "fr", "de", "ko"):
        assert f"{evaluation['heldout'][name]['nats_per_token']:.3f}" in card


def test_generation_ends_where_qwen3_ends(model, tokenizer):
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert model.config.vocab_size == len(tokenizer)


@pytest.mark.parametrize("language", ["en", "zh", "ru", "fr", "de", "ko"])
def test_predicts_heldout_text_far_better_than_chance(model, tokenizer, language):
    texts = [
        r["text"] for r in rows(heldout_text_path()) if r["language"] == language and "generated" not in r["source"]
    ]
    ids = torch.tensor([tokenizer(max(texts, key=len))["input_ids"][:400]])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert loss < 0.75 * math.log(len(tokenizer))


@pytest.mark.parametrize("path", [train_text_path(), heldout_text_path()], ids=["train", "heldout"])
def test_any_prefix_of_the_text_holds_every_stream(path):
    seen = {(row["language"], row["source"].startswith("generated")) for row in rows(path, 300)}
    assert {(language, False) for language in ("en", "zh", "ru", "fr", "de", "ko")} <= seen
    assert {("arithmetic", True), ("en", True), ("ko", True)} <= seen


def test_no_heldout_document_is_among_the_trained_ones():
    trained = {row["text"] for row in rows(train_text_path())}
    heldout = [row["text"] for row in rows(heldout_text_path())]
    assert len(trained) > 10_000
    assert not trained.intersection(heldout)
