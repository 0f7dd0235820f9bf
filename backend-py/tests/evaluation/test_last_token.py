"""The features of items at their last token equal those of each item run alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.data.items import Benchmark, Item
from qscope.errors import UserError
from qscope.evaluation.last_token import ItemReader, Rule, endings, footprints_of
from qscope.features.extract import extract
from qscope.features.footprints import Footprints
from qscope.features.shards import IDENTITY, Extract, whole_shards
from qscope.models import capture_residuals
from qscope.runs.files import read_json
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import Rendering

LAYERS = [0, 3]
RULES = [Rule("active"), Rule("two", top=2), Rule("half", share=0.5), Rule("both", top=3, share=0.8)]
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "others", "watch", "them"]


@pytest.fixture
def benchmark() -> Benchmark:
    noise = np.random.default_rng(0)
    items = [Item(f"b:{n}", " ".join(noise.choice(WORDS, noise.integers(1, 25)))) for n in range(30)]
    return Benchmark("b", [*items, Item("b:30", "\u200b")], "{q}")


def sae_of(layer: int, width: int) -> TopKSae:
    noise = torch.Generator().manual_seed(layer)
    W_FD = torch.randn(64, width, generator=noise)
    return TopKSae(W_FD, torch.zeros(64), torch.empty(0, width), torch.zeros(width), k=6, layer=layer)


def extracted(loaded, tokenizer, benchmark, folder, *, context=200, should_stop=lambda: False, shard_documents=8):
    saes = {layer: sae_of(layer, loaded.facts.d_model) for layer in LAYERS}
    reader = ItemReader(benchmark, tokenizer, context=context, rendering=Rendering())
    manifest = extract(
        loaded,
        saes,
        reader,
        folder,
        identity=reader.identity(),
        facts={},
        documents=0,
        shard_documents=shard_documents,
        layout="safetensors",
        batch_tokens=120,
        should_stop=should_stop,
    )
    return saes, reader, manifest


def plain_rows(saes, loaded, tokenizer, benchmark, layer, rule, context=200) -> list[set[int]]:
    rows = []
    for item in benchmark.items:
        ids = tokenizer(item.prompt, add_special_tokens=False)["input_ids"][-context:]
        if not ids:
            rows.append(set())
            continue
        resid_1D = capture_residuals(loaded, [layer], torch.tensor([ids]))[layer][0, -1:].float()
        values, indices = (part[0].tolist() for part in saes[layer].encode(resid_1D))
        active = [(value, feature) for value, feature in zip(values, indices, strict=True) if value > 0]
        active = active[: rule.top or None]
        rows.append({feature for value, feature in active if not rule.share or value >= rule.share * values[0]})
    return rows


@pytest.mark.parametrize("context", [200, 7])
def test_every_rule_gives_what_an_item_alone_gives(tiny_model, tokenizer, benchmark, tmp_path, context):
    loaded = tiny_model()
    saes, reader, manifest = extracted(loaded, tokenizer, benchmark, tmp_path, context=context)
    assert manifest["documents"] == len(benchmark.items)
    assert manifest["tokens_counted"] == len(benchmark.items) - reader.empty
    assert (reader.cut > 0) == (context == 7)
    found = footprints_of(Extract(tmp_path), LAYERS, RULES)
    for layer in LAYERS:
        for rule in RULES:
            expected = Footprints.of(map(sorted, plain_rows(saes, loaded, tokenizer, benchmark, layer, rule, context)))
            got = found[layer, rule.name]
            np.testing.assert_array_equal(got.offset_N, expected.offset_N)
            np.testing.assert_array_equal(got.feature_P, expected.feature_P)


def test_a_stopped_run_goes_on_to_the_same_footprints(tiny_model, tokenizer, benchmark, tmp_path):
    loaded = tiny_model()
    asked: list[str] = []

    def passes(name: str, limit: float = math.inf):
        # Asked before every pass of the model.
        return lambda: asked.append(name) or asked.count(name) > limit

    extracted(loaded, tokenizer, benchmark, tmp_path / "whole", should_stop=passes("whole"))
    most = 2 * asked.count("whole") // 3
    *_, stopped = extracted(loaded, tokenizer, benchmark, tmp_path / "parts", should_stop=passes("stopped", most))
    assert stopped is None
    done = whole_shards(tmp_path / "parts", (read_json(tmp_path / "parts" / IDENTITY) or {})["key"])
    assert done, "nothing was saved: there is nothing to go on from"
    _, reader, manifest = extracted(loaded, tokenizer, benchmark, tmp_path / "parts", should_stop=passes("resumed"))
    assert asked.count("resumed") < asked.count("whole"), "it started afresh"
    assert manifest["shards"][: len(done)] == done
    assert reader.read == manifest["documents"] == len(benchmark.items)
    whole, parts = (footprints_of(Extract(tmp_path / name), LAYERS, RULES) for name in ("whole", "parts"))
    for key, one in whole.items():
        np.testing.assert_array_equal(one.feature_P, parts[key].feature_P)
        np.testing.assert_array_equal(one.offset_N, parts[key].offset_N)


def test_what_is_not_finite_is_counted_and_the_last_tokens_are_known(tiny_model, tokenizer, benchmark, tmp_path):
    loaded = tiny_model()
    benchmark.items[-1] = Item("b:30", "")
    ids = [tokenizer(item.prompt, add_special_tokens=False)["input_ids"] for item in benchmark.items]
    bad = ids[0][-1]
    # Other tests share the model's weights: they stay as they are.
    with loaded.model.get_input_embeddings().register_forward_hook(
        lambda module, given, output: output.masked_fill((given[0] == bad)[..., None], torch.inf)
    ):
        _, reader, manifest = extracted(loaded, tokenizer, benchmark, tmp_path)
    touched = [bad in row for row in ids]
    assert 0 < sum(touched) < len(ids)
    assert manifest["tokens_not_finite"] == sum(touched)
    rows = footprints_of(Extract(tmp_path), LAYERS, RULES)[0, "active"]
    for touches, row, length in zip(touched, ids, np.diff(rows.offset_N), strict=True):
        assert (length == 0) or (row and not touches)
    assert reader.empty == sum(not row for row in ids) == 1
    # An item without a token, or whose numbers are not finite, ends in none.
    looked_at = zip(ids, touched, strict=True)
    assert endings(Extract(tmp_path)).tolist() == [row[-1] if row and not bad else -1 for row, bad in looked_at]


def test_another_benchmark_in_the_same_folder_is_refused(tiny_model, tokenizer, benchmark, tmp_path):
    loaded = tiny_model()
    extracted(loaded, tokenizer, benchmark, tmp_path)
    benchmark.items[3] = Item("b:3", "another prompt")
    with pytest.raises(UserError) as caught:
        extracted(loaded, tokenizer, benchmark, tmp_path)
    assert caught.value.reason == "EXTRACT_CHANGED"


@given(
    lengths=st.lists(st.integers(0, 7), max_size=8),
    top=st.integers(0, 5),
    share=st.sampled_from([0.0, 0.25, 0.9, 1.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_rules_select_what_a_loop_selects(lengths, top, share, seed):
    noise = np.random.default_rng(seed)
    rows = [np.sort(noise.integers(1, 5, length).astype(np.float32))[::-1] for length in lengths]
    row_P = np.repeat(np.arange(len(lengths)), lengths)
    value_P = np.concatenate(rows) if rows else np.zeros(0, np.float32)
    expected = [
        (not top or rank < top) and (not share or value >= share * row[0])
        for row in rows
        for rank, value in enumerate(row)
    ]
    assert Rule("r", top, share).select(row_P, value_P).tolist() == expected
