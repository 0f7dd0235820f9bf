"""A saved classifier over pooled texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qscope.classification.pooled import PooledLayer
from qscope.v1.classify_pb2 import Classifier, OperatingPoint


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one text.

    Attributes:
        positive: whether any feature exceeds its threshold.
        fired: layer, feature and largest activation of those that exceed theirs, in the classifier's order.
    """

    positive: bool
    fired: list[tuple[int, int, float]]


def answers(classifier: Classifier, point: OperatingPoint, pooled: Mapping[int, PooledLayer]) -> list[Answer]:
    """What a classifier says of every text of a batch.

    Args:
        classifier: the classifier.
        point: where it decides.
        pooled: the texts, by layer; every layer of the classifier.
    """
    columns = []
    widths = {sae.layer: sae.d_sae for sae in classifier.saes}
    matrices = {layer: pooled[layer].matrix(widths[layer]).tocsc() for layer in widths}
    for one in classifier.features:
        columns.append(matrices[one.layer][:, [one.feature]].toarray()[:, 0])
    codes_NK = np.stack(columns, axis=1).astype(np.float64)
    above_NK = codes_NK > np.array(point.thresholds)
    return [
        Answer(
            bool(above_K.any()),
            [
                (one.layer, one.feature, float(code))
                for one, code, above in zip(classifier.features, codes_K, above_K, strict=True)
                if above
            ],
        )
        for codes_K, above_K in zip(codes_NK, above_NK, strict=True)
    ]
