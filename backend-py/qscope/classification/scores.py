"""How well texts were told apart: shares with their intervals, F1 with a bootstrap, AUC, and rates held.

All intervals are of 95 %. A share has Wilson's; F1 is a ratio of sums over texts, so texts are drawn again with
replacement (which cells they fall in is all that matters, so counts are drawn from a multinomial: the same thing,
without a loop over texts); the AUC has DeLong's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from qscope.classification.rule import threshold_at
from qscope.features.auc import auc
from qscope.features.intervals import Interval, wilson


@dataclass(frozen=True)
class Held:
    """What is left of the recall when a rate of false positives is to be held.

    Attributes:
        target: the rate.
        threshold: score that is to be exceeded, chosen on the calibration texts.
        calibrated: rate on those; never above the target.
        false_positives: rate on the evaluation texts.
        recall: on the evaluation texts.
    """

    target: float
    threshold: float
    calibrated: float
    false_positives: Interval
    recall: Interval


@dataclass(frozen=True)
class Measured:
    """One way of telling, on the evaluation texts.

    Attributes:
        f1: harmonic mean of precision and recall.
        precision, recall, false_positives, accuracy: shares.
        auc: probability that a text with the attribute scores higher than one without.
        held: at fixed rates of false positives.
    """

    f1: Interval
    precision: Interval
    recall: Interval
    false_positives: Interval
    accuracy: Interval
    auc: Interval
    held: list[Held] = field(default_factory=list)


def f1_of(hit: np.ndarray | int, false: np.ndarray | int, missed: np.ndarray | int) -> np.ndarray | float:
    """F1 from counts of texts found, found wrongly, and missed; 0 where none was found or missed."""
    whole = 2 * hit + false + missed
    return np.where(np.asarray(whole) == 0, 0.0, 2 * np.asarray(hit) / np.maximum(whole, 1))


def f1_score(predicted_N: np.ndarray, positive_N: np.ndarray) -> float:
    """F1 of predictions."""
    hit, false, missed, _ = _cells(predicted_N, positive_N)
    return float(f1_of(hit, false, missed))


def balanced_accuracy(predicted_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Mean of the shares of either class that are told rightly; one half for telling nothing. Both must be there."""
    hit, false, missed, right = _cells(predicted_N, positive_N)
    return (hit / (hit + missed) + right / (right + false)) / 2


def measure(
    scores_N: np.ndarray,
    predicted_N: np.ndarray,
    positive_N: np.ndarray,
    calibration_M: np.ndarray,
    rates: Sequence[float],
    *,
    lowest: float = -math.inf,
    draws: int,
    seed: int,
) -> Measured:
    """Measures one way of telling.

    Args:
        scores_N: scores of the evaluation texts, higher for the attribute.
        predicted_N: its decision on each.
        positive_N: the truth; there must be both classes.
        calibration_M: scores of the calibration texts without the attribute.
        rates: rates of false positives to hold.
        lowest: no lower threshold is wanted.
        draws: bootstrap resamples of F1.
        seed: of the resamples.
    """
    hit, false, missed, right = _cells(predicted_N, positive_N)
    n = len(positive_N)
    drawn = np.random.default_rng(seed).multinomial(n, np.array([hit, false, missed, right]) / n, size=draws)
    low, high = np.quantile(f1_of(drawn[:, 0], drawn[:, 1], drawn[:, 2]), [0.025, 0.975])
    area, area_low, area_high = (
        float(part[0])
        for part in auc(torch.from_numpy(np.asarray(scores_N, float))[:, None], torch.from_numpy(positive_N))
    )
    held = []
    for rate in rates:
        threshold = threshold_at(calibration_M, rate, lowest)
        above_N = scores_N > threshold
        hit_at, false_at, missed_at, right_at = _cells(above_N, positive_N)
        held.append(
            Held(
                rate,
                threshold,
                float((calibration_M > threshold).mean()),
                wilson(false_at, false_at + right_at),
                wilson(hit_at, hit_at + missed_at),
            )
        )
    return Measured(
        f1=Interval(float(f1_of(hit, false, missed)), float(low), float(high), n),
        precision=wilson(hit, hit + false),
        recall=wilson(hit, hit + missed),
        false_positives=wilson(false, false + right),
        accuracy=wilson(hit + right, n),
        auc=Interval(area, area_low, area_high, n),
        held=held,
    )


def f1_difference(one_N: np.ndarray, other_N: np.ndarray, positive_N: np.ndarray, *, draws: int, seed: int) -> Interval:
    """F1 of one decision minus that of another on the same texts, the texts drawn again together.

    Args:
        one_N, other_N: decisions.
        positive_N: the truth.
        draws: resamples.
        seed: of the resamples.
    """
    n = len(positive_N)
    cell_N = positive_N * 4 + one_N * 2 + other_N * 1
    counts_C = np.bincount(cell_N, minlength=8)
    drawn_BC = np.vstack([counts_C, np.random.default_rng(seed).multinomial(n, counts_C / n, size=draws)])

    def f1_B(bit: int) -> np.ndarray:
        chosen = [cell for cell in range(8) if cell & bit]
        hit_B = drawn_BC[:, [cell for cell in chosen if cell & 4]].sum(1)
        false_B = drawn_BC[:, [cell for cell in chosen if not cell & 4]].sum(1)
        missed_B = drawn_BC[:, 4:].sum(1) - hit_B
        return f1_of(hit_B, false_B, missed_B)

    difference_B = f1_B(2) - f1_B(1)
    low, high = np.quantile(difference_B[1:], [0.025, 0.975])
    return Interval(float(difference_B[0]), float(low), float(high), n)


def _cells(predicted_N: np.ndarray, positive_N: np.ndarray) -> tuple[int, int, int, int]:
    """Texts found, found wrongly, missed, and rightly left."""
    hit = int((predicted_N & positive_N).sum())
    false, missed = int(predicted_N.sum()) - hit, int(positive_N.sum()) - hit
    return hit, false, missed, len(positive_N) - hit - false - missed
