"""Random SAEs on tiny models, and documents made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qscope.features.documents import Document
from qscope.models import LoadedModel, capture_residuals
from qscope.sae.topk import TopKSae, dense_codes

D_SAE, K = 48, 5


@pytest.fixture
def saes() -> Callable[[LoadedModel, Sequence[int]], dict[int, TopKSae]]:
    """``saes(loaded, layers)``: random encoders whose features fire at different rates."""

    def make(loaded: LoadedModel, layers: Sequence[int]) -> dict[int, TopKSae]:
        made = {}
        resids = capture_residuals(loaded, list(layers), torch.arange(3, 203)[None])
        for layer in layers:
            noise = torch.Generator().manual_seed(layer)
            # In the units of the input: pre-activations of about one, so that tokens decide and not the biases.
            W_FD = (
                torch.randn(D_SAE, loaded.facts.d_model, generator=noise) / resids[layer].float().norm(dim=-1).median()
            )
            b_F = 0.5 * torch.randn(D_SAE, generator=noise)
            empty = torch.empty(0, loaded.facts.d_model)
            made[layer] = TopKSae(W_FD, b_F, empty, torch.zeros(loaded.facts.d_model), k=K, layer=layer)
        return made

    return make


@pytest.fixture
def documents() -> Callable[..., list[Document]]:
    """``documents(count, seed, group, low, high)``: random ids between ``low`` and ``high`` in sequences of any length.

    First tokens count for nothing, and neither does about a tenth of the others.
    """

    def make(count: int, seed: int, group: int = 0, low: int = 3, high: int = 250) -> list[Document]:
        noise = np.random.default_rng(seed)
        made = []
        for number in range(count):
            length = int(noise.integers(3, 30))
            group_T = np.where(noise.random(length) < 0.9, np.int16(group), np.int16(-1))
            group_T[0], group_T[1] = -1, group
            ids_T = noise.integers(low, high, length).astype(np.int32)
            made.append(Document(number, ids_T, group_T, "", noise.bytes(16)))
        return made

    return make


@pytest.fixture
def dense() -> Callable[..., list[SimpleNamespace]]:
    """``dense(loaded, sae, documents)``: F-wide float64 codes of every document, each run by itself.

    The plainest way there is, and the reference of everything that streams. One entry per document: ``z_TF``, ``u_TF``
    (before ReLU and top-k) and ``group_T``.
    """

    def run(loaded: LoadedModel, sae: TopKSae, documents: Sequence[Document]) -> list[SimpleNamespace]:
        found = []
        for document in documents:
            ids_BT = torch.from_numpy(document.ids_T.astype(np.int64))[None]
            x_TD = capture_residuals(loaded, [sae.layer], ids_BT)[sae.layer][0].float()
            z_TF = dense_codes(*sae.encode(x_TD), sae.d_sae).double().numpy()
            found.append(
                SimpleNamespace(
                    z_TF=z_TF,
                    u_TF=sae.pre_activations(x_TD).double().numpy(),
                    x_TD=x_TD.double().numpy(),
                    group_T=document.group_T,
                )
            )
        return found

    return run
