"""From text to batches with a real (tiny, random) model: values, resume, exhaustion, counts."""

from __future__ import annotations

import json

import pytest
import torch

from qscope.data import TokenStream, open_text
from qscope.errors import UserError
from qscope.models import capture_residuals
from qscope.sae.activations import ActivationStream
from qscope.v1.sae_pb2 import ActivationBuffer, ActivationFilter
from qscope.v1.text_pb2 import TextSource

LAYERS = [0, 2, 3]
FILTER = ActivationFilter(drop_first_token=True, max_norm_ratio=1.3)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    texts = [f"the document {i} " * (i * 7 % 5 + 1) for i in range(20)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def tokens_of(source, tokenizer, *, pack=True, repeat=True, shuffle=8) -> TokenStream:
    reader = open_text(TextSource(source=source, field="text", shuffle_documents=shuffle), seed=1)
    return TokenStream(reader, tokenizer, context=16, pack=pack, repeat=repeat)


@pytest.fixture
def make(source, tiny_model, tokenizer):
    def make(*, filter=FILTER, batch=50, buffer=150, family="qwen3", **options) -> ActivationStream:
        return ActivationStream(
            tiny_model(family),
            tokens_of(source, tokenizer, **options),
            LAYERS,
            filter=filter,
            buffer=ActivationBuffer(tokens=buffer, model_batch_tokens=64),
            batch_tokens=batch,
            seed=7,
        )

    return make


def test_batches_hold_the_models_activations_each_kept_token_once(make, source, tiny_model, tokenizer):
    stream = make(filter=ActivationFilter(drop_first_token=True), repeat=False)
    batches = []
    with pytest.raises(UserError) as caught:
        batches.extend(iter(stream.next_batch, None))
    assert caught.value.reason == "TEXT_EXHAUSTED"
    served = torch.cat(batches, 1)
    assert batches[0].shape == (3, 50, 32)

    tokens, expected = tokens_of(source, tokenizer, repeat=False), []
    while (batch := tokens.next_batch(4)) is not None:
        captured = capture_residuals(tiny_model("qwen3"), LAYERS, batch.input_ids_BT, batch.attention_mask_BT)
        keep_BT = batch.attention_mask_BT & ~batch.first_token_BT
        expected.append(torch.stack([captured[layer][keep_BT] for layer in LAYERS]))
    expected = torch.cat(expected, 1)
    left_over = expected.shape[1] - served.shape[1]
    assert 0 <= left_over < 50
    assert f"{expected.shape[1]:,} usable tokens" in caught.value.message

    distance = torch.cdist(served.transpose(0, 1).flatten(1), expected.transpose(0, 1).flatten(1))
    nearest = distance.min(1)
    assert nearest.values.max() < 1e-3, "all layers of a batch row belong to one token"
    assert not torch.equal(nearest.indices, nearest.indices.sort().values), "shuffled"


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
@pytest.mark.parametrize("pack", [True, False])
def test_resumed_batches_are_bit_equal_to_an_unbroken_run(make, pack, family):
    stream = make(pack=pack, family=family)
    expected = [stream.next_batch() for _ in range(16)]
    for cut in (0, 1, 2, 3, 7, 12):
        first = make(pack=pack, family=family)
        for _ in range(cut):
            first.next_batch()
        second = make(pack=pack, family=family)
        state = json.loads(json.dumps(first.state_json()))
        second.load_state(state, {name: tensor.clone() for name, tensor in first.state_tensors().items()})
        for step in range(cut, 16):
            assert torch.equal(second.next_batch(), expected[step]), f"cut {cut}, step {step}"
        assert second.stats() == stream.stats()
    assert stream.stats()["passes"] >= 1
    assert stream.stats()["dropped"]["any_layer"] > 0, "the norm filter took part"
    assert pack or stream.stats()["padding"] > 0


def test_stats_add_up(make):
    stream = make()
    for _ in range(5):
        stream.next_batch()
    stats = stream.stats()
    dropped = stats["dropped"]
    assert stats["tokens_read"] == stats["tokens_kept"] + dropped["first_token"] + dropped["any_layer"]
    assert stats["tokens_kept"] == 5 * 50 + stats["tokens_buffered"]
    assert dropped["any_layer"] <= sum(facts["outlier"] for facts in stats["layers"].values())
    assert list(stats["layers"]) == LAYERS
    assert all(facts["median_norm"] > 0 for facts in stats["layers"].values())
    json.dumps(stats)


def test_too_little_text_is_refused_before_training_and_the_check_leaves_no_trace(make):
    stream, untouched = make(repeat=False), make(repeat=False)
    with pytest.raises(UserError, match="repeat is off") as caught:
        stream.require(10**6)
    assert (caught.value.reason, caught.value.field) == ("TEXT_EXHAUSTED", "train_sae.text.repeat")
    stream.require(500)
    assert torch.equal(stream.next_batch(), untouched.next_batch())
    assert stream.stats() == untouched.stats()
    make(repeat=True).require(10**6)


def test_a_filter_that_keeps_nothing_is_an_error_not_a_hang(tiny_model, tokenizer, tmp_path):
    (tmp_path / "text.txt").write_text("a\n\nb\n\nc")
    stream = ActivationStream(
        tiny_model("qwen3"),
        tokens_of(str(tmp_path / "text.txt"), tokenizer, pack=False, shuffle=0),
        [0],
        filter=ActivationFilter(drop_first_token=True),
        buffer=ActivationBuffer(tokens=10, model_batch_tokens=32),
        batch_tokens=4,
        seed=0,
    )
    with pytest.raises(UserError) as caught:
        stream.next_batch()
    assert caught.value.reason == "NO_TEXT"


def test_storage_in_bfloat16_halves_the_buffer(source, tiny_model, tokenizer):
    def stream(dtype):
        return ActivationStream(
            tiny_model("qwen3"),
            tokens_of(source, tokenizer),
            LAYERS,
            filter=FILTER,
            buffer=ActivationBuffer(model_batch_tokens=64),
            batch_tokens=10,
            seed=7,
            storage_dtype=dtype,
        )

    half, full = stream(torch.bfloat16), stream(None)
    assert full.bytes == 2 * half.bytes == 3 * (160 + 64) * 32 * 4
    assert torch.equal(half.next_batch(), full.next_batch().bfloat16())
