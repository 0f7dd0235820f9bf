"""Evidence that an edit reached the model: what was changed, where, and by how much.

Sizes are summed on the device and read once at the end: asking after every step would make it wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qscope.v1 import steering_pb2


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
        self._layers: dict[int, _Layer] = {}
        self._selected_B = np.zeros(rows, dtype=np.int64)
        self.forward_passes = 0

    def count(self, layer: int, changed_BT: np.ndarray, generated_BT: np.ndarray, ratio_BT: Tensor) -> None:
        """Adds the changed tokens of one pass; ``ratio_BT`` is |change| / |residual|, zero where nothing changed."""
        known = self._at(layer)
        known.generated_B += (changed_BT & generated_BT).sum(1)
        known.prompt_B += (changed_BT & ~generated_BT).sum(1)
        known.sum_B += ratio_BT.sum(1)
        known.max_B = torch.maximum(known.max_B, ratio_BT.amax(1))

    def skip(self, layer: int, skipped_BT: np.ndarray) -> None:
        """Adds selected tokens at which a condition did not hold."""
        self._at(layer).skipped_B += skipped_BT.sum(1)

    def select(self, selected_BT: np.ndarray) -> None:
        """Adds tokens that an edit looked at, changed or not."""
        self._selected_B += selected_BT.sum(1)

    def rows(self) -> list[RowProof]:
        """The counts by row."""
        proofs = [RowProof(selected=int(n)) for n in self._selected_B]
        for layer, known in self._layers.items():
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

    def _at(self, layer: int) -> _Layer:
        if layer not in self._layers:
            self._layers[layer] = _Layer(self._rows, self._device)
        return self._layers[layer]


class _Layer:
    def __init__(self, rows: int, device: torch.device) -> None:
        self.prompt_B, self.generated_B, self.skipped_B = (np.zeros(rows, dtype=np.int64) for _ in range(3))
        self.sum_B = torch.zeros(rows, device=device)
        self.max_B = torch.zeros(rows, device=device)
