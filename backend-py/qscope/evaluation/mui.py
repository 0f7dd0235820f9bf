"""How much of a model a benchmark's answers use: the model utility index (MUI, arXiv 2504.07440).

    MUI = |union over items of N(t)| / N_total

N(t) is what item t uses most, layer by layer, over the tokens of its response:

* features: the code of a feature is its largest over the response; those of at least ``share`` of the layer's largest;
* neurons: a neuron's score at a token is what it adds to that token's logit where the token is emitted, one place
  before; its score for an item is the largest over the response; the largest ``neurons`` of each layer.

A union grows with the number of items. At equal size every benchmark stands for itself with n random items: the mean
over all subsets of that size, exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qscope.data.items import Item
from qscope.features.coverage import coverage_curve
from qscope.features.documents import Document, DocumentBatch, DocumentTemplate, batches
from qscope.features.footprints import Footprints
from qscope.models import LoadedModel, capture_residuals
from qscope.models.neurons import contributions, out_projections, out_weight, reading_neurons
from qscope.sae.kernels import encode
from qscope.sae.topk import TopKSae


@dataclass(frozen=True)
class Used:
    """What the items of a benchmark use.

    Attributes:
        footprints: N(t) of each item that was read, numbered over all layers; items without anything are empty.
        total: how many there are in all layers.
    """

    footprints: Footprints
    total: int

    def mui(self) -> float:
        """|union| / total."""
        return len(self.footprints.features_U) / self.total

    def mui_of(self, items: int) -> float:
        """Mean of the same over all subsets of so many items; NaN where there are fewer."""
        if not 1 <= items <= self.footprints.items:
            return math.nan
        if not len(self.footprints.features_U):
            return 0.0
        return float(coverage_curve(self.footprints, [items])[0]) * self.mui()


@dataclass(frozen=True)
class Utility:
    """Both forms for one benchmark.

    Attributes:
        items: items with a response that were read.
        cut: those of them that lost a part to the context.
        features: by SAE features.
        neurons: by MLP neurons; None where they were not asked for.
        not_finite: items left out as the model is infinite or undefined at their response.
    """

    items: int
    cut: int
    features: Used
    neurons: Used | None
    not_finite: int = 0


def response_documents(
    items: Sequence[Item], tokenizer: Any, template: DocumentTemplate, context: int
) -> tuple[list[Document], int]:
    """Prompt and answer of each item that has one, the answer's tokens in class 0; and how many were cut.

    Both are tokenised by themselves, so that the response begins where the answer does. What is longer than the context
    loses the beginning of the prompt, and the end of an answer that fills it alone but for one token.
    """
    answered = [item for item in items if item.answer]
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    if not answered:
        return [], 0
    prompts = tokenizer([template.render(item.prompt)[0] for item in answered], **options)["input_ids"]
    answers = tokenizer([item.answer for item in answered], **options)["input_ids"]
    documents, cut = [], 0
    for item, prompt, answer in zip(answered, prompts, answers, strict=True):
        # A token is emitted somewhere: one of the prompt stays.
        kept = answer[: context - 1]
        if not prompt or not kept:
            continue
        ids = [*prompt[-(context - len(kept)) :], *kept]
        cut += len(ids) < len(prompt) + len(answer)
        group_T = np.full(len(ids), -1, dtype=np.int16)
        group_T[len(ids) - len(kept) :] = 0
        documents.append(Document(item.number, np.asarray(ids, dtype=np.int32), group_T, "", b""))
    return documents, cut


@torch.no_grad()
def measure_utility(
    loaded: LoadedModel,
    saes: dict[int, TopKSae],
    documents: Sequence[Document],
    *,
    share: float,
    neurons: float,
    batch_tokens: int,
    cut: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Utility | None:
    """One pass over all documents, teacher-forced.

    Args:
        loaded: the model.
        saes: encoders by layer.
        documents: of :func:`response_documents`.
        share: of a layer's largest code from which on a feature counts.
        neurons: share of a layer's neurons that count for an item; 0 leaves neurons out.
        batch_tokens: tokens of a forward pass, padding included.
        cut: what the result says of documents that were cut.
        on_progress: called with the documents done.
        should_stop: asked between batches.

    Returns:
        None when ``should_stop`` said so.

    Raises:
        UserError: the model's neurons cannot be read (NEURONS_UNKNOWN).
    """
    modules = out_projections(loaded) if neurons else []
    width_L = [out_weight(module).shape[1] for module in modules]
    last = len(loaded.decoder.blocks) - 1
    features_of: list[np.ndarray] = [np.zeros(0, np.int64)] * len(documents)
    neurons_of: list[np.ndarray] = [np.zeros(0, np.int64)] * len(documents)
    done = 0
    finite = np.ones(len(documents), dtype=bool)
    for batch in batches(documents, batch_tokens):
        if should_stop():
            return None
        places = _Places(batch, loaded)
        chosen_neurons: list[list[Tensor]] = [[] for _ in batch.rows_B]

        def read(layer: int, neurons_BTM: Tensor, places: _Places = places, into: Any = chosen_neurons) -> None:
            scores_BM = places.largest(
                contributions(modules[layer], neurons_BTM[places.row_N, places.position_N - 1], places.unembed_ND)
            )
            top_BK = scores_BM.topk(max(1, round(neurons * width_L[layer])), dim=1).indices
            for row, top_K in enumerate((top_BK + sum(width_L[:layer])).cpu()):
                into[row].append(top_K)

        mask_BT = None if bool(batch.attention_mask_BT.all()) else batch.attention_mask_BT
        if neurons:
            with reading_neurons(loaded, read):
                captured = capture_residuals(loaded, sorted({*saes, last}), batch.input_ids_BT, mask_BT)
        else:
            captured = capture_residuals(loaded, sorted(saes), batch.input_ids_BT, mask_BT)
        chosen_features: list[list[Tensor]] = [[] for _ in batch.rows_B]
        start = 0
        for layer, sae in saes.items():
            values_NK, indices_NK = encode(sae, captured[layer][places.row_N, places.position_N].float())
            codes_BF = values_NK.new_zeros(len(batch.rows_B), sae.d_sae)
            codes_BF.view(-1).scatter_reduce_(
                0, (places.row_N[:, None] * sae.d_sae + indices_NK).flatten(), values_NK.flatten(), "amax"
            )
            largest_B1 = codes_BF.amax(1, keepdim=True)
            for row, counts_F in enumerate((codes_BF > 0) & (codes_BF >= share * largest_B1)):
                chosen_features[row].append((counts_F.nonzero().squeeze(1) + start).cpu())
            start += sae.d_sae
        finite[batch.rows_B.numpy()] = places.finite(captured.values()).cpu().numpy()
        for index, row in enumerate(batch.rows_B.tolist()):
            features_of[row] = torch.cat(chosen_features[index]).numpy()
            if neurons:
                neurons_of[row] = torch.cat(chosen_neurons[index]).numpy()
        done += len(batch.rows_B)
        on_progress(done)
    kept = np.flatnonzero(finite)
    return Utility(
        len(kept),
        cut,
        Used(Footprints.of(features_of).take(kept), sum(sae.d_sae for sae in saes.values())),
        Used(Footprints.of(neurons_of).take(kept), sum(width_L)) if neurons else None,
        len(documents) - len(kept),
    )


class _Places:
    """The tokens of a batch's responses, N in all, and the rows of the LM head that emit them."""

    def __init__(self, batch: DocumentBatch, loaded: LoadedModel) -> None:
        self.row_N, self.position_N = (
            index_N.to(loaded.device) for index_N in (batch.group_BT >= 0).nonzero(as_tuple=True)
        )
        self._rows = len(batch.rows_B)
        ids_N = batch.input_ids_BT.to(loaded.device)[self.row_N, self.position_N]
        self.unembed_ND = loaded.model.get_output_embeddings().weight[ids_N]

    def finite(self, residuals: Iterable[Tensor]) -> Tensor:
        """Whether every number at the response of each row is finite, [B]."""
        finite_B = torch.ones(self._rows, dtype=torch.bool, device=self.row_N.device)
        for resid_BTD in residuals:
            finite_B[self.row_N[~resid_BTD[self.row_N, self.position_N].isfinite().all(1)]] = False
        return finite_B

    def largest(self, scores_NM: Tensor) -> Tensor:
        """The largest over the tokens of each row, [B, M]."""
        best_BM = scores_NM.new_full((self._rows, scores_NM.shape[1]), -math.inf)
        return best_BM.scatter_reduce_(0, self.row_N[:, None].expand_as(scores_NM), scores_NM, "amax")
