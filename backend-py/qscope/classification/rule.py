"""The OR-rule: a text has the attribute when any of a few features fires in it (Qwen-Scope, section 5).

For feature f, ``delta_f = P(fires | with the attribute) - P(fires | without)`` on the discovery texts (eq 13-14). The
rule takes the K features of largest delta of one layer (eq 15); the layer is the one whose best delta is largest,
*top1-diff* (eq 16); a composed rule takes the best feature of each of the m layers of largest top1-diff (eq 17).

To hold a rate of false positives the rule is given a *level*, and each feature a threshold of its own: the activation
that it exceeds in a share ``1 - level`` of the discovery texts without the attribute. So a feature that fires on some
of them has to fire strongly, and one that never does need not. At level 0 that is the rule of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Rates:
    """Share of the texts of each class in which a feature fires, for all F features of a layer.

    Attributes:
        positive_F, negative_F: shares, float64.
        n_positive, n_negative: texts.
    """

    positive_F: np.ndarray
    negative_F: np.ndarray
    n_positive: int
    n_negative: int

    @property
    def delta_F(self) -> np.ndarray:
        return self.positive_F - self.negative_F


def firing_rates(codes_NF: sparse.csr_matrix, rows_R: np.ndarray, positive_N: np.ndarray) -> Rates:
    """Firing rates over some texts.

    Args:
        codes_NF: largest activation of each feature in each text; what is stored is above zero.
        rows_R: texts to count; there must be some of each class.
        positive_N: which of all texts have the attribute.
    """
    shares = []
    counts = []
    for wanted in (True, False):
        chosen_R = rows_R[positive_N[rows_R] == wanted]
        assert len(chosen_R), "there is no text of one class"
        hits_F = np.bincount(codes_NF[chosen_R].indices, minlength=codes_NF.shape[1])
        shares.append(hits_F / len(chosen_R))
        counts.append(len(chosen_R))
    return Rates(*shares, *counts)


def best_features(delta_F: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` features of largest delta, falling; of equal ones the lower id first."""
    count = min(count, len(delta_F))
    # Only what can be among them is sorted: a layer may have a hundred thousand features.
    least = np.partition(delta_F, len(delta_F) - count)[len(delta_F) - count]
    among = np.nonzero(delta_F >= least)[0]
    return among[np.argsort(-delta_F[among], kind="stable")][:count]


@dataclass(frozen=True)
class Tail:
    """How strongly a feature fires where it should not.

    Attributes:
        fired_M: its largest activation in each discovery text without the attribute in which it fires, ascending.
        n: discovery texts without the attribute, those in which it is silent among them.
        scale: its mean over the texts with the attribute in which it fires; what goes beyond ``fired_M`` is told in it.
    """

    fired_M: np.ndarray
    n: int
    scale: float

    def levels(self, largest_N: np.ndarray) -> np.ndarray:
        """Share of the texts without the attribute that stay below an activation, and more than 1 beyond them all.

        Never falling, 0 where the feature is silent and above 0 where it fires.

        Args:
            largest_N: its largest activation in each text.
        """
        largest_N = largest_N.astype(np.float64)
        reached_N = len(self.fired_M) - np.searchsorted(self.fired_M, largest_N)
        # The one that is added keeps a feature that fires everywhere above 0.
        inside_N = 1 - reached_N / (self.n + 1)
        beyond_N = 1 + (largest_N - self._most) / self.scale
        return np.where(largest_N <= 0, 0.0, np.where(reached_N > 0, inside_N, beyond_N))

    def threshold(self, level: float) -> float:
        """The activation to exceed: what exceeds it is what has a higher level."""
        if level >= 1:
            # Rounding must not let through the text that the level was taken from; codes have seven digits.
            return (self._most + (level - 1) * self.scale) * (1 + 1e-9)
        allowed = int(np.ceil((1 - level) * (self.n + 1) - 1e-9)) - 1
        return float(self.fired_M[len(self.fired_M) - allowed - 1]) if allowed < len(self.fired_M) else 0.0

    @property
    def _most(self) -> float:
        return float(self.fired_M[-1]) if len(self.fired_M) else 0.0


def tails(
    codes_NF: sparse.csr_matrix, rows_R: np.ndarray, positive_N: np.ndarray, features_K: np.ndarray
) -> list[Tail]:
    """The tail of each feature on some texts; its scale is 1 where it fires in none with the attribute."""
    positive_R = positive_N[rows_R]
    codes_RK = codes_NF[rows_R][:, features_K].toarray().astype(np.float64)
    made = []
    for codes_R in codes_RK.T:
        wanted, other = codes_R[positive_R], codes_R[~positive_R]
        scale = float(wanted[wanted > 0].mean()) if (wanted > 0).any() else 1.0
        made.append(Tail(np.sort(other[other > 0]), len(other), scale))
    return made


def rule_scores(codes_NK: np.ndarray, tails_K: Sequence[Tail]) -> np.ndarray:
    """What the OR-rule thresholds: the highest level of any feature; 0 where nothing fires.

    Args:
        codes_NK: largest activation of the rule's features in each text.
        tails_K: their tails.
    """
    scores_N = np.zeros(len(codes_NK))
    for largest_N, tail in zip(codes_NK.T, tails_K, strict=True):
        np.maximum(scores_N, tail.levels(largest_N), out=scores_N)
    return scores_N


def threshold_at(scores_N: np.ndarray, rate: float, lowest: float = -np.inf) -> float:
    """The lowest threshold that at most a share ``rate`` of some scores exceeds.

    Args:
        scores_N: scores of texts without the attribute.
        rate: share of them that may be taken for positive.
        lowest: no lower threshold is wanted.
    """
    allowed = int(np.floor(rate * len(scores_N) + 1e-9))
    if allowed >= len(scores_N):
        return lowest
    # With the (allowed + 1)-th largest as threshold, at most `allowed` scores are above it, however many are equal.
    return float(max(lowest, np.partition(scores_N, len(scores_N) - allowed - 1)[len(scores_N) - allowed - 1]))


def jaccard(one: Sequence[int], other: Sequence[int]) -> float:
    """Share of two sets' features that both have; 1 for two empty sets."""
    first, second = set(one), set(other)
    return len(first & second) / len(first | second) if first | second else 1.0
