"""The mean loss of an answer token on rows that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qscope.posttraining.collective import added, rank_and_count
from qscope.posttraining.sae_loss import IGNORED_LABEL, answer_mask
from qscope.posttraining.sft_batches import LANGUAGE, Collator, Row, columns


class HeldOut:
    """Rows, and how they are read: in a fixed order, without a draw of any random generator.

    Args:
        rows: to measure on.
        collator: as in training.
        batch: rows at once, on each rank.
    """

    def __init__(self, rows: Sequence[Row], collator: Collator, batch: int) -> None:
        table = columns(sorted(rows, key=lambda row: len(row.ids)))
        names = list(table)
        lines = [dict(zip(names, values, strict=True)) for values in zip(*table.values(), strict=True)]
        self._batches = [lines[at : at + batch] for at in range(0, len(lines), batch)]
        self._collator = collator

    @torch.no_grad()
    def loss(self, model: nn.Module, device: torch.device) -> float:
        """Mean negative log-likelihood of the answer tokens, in nats. Collective.

        Args:
            model: of a trainer, whose output layer takes ``fused_lm_head``; wrapped or not. Its mode is put back.
            device: where it is.
        """
        rank, ranks = rank_and_count()
        training, found = model.training, torch.zeros(2, dtype=torch.float64, device=device)
        model.eval()
        # Every rank runs as many passes: ranks that share weights wait for each other in each of them.
        for turn in range(0, len(self._batches), ranks):
            mine = turn + rank
            batch = self._collator(self._batches[min(mine, len(self._batches) - 1)])
            batch = {name: tensor.to(device) for name, tensor in batch.items() if name != LANGUAGE}
            if mine >= len(self._batches):
                batch["labels"] = torch.full_like(batch["labels"], IGNORED_LABEL)
            found += self._sums(model, batch)
        model.train(training)
        total, tokens = added(found).tolist()
        return total / max(tokens, 1.0)

    @staticmethod
    def _sums(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        out = model(**batch, fused_lm_head=True)
        return torch.stack([-out.log_probs.double().sum(), answer_mask(batch["labels"]).sum().double()])
