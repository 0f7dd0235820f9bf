"""One pass of the model over a batch of documents: what every chosen layer says at the tokens that count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qscope.features.documents import DocumentBatch
from qscope.models import LoadedModel, capture_residuals
from qscope.sae.filtering import RunningMedian


@dataclass(frozen=True)
class Reading:
    """Residuals of one batch at the tokens that count, ``N`` in all, in the batch's order.

    Attributes:
        resid: by layer, ``[N, D]`` in float32, made when asked for.
        group_N: class of each token.
        row_N: row of the batch each token is in.
        position_N: its place in that row.
    """

    resid: Mapping[int, Tensor]
    group_N: Tensor
    row_N: Tensor
    position_N: Tensor


class Reader:
    """Runs the model over batches; all layers come from one pass.

    Args:
        loaded: the model.
        layers: decoder blocks, ascending.

    Attributes:
        not_finite: tokens left out because some layer's activation was infinite or undefined.
    """

    def __init__(self, loaded: LoadedModel, layers: Sequence[int]) -> None:
        self._loaded, self.layers = loaded, list(layers)
        self._median = RunningMedian(len(self.layers), loaded.device)
        self._not_finite = torch.zeros((), dtype=torch.int64, device=loaded.device)

    def read(self, batch: DocumentBatch, *, count_norms: bool = True) -> Reading:
        """One pass.

        Args:
            batch: the documents.
            count_norms: whether the residual norms enter the median; not on a second pass over the same documents.
        """
        device = self._loaded.device
        mask_BT = batch.attention_mask_BT
        captured = capture_residuals(
            self._loaded, self.layers, batch.input_ids_BT, None if bool(mask_BT.all()) else mask_BT
        )
        group_M = batch.group_BT.to(device).flatten()
        counted_N = (group_M >= 0).nonzero().squeeze(1)
        if count_norms:
            norms_LM = self._norms(captured, slice(None))
            # First tokens carry an attention sink of a hundred times the usual norm; they are no part of the median.
            later_BT = mask_BT.clone()
            later_BT[:, 0] = False
            self._median.update(norms_LM, norms_LM.isfinite() & later_BT.to(device).flatten())
            norms_LN = norms_LM[:, counted_N]
        else:
            # Of few tokens of a long prompt, often only the last: the others' would cost as much as a block.
            norms_LN = self._norms(captured, counted_N)
        finite_N = norms_LN.isfinite().all(0)
        self._not_finite += (~finite_N).sum()
        kept_N = counted_N[finite_N]
        width = mask_BT.shape[1]
        return Reading(_Kept(captured, kept_N), group_M[kept_N], kept_N // width, kept_N % width)

    def _norms(self, captured: Mapping[int, Tensor], tokens: Tensor | slice) -> Tensor:
        """L2 norms by layer of the tokens named, [L, tokens]."""
        return torch.stack(
            [
                torch.linalg.vector_norm(captured[layer].flatten(0, 1)[tokens], dim=-1, dtype=torch.float32)
                for layer in self.layers
            ]
        )

    @property
    def not_finite(self) -> int:
        return int(self._not_finite)

    def median_norms(self) -> dict[int, float]:
        """Median L2 norm of the residual stream by layer, first tokens excluded; known to 2 %."""
        return dict(zip(self.layers, self._median.value_L().tolist(), strict=True))


class _Kept(Mapping[int, Tensor]):
    """Rows of captured residuals, copied layer by layer: all at once would double the memory of the pass."""

    def __init__(self, captured: dict[int, Tensor], kept_N: Tensor) -> None:
        self._captured, self._kept_N = captured, kept_N

    def __getitem__(self, layer: int) -> Tensor:
        return self._captured[layer].flatten(0, 1)[self._kept_N].float()

    def __iter__(self) -> Iterator[int]:
        return iter(self._captured)

    def __len__(self) -> int:
        return len(self._captured)
