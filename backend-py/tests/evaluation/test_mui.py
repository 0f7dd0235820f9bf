"""MUI against its definition in float64, one token at a time, on tiny random models."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from qscope.data.items import Item
from qscope.errors import UserError
from qscope.evaluation.mui import Used, measure_utility, response_documents
from qscope.features.documents import DocumentTemplate
from qscope.features.footprints import Footprints
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import Rendering

ITEMS = [
    Item("a:1", "2 + 2 =", 0, " the answer is 4"),
    Item("a:2", "the capital?", 1, " Paris, then."),
    Item("a:3", "no answer", 2),
    Item("a:4", "3 =", 3, " 3"),
]


def saes(layers=(1, 3), d_in=32, d_sae=64) -> dict[int, TopKSae]:
    made = torch.Generator().manual_seed(2)
    return {
        layer: TopKSae(
            torch.randn(d_sae, d_in, generator=made),
            torch.randn(d_sae, generator=made) / 10,
            torch.zeros(d_sae, d_in),
            torch.zeros(d_in),
            k=6,
            layer=layer,
        )
        for layer in layers
    }


def documents_of(loaded, items=ITEMS, context=64):
    template = DocumentTemplate(loaded.tokenizer, Rendering(), "rendering")
    return response_documents(items, loaded.tokenizer, template, context)


def measured(loaded, documents, *, share=0.5, neurons=0.05, batch_tokens=40):
    return measure_utility(loaded, saes(), documents, share=share, neurons=neurons, batch_tokens=batch_tokens)


def sets_of(used: Used) -> list[set[int]]:
    offsets = used.footprints.offset_N
    return [set(used.footprints.feature_P[a:b].tolist()) for a, b in pairwise(offsets)]


def reading(into: dict[int, torch.Tensor], layer: int):
    """A hook that keeps the first row of what a module is given, or returns."""

    def hook(module, inputs, output=None):
        hidden = inputs if output is None else output
        into[layer] = (hidden[0] if isinstance(hidden, tuple) else hidden)[0].double()

    return hook


@torch.no_grad()
def by_definition(loaded, documents, share, neurons) -> tuple[list[set[int]], list[set[int]]]:
    """Features and neurons of every document, from plain forward passes of one document."""
    head_VD = loaded.model.get_output_embeddings().weight.double()
    features, found = [], []
    for document in documents:
        ids = torch.tensor(document.ids_T[None].astype(np.int64))
        response = [place for place, group in enumerate(document.group_T) if group == 0]
        inside: dict[int, torch.Tensor] = {}
        blocks: dict[int, torch.Tensor] = {}
        decoder = loaded.decoder.blocks
        handles = [block.mlp.down_proj.register_forward_pre_hook(reading(inside, n)) for n, block in enumerate(decoder)]
        handles += [decoder[layer].register_forward_hook(reading(blocks, layer)) for layer in saes()]
        loaded.model(ids)
        for handle in handles:
            handle.remove()
        features.append(set())
        for slot, (layer, sae) in enumerate(saes().items()):
            largest = [0.0] * sae.d_sae
            for place in response:
                pre = sae.W_enc_FD.double() @ blocks[layer][place] + sae.b_enc_F.double()
                for feature in pre.relu().topk(sae.k).indices.tolist():
                    largest[feature] = max(largest[feature], float(pre[feature]))
            features[-1] |= {
                slot * sae.d_sae + f for f, value in enumerate(largest) if value > 0 and value >= share * max(largest)
            }
        found.append(set())
        for layer, block in enumerate(loaded.decoder.blocks):
            w_out_DM = block.mlp.down_proj.weight.double()
            score_M = torch.full((w_out_DM.shape[1],), -math.inf, dtype=torch.float64)
            for place in response:
                emitted = int(document.ids_T[place])
                score_M = torch.maximum(score_M, (head_VD[emitted] @ w_out_DM) * inside[layer][place - 1])
            top = score_M.argsort(descending=True)[: max(1, round(neurons * len(score_M)))]
            found[-1] |= {layer * len(score_M) + int(neuron) for neuron in top}
    return features, found


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_both_forms_are_those_of_the_definition(tiny_model, family):
    loaded = tiny_model(family)
    documents, cut = documents_of(loaded)
    assert (len(documents), cut) == (3, 0)
    for batch_tokens in (24, 400):
        found = measured(loaded, documents, batch_tokens=batch_tokens)
        features, neurons = by_definition(loaded, documents, 0.5, 0.05)
        assert sets_of(found.features) == features
        assert sets_of(found.neurons) == neurons
        turned = measured(loaded, documents[::-1], batch_tokens=batch_tokens)
        assert (sets_of(turned.features), sets_of(turned.neurons)) == (features[::-1], neurons[::-1])
        assert found.features.mui() == pytest.approx(len(set().union(*features)) / (2 * 64))
        assert found.neurons.mui() == pytest.approx(len(set().union(*neurons)) / (4 * 48))


def test_the_largest_counts_at_any_share_and_neurons_are_rounded(tiny_model):
    loaded = tiny_model("qwen3")
    documents, _ = documents_of(loaded)
    # 0.035 of 48 neurons is 1.7.
    found = measured(loaded, documents, share=1.0, neurons=0.035)
    assert [len(some) for some in sets_of(found.features)] == [2, 2, 2], "the largest of two layers"
    assert [len(some) for some in sets_of(found.neurons)] == [8, 8, 8], "two of each of four layers"


def test_an_answer_without_a_code_uses_no_feature(tiny_model):
    loaded = tiny_model("qwen3")
    documents, _ = documents_of(loaded)
    low = {layer: replace(sae, b_enc_F=sae.b_enc_F - 1e6) for layer, sae in saes().items()}
    found = measure_utility(loaded, low, documents, share=0.5, neurons=0, batch_tokens=40)
    assert (sets_of(found.features), found.features.mui()) == ([set(), set(), set()], 0)


def test_answers_at_which_the_model_is_undefined_are_left_out_and_counted(tiny_model):
    loaded = tiny_model("qwen3")
    documents, _ = documents_of(loaded)
    whole = measured(loaded, documents)
    only = set(documents[1].ids_T.tolist()) - set(documents[0].ids_T.tolist()) - set(documents[2].ids_T.tolist())
    embedding = loaded.model.get_input_embeddings().weight.data
    before = embedding[sorted(only)].clone()
    embedding[sorted(only)] = math.nan
    try:
        found = measured(loaded, documents)
    finally:
        embedding[sorted(only)] = before
    assert (whole.items, whole.not_finite, found.items, found.not_finite) == (3, 0, 2, 1)
    for some, every in ((found.features, whole.features), (found.neurons, whole.neurons)):
        assert sets_of(some) == sets_of(every)[::2]


def test_at_equal_size_it_is_the_mean_over_subsets():
    used = Used(Footprints.of([[0, 1], [1, 2], [1]]), 10)
    assert used.mui() == 0.3
    assert used.mui_of(1) == pytest.approx((2 + 2 + 1) / 3 / 10)
    assert used.mui_of(2) == pytest.approx((3 + 2 + 2) / 3 / 10)
    assert used.mui_of(3) == pytest.approx(0.3)
    assert math.isnan(used.mui_of(4))
    assert Used(Footprints.of([[]]), 5).mui_of(1) == 0


def test_a_response_is_the_answer_and_survives_the_context(tiny_model):
    loaded = tiny_model("qwen3")
    (first, *_), _ = documents_of(loaded)
    answer = loaded.tokenizer(ITEMS[0].answer)["input_ids"]
    assert first.ids_T[first.group_T == 0].tolist() == answer
    short, cut = documents_of(loaded, context=4)
    assert cut == 3
    assert all(len(document.ids_T) == 4 and document.group_T[0] == -1 for document in short[:2])
    prompt = loaded.tokenizer(ITEMS[0].prompt)["input_ids"]
    # The end of the prompt and the beginning of the answer stay.
    assert short[0].ids_T.tolist() == [prompt[-1], *answer[:3]]
    (longer, *_), _ = documents_of(loaded, context=len(answer) + 2)
    assert longer.ids_T.tolist() == [*prompt[-2:], *answer]
    assert documents_of(loaded, items=ITEMS[2:3]) == ([], 0)


def test_experts_show_no_neurons_and_their_features_are_measured(tiny_model):
    loaded = tiny_model("qwen3_moe")
    documents, _ = documents_of(loaded)
    with pytest.raises(UserError) as caught:
        measured(loaded, documents)
    assert caught.value.reason == "NEURONS_UNKNOWN"
    found = measured(loaded, documents, neurons=0)
    assert found.neurons is None
    assert found.features.mui() > 0
