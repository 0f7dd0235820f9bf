"""Random SAEs on tiny models, and a reader of footprints over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from qscope.features.contexts import token_texts
from qscope.models import LoadedModel, capture_residuals
from qscope.sae.topk import TopKSae
from qscope.synthesis.fired import Fired, FiredReader
from qscope.v1.features_pb2 import FeatureContext, Rendering, TokenMasks

D_SAE, K = 48, 5


@pytest.fixture
def saes() -> Callable[[LoadedModel, Sequence[int]], dict[int, TopKSae]]:
    """``saes(loaded, layers)``: random encoders, of which tokens decide what fires."""

    def make(loaded: LoadedModel, layers: Sequence[int]) -> dict[int, TopKSae]:
        made = {}
        resids = capture_residuals(loaded, list(layers), torch.arange(3, 203)[None])
        for layer in layers:
            noise = torch.Generator().manual_seed(layer)
            scale = resids[layer].float().norm(dim=-1).median()
            W_FD = torch.randn(D_SAE, loaded.facts.d_model, generator=noise) / scale
            b_F = 0.5 * torch.randn(D_SAE, generator=noise)
            empty = torch.empty(0, loaded.facts.d_model)
            made[layer] = TopKSae(W_FD, b_F, empty, torch.zeros(loaded.facts.d_model), k=K, layer=layer)
        return made

    return make


@pytest.fixture
def reader(tiny_model, saes) -> Callable[..., FiredReader]:
    """``reader(layers, **settings)`` on the tiny Qwen3."""

    def make(layers: Sequence[int] = (1, 2), **settings) -> FiredReader:
        loaded = tiny_model("qwen3")
        defaults = {"context": 64, "rendering": Rendering(), "masks": TokenMasks(skip_first_token=True)}
        return FiredReader(loaded, saes(loaded, layers), **{**defaults, **settings})

    return make


@pytest.fixture
def context(tokenizer) -> Callable[..., FeatureContext]:
    """``context(text, peak)``: an excerpt whose token ``peak`` fires."""

    def make(text: str, peak: int = 0) -> FeatureContext:
        tokens = token_texts(tokenizer, tokenizer(text)["input_ids"])
        values = [1.0 if index == peak else 0.0 for index in range(len(tokens))]
        return FeatureContext(text=text, tokens=tokens, activations=values, peak=peak, activation=1.0)

    return make


class CharReader:
    """Stands for a reader: every letter of a text is a feature of layer 0, by its place in the alphabet."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer, self.read_texts = tokenizer, []

    def read(self, texts: Sequence[str]) -> list[Fired]:
        self.read_texts += texts
        return [self._fired(text) for text in texts]

    def _fired(self, text: str) -> Fired:
        letters = sorted({letter for letter in text if "a" <= letter <= "z"})
        return Fired(
            np.array([ord(letter) - 97 for letter in letters], dtype=np.int64),
            np.array([text.count(letter) for letter in letters], dtype=np.float32),
            np.array([text.index(letter) for letter in letters], dtype=np.int64),
            np.array(self.tokenizer(text)["input_ids"], dtype=np.int32),
        )


@pytest.fixture
def char_reader(tokenizer) -> Callable[[], CharReader]:
    return lambda: CharReader(tokenizer)
