"""Sums of sparse codes by class and feature, added batch by batch; nothing here is as large as features x documents.

Sums are float64. Memory is ``groups x d_sae x 16`` bytes a layer, twice that (and 8 more) with sums over documents; a
batch adds a few times its number of codes.
"""

from __future__ import annotations

import torch
from torch import Tensor


class GroupStats:
    """Means, firing rates and maxima of every feature of one layer, by class.

    A document must come whole, in one call: what is counted per document is reduced there and then.

    Args:
        groups: classes.
        d_sae: features.
        device: where the codes are.
        documents: whether to add up per document as well.
    """

    def __init__(self, groups: int, d_sae: int, device: torch.device, *, documents: bool = False) -> None:
        self._groups, self._d_sae, self._per_document = groups, d_sae, documents
        self.tokens_G = torch.zeros(groups, dtype=torch.int64, device=device)
        self.documents_G = torch.zeros(groups, dtype=torch.int64, device=device)
        self.sum_GF = torch.zeros(groups, d_sae, dtype=torch.float64, device=device)
        self.hits_GF = torch.zeros(groups, d_sae, dtype=torch.int64, device=device)
        self.max_F = torch.zeros(d_sae, dtype=torch.float32, device=device)
        if documents:
            self.document_mean_GF = torch.zeros_like(self.sum_GF)
            self.document_max_GF = torch.zeros_like(self.sum_GF)
            self.document_hits_GF = torch.zeros_like(self.hits_GF)

    def add(self, values_NK: Tensor, indices_NK: Tensor, group_N: Tensor, row_N: Tensor) -> None:
        """Adds the codes of a batch of tokens.

        Args:
            values_NK: codes, none below zero.
            indices_NK: their features, distinct within a token.
            group_N: class of each token.
            row_N: document of each token, numbered within the batch.
        """
        if group_N.numel() == 0:
            return
        cells_M = (group_N[:, None] * self._d_sae + indices_NK).flatten()
        values_M, fires_M = values_NK.double().flatten(), (values_NK > 0).flatten()
        self.tokens_G += torch.bincount(group_N, minlength=self._groups)
        self.sum_GF.view(-1).scatter_add_(0, cells_M, values_M)
        self.hits_GF.view(-1).scatter_add_(0, cells_M, fires_M.long())
        self.max_F.scatter_reduce_(0, indices_NK.flatten(), values_NK.float().flatten(), "amax")
        unit_N = row_N * self._groups + group_N
        units_U = torch.bincount(unit_N, minlength=self._groups)
        present_U = units_U > 0
        self.documents_G += torch.bincount(present_U.nonzero().squeeze(1) % self._groups, minlength=self._groups)
        if not self._per_document:
            return
        shares_M = (values_NK.double() / units_U[unit_N][:, None]).flatten()
        self.document_mean_GF.view(-1).scatter_add_(0, cells_M, shares_M)
        # Every feature of every document once, with its largest value: a sort of the codes that are above zero.
        keys_M = (unit_N[:, None] * self._d_sae + indices_NK).flatten()[fires_M]
        unique_P, place_M = torch.unique(keys_M, return_inverse=True)
        largest_P = torch.zeros(len(unique_P), dtype=torch.float64, device=keys_M.device)
        largest_P.scatter_reduce_(0, place_M, values_M[fires_M], "amax")
        unit_P, feature_P = unique_P // self._d_sae, unique_P % self._d_sae
        cells_P = unit_P % self._groups * self._d_sae + feature_P
        self.document_max_GF.view(-1).scatter_add_(0, cells_P, largest_P)
        self.document_hits_GF.view(-1).scatter_add_(0, cells_P, torch.ones_like(cells_P))


class ChosenStats:
    """The same of a few chosen features of one layer, document by document.

    A unit is a document where each has one class, and ``units x chosen`` numbers are held three times. Only where a
    document's tokens are of several classes is each class of each document a unit.

    Args:
        documents: documents in all.
        groups: classes.
        chosen_M: the features.
        d_sae: features of the SAE.
        class_D: the one class of each document (any where no token counts); None when a document has several.
    """

    def __init__(
        self, documents: int, groups: int, chosen_M: Tensor, d_sae: int, class_D: Tensor | None = None
    ) -> None:
        self._groups, self._chosen = groups, len(chosen_M)
        device = chosen_M.device
        units = documents * groups if class_D is None else documents
        self._class_D = None if class_D is None else class_D.to(device)
        self._slot_F = torch.full((d_sae,), -1, dtype=torch.int64, device=device)
        self._slot_F[chosen_M] = torch.arange(self._chosen, device=device)
        self.tokens_U = torch.zeros(units, dtype=torch.int64, device=device)
        self.sum_UM = torch.zeros(units, self._chosen, dtype=torch.float64, device=device)
        self.hits_UM = torch.zeros(units, self._chosen, dtype=torch.int64, device=device)
        self.max_UM = torch.zeros(units, self._chosen, dtype=torch.float64, device=device)

    def add(self, values_NK: Tensor, indices_NK: Tensor, group_N: Tensor, document_N: Tensor) -> None:
        """Adds the codes of a batch; ``document_N`` numbers documents over all batches."""
        unit_N = document_N if self._class_D is not None else document_N * self._groups + group_N
        self.tokens_U += torch.bincount(unit_N, minlength=len(self.tokens_U))
        slot_NK = self._slot_F[indices_NK]
        taken_NK = (slot_NK >= 0) & (values_NK > 0)
        cells_P = (unit_N[:, None] * self._chosen + slot_NK)[taken_NK]
        values_P = values_NK[taken_NK].double()
        self.sum_UM.view(-1).scatter_add_(0, cells_P, values_P)
        self.hits_UM.view(-1).scatter_add_(0, cells_P, torch.ones_like(cells_P))
        self.max_UM.view(-1).scatter_reduce_(0, cells_P, values_P, "amax")

    def groups_U(self) -> Tensor:
        """Class of each unit."""
        if self._class_D is not None:
            return self._class_D
        return torch.arange(len(self.tokens_U), device=self.tokens_U.device) % self._groups
