"""Evidence that an edit reached the model: what was changed, where, and by how much.

Sizes stay on the device and are summed up many steps at a time: asking after every step would make the device wait, and
on a small model even the few operations of a sum are felt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qscope.v1 import steering_pb2

#: What may wait to be summed up at one layer: columns of the batch, and numbers of the residual stream.
_COLUMNS, _NUMBERS = 64, 1 << 20


@dataclass
class LayerCount:
    """Tokens of one row at one layer, and |change| / |residual| over the changed ones."""

    prompt: int = 0
    generated: int = 0
    skipped: int = 0
    mean_relative: float = 0.0
    max_relative: float = 0.0


@dataclass
class RowProof:
    """What was done to one row.

    Attributes:
        layers: by layer.
        selected: tokens that a non-constant edit looked at.
    """

    layers: dict[int, LayerCount] = field(default_factory=dict)
    selected: int = 0

    @property
    def changed(self) -> int:
        """Changed positions, all layers."""
        return sum(count.prompt + count.generated for count in self.layers.values())

    @property
    def skipped(self) -> int:
        """Positions left alone because a condition did not hold."""
        return sum(count.skipped for count in self.layers.values())

    def message(self, forward_passes: int, spec_hash: str) -> steering_pb2.SteeringProof:
        """For the wire and for files."""
        return steering_pb2.SteeringProof(
            layers=[
                steering_pb2.LayerProof(
                    layer=layer,
                    prompt_positions=count.prompt,
                    generated_positions=count.generated,
                    skipped_positions=count.skipped,
                    mean_relative_change=count.mean_relative,
                    max_relative_change=count.max_relative,
                )
                for layer, count in sorted(self.layers.items())
            ],
            forward_passes=forward_passes,
            spec_hash=spec_hash,
        )


class Proof:
    """Counters of one batch.

    Args:
        rows: rows of the batch.
        device: of the residual stream.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self._rows, self._device = rows, device
        self._layers: dict[int, LayerProof] = {}
        self._selected_B = np.zeros(rows, dtype=np.int64)
        self.forward_passes = 0

    def at(self, layer: int) -> LayerProof:
        """The counters of a decoder block."""
        if layer not in self._layers:
            self._layers[layer] = LayerProof(self._rows, self._device)
        return self._layers[layer]

    def select(self, selected_BT: np.ndarray) -> None:
        """Adds tokens that an edit looked at, changed or not."""
        self._selected_B += selected_BT.sum(1)

    def rows(self) -> list[RowProof]:
        """The counts by row."""
        proofs = [RowProof(selected=int(n)) for n in self._selected_B]
        for layer, known in self._layers.items():
            known.sum_up()
            sums, largest = known.sum_B.tolist(), known.max_B.tolist()
            for row, proof in enumerate(proofs):
                prompt, generated = int(known.prompt_B[row]), int(known.generated_B[row])
                proof.layers[layer] = LayerCount(
                    prompt,
                    generated,
                    int(known.skipped_B[row]),
                    sums[row] / (prompt + generated) if prompt + generated else 0.0,
                    largest[row],
                )
        return proofs


class LayerProof:
    """Counters of one layer, by row.

    Args:
        rows: rows of the batch.
        device: of the residual stream.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.prompt_B, self.generated_B, self.skipped_B = (np.zeros(rows, dtype=np.int64) for _ in range(3))
        self.sum_B = torch.zeros(rows, device=device)
        self.max_B = torch.zeros(rows, device=device)
        self._waiting: list[tuple[np.ndarray, Tensor, Tensor]] = []
        self._columns = self._numbers = 0

    def count(self, generated_BT: np.ndarray, change_BT: Tensor, resid_BTD: Tensor) -> None:
        """Adds the tokens of one pass.

        Args:
            generated_BT: True at tokens the model wrote.
            change_BT: length of the change, zero where nothing changed.
            resid_BTD: the unedited residual stream. It is kept for a while, so nobody may write into it.
        """
        self._waiting.append((generated_BT, change_BT, resid_BTD))
        self._columns += generated_BT.shape[1]
        self._numbers += resid_BTD.numel()
        if self._columns >= _COLUMNS or self._numbers >= _NUMBERS:
            self.sum_up()

    def skip(self, skipped_BT: np.ndarray) -> None:
        """Adds selected tokens at which a condition did not hold."""
        self.skipped_B += skipped_BT.sum(1)

    def sum_up(self) -> None:
        """Adds up what waits. Synchronises with the device."""
        if not self._waiting:
            return
        generated_BT = np.concatenate([one[0] for one in self._waiting], 1)
        change_BT = torch.cat([one[1] for one in self._waiting], 1)
        resid_BT = torch.cat([torch.linalg.vector_norm(one[2].float(), dim=-1) for one in self._waiting], 1)
        self._waiting, self._columns, self._numbers = [], 0, 0
        ratio_BT = change_BT / resid_BT.clamp_min(1e-30)
        self.sum_B += ratio_BT.sum(1)
        self.max_B = torch.maximum(self.max_B, ratio_BT.amax(1))
        changed_BT = (change_BT > 0).cpu().numpy()
        self.generated_B += (changed_BT & generated_BT).sum(1)
        self.prompt_B += (changed_BT & ~generated_BT).sum(1)
