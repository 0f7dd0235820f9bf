"""How much a benchmark repeats itself, by its footprints alone (Qwen-Scope, section 4.1), exact.

With m_j items activating feature j of the union F, and N items:

    c_n   = E |F(S)| / |F| over subsets S of n items          (eq. 7)
          = 1 - mean_j C(N - m_j, n) / C(N, n)
    AUC   = mean of c_1 ... c_N                               (eq. 8)
    R-hat = AUC N / |F| = (N + 1) / |F|^2  sum_j m_j / (m_j + 1)   (eq. 9)

The right-hand sides are exact; the paper draws subsets. R-hat lies in [(N + 1) / (2 |F|), (N + 1) / |F|) and grows with
N, so that ranks are compared, not values.
"""

from __future__ import annotations

import math

import numpy as np

from qscope.features.coverage import drawn_curves
from qscope.features.footprints import Footprints


def r_hat(footprints: Footprints) -> float:
    """R-hat; NaN for a benchmark that activates nothing."""
    return r_hat_of(footprints.count_U, footprints.items)


def r_hat_of(count_F: np.ndarray, items: int) -> float:
    """R-hat from the number of items that activate each feature; NaN where none activates any.

    Args:
        count_F: m_j; features of no item do not count.
        items: N.
    """
    count_U = count_F[count_F > 0].astype(np.float64)
    if not len(count_U):
        return math.nan
    return (items + 1) / len(count_U) ** 2 * float((count_U / (count_U + 1)).sum())


def coverage_auc(footprints: Footprints) -> float:
    """AUC of the coverage curve; NaN for a benchmark that activates nothing."""
    features = len(footprints.features_U)
    return r_hat(footprints) * features / footprints.items if features else math.nan


def drawn_auc(footprints: Footprints, draws: int, seed: int) -> tuple[float, float]:
    """AUC by random orders of the items: mean and standard error."""
    assert draws >= 2, "an error takes two draws"
    found = np.array([curve_N.mean() for curve_N in drawn_curves(footprints, draws, seed)])
    return float(found.mean()), float(found.std(ddof=1) / math.sqrt(draws))
