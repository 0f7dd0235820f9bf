"""What strengths are measured against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from qscope.v1 import steering_pb2 as pb

Key = TypeVar("Key")

#: Operations that look at neither strength nor low and high.
WITHOUT_STRENGTH = frozenset({pb.STEERING_OP_ZERO, pb.STEERING_OP_NEGATE})


@dataclass
class Scales:
    """What the units ``max`` and ``norm`` mean.

    Attributes:
        median_norm: median length of the residual stream by layer, first tokens left out.
        max_activation: largest activation seen, by layer and feature.
        source: where the numbers come from, for people.
    """

    median_norm: dict[int, float] = field(default_factory=dict)
    max_activation: dict[tuple[int, int], float] = field(default_factory=dict)
    source: str = ""

    def add(self, other: Scales) -> None:
        """Takes over what is not known yet; a value that is not above 0 is none."""
        self.median_norm = other.median_norm | _known(self.median_norm)
        self.max_activation = other.max_activation | _known(self.max_activation)
        self.source = self.source or other.source

    def missing(self, spec: pb.SteeringSpec) -> tuple[list[int], list[tuple[int, int]]]:
        """Layers whose norm, and features whose maximum, a spec needs and nobody knows."""
        layers = {
            layer
            for edit in spec.edits
            if edit.unit == pb.STRENGTH_UNIT_NORM and edit.op not in WITHOUT_STRENGTH
            for layer in edit.layers
            if not self.median_norm.get(layer, 0.0) > 0
        }
        features = {
            (layer, feature)
            for edit in spec.edits
            if edit.unit == pb.STRENGTH_UNIT_MAX and edit.op not in WITHOUT_STRENGTH
            for layer in edit.layers
            for feature in edit.features
            if not self.max_activation.get((layer, feature), 0.0) > 0
        }
        return sorted(layers), sorted(features)


def _known(values: dict[Key, float]) -> dict[Key, float]:
    return {key: value for key, value in values.items() if value > 0}
