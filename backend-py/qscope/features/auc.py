"""Area under the ROC curve of many scores at once, exact, with ties and an interval."""

from __future__ import annotations

import torch
from torch import Tensor

_Z95 = 1.959963984540054


def midranks(scores_MD: Tensor) -> Tensor:
    """Ranks from 1 within each row; equal scores share the mean of their ranks."""
    sorted_MD = scores_MD.sort(dim=1).values
    below_MD = torch.searchsorted(sorted_MD, scores_MD.contiguous())
    upto_MD = torch.searchsorted(sorted_MD, scores_MD.contiguous(), right=True)
    return (below_MD + upto_MD + 1).double() / 2


def auc(scores_DM: Tensor, positive_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """AUC of every column, and its 95 % interval.

    The AUC is the Mann-Whitney probability that a positive scores higher than a negative, ties counting half. Its
    variance is DeLong's (1988, by midranks: Sun and Xu 2014), the interval normal on the logit scale. Where the sample
    shows no variance (a perfect separation), the interval is that of Hanley and McNeil's variance at its own ends
    (Newcombe 2006), which does not shrink to a point.

    Args:
        scores_DM: scores by observation and column.
        positive_D: which observations are positive; there must be both kinds.

    Returns:
        ``auc_M, low_M, high_M`` in float64.
    """
    scores_MD = scores_DM.double().t().contiguous()
    n, m = int(positive_D.sum()), int((~positive_D).sum())
    assert n > 0, "there is no positive"
    assert m > 0, "there is no negative"
    all_MD = midranks(scores_MD)
    above_Mn = (all_MD[:, positive_D] - midranks(scores_MD[:, positive_D])) / m
    above_Mm = 1 - (all_MD[:, ~positive_D] - midranks(scores_MD[:, ~positive_D])) / n
    auc_M = above_Mn.mean(1)
    variance_M = torch.zeros_like(auc_M)
    if n > 1 and m > 1:
        variance_M = above_Mn.var(1) / n + above_Mm.var(1) / m
    # Rounding leaves a variance of 1e-33 where there is none.
    plain_M = variance_M > 1e-15
    inner_M = auc_M.clamp(1e-12, 1 - 1e-12)
    width_M = _Z95 * variance_M.sqrt() / (inner_M * (1 - inner_M))
    low_M, high_M = (torch.sigmoid(torch.logit(inner_M) + sign * width_M) for sign in (-1, 1))
    other_low_M, other_high_M = _without_variance(auc_M, n, m), 1 - _without_variance(1 - auc_M, m, n)
    return auc_M, torch.where(plain_M, low_M, other_low_M), torch.where(plain_M, high_M, other_high_M)


def _without_variance(auc_M: Tensor, n: int, m: int) -> Tensor:
    """Lower end of Newcombe's interval (his method 5), by bisection."""
    mean_count = (n + m) / 2 - 1

    def excess(theta_M: Tensor) -> Tensor:
        inner_M = 1 + mean_count * ((1 - theta_M) / (2 - theta_M) + theta_M / (1 + theta_M))
        return auc_M - theta_M - _Z95 * (theta_M * (1 - theta_M) * inner_M / (n * m)).clamp_min(0).sqrt()

    low_M, high_M = torch.zeros_like(auc_M), (auc_M - 1e-12).clamp_min(0)
    for _ in range(80):
        middle_M = (low_M + high_M) / 2
        inside_M = excess(middle_M) > 0
        low_M, high_M = torch.where(inside_M, middle_M, low_M), torch.where(inside_M, high_M, middle_M)
    return low_M
