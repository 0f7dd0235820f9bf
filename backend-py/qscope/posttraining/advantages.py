"""Advantages of groups of rollouts, one of which may be a steered rare negative, and which groups teach nothing.

    A_i = (R_i - mean R) / std R,     over the G rollouts of one prompt (DAPO, arXiv 2503.14476)

``Baseline.JOINT`` takes mean and std over all G, as Qwen-Scope does (section 8.2). Where all normal rollouts are wrong
and the steered one is worse, wrong answers then have a positive advantage: +0.354 for G = 8. ``Baseline.SEPARATE``
takes them over the normal rollouts for those, and over all G for the steered one only.

A reward that is not a number is one that no grader could give. Its rollout takes no part and gets no advantage.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from qscope.errors import UserError


class Baseline(StrEnum):
    """What a rollout is compared with."""

    JOINT = "joint"
    SEPARATE = "separate"


class Std(StrEnum):
    """Divisor of the variance: G - 1, or G."""

    UNBIASED = "unbiased"
    POPULATION = "population"


@dataclass(frozen=True)
class Advantages:
    """Of P groups of G rollouts.

    Attributes:
        value_PG: advantages, float64; 0 where there is none.
        graded_PG: rollouts that take part in the loss. The others have no place in its mask either.
        zero_std_P: groups whose graded rollouts, the steered one among them, all have one reward: they teach nothing.
        normal_zero_std_P: groups whose normal rollouts do: all they can teach is the steered one.
    """

    value_PG: Tensor
    graded_PG: Tensor
    zero_std_P: Tensor
    normal_zero_std_P: Tensor

    @property
    def metrics(self) -> dict[str, float]:
        """Shares of groups and rollouts, by the names other trainers use where they have one."""
        return {
            "frac_reward_zero_std": float(self.zero_std_P.double().mean()),
            "frac_normal_reward_zero_std": float(self.normal_zero_std_P.double().mean()),
            "frac_ungraded": float((~self.graded_PG).double().mean()),
        }


def group_advantages(
    reward_PG: Tensor,
    steered_PG: Tensor,
    *,
    baseline: Baseline = Baseline.JOINT,
    std: Std = Std.UNBIASED,
    epsilon: float = 0.0,
) -> Advantages:
    """Advantages of the rollouts of P prompts.

    Args:
        reward_PG: rewards; NaN for a rollout that could not be graded.
        steered_PG: rare negatives among them.
        baseline: see above.
        std: its divisor. DAPO does not say which.
        epsilon: added to the std. Not needed: a group of one reward has advantage 0 by rule, however it rounds.

    Raises:
        UserError: groups of fewer than two rollouts, or of fewer than two normal ones beside a rare negative
            (GROUP_TOO_SMALL).
    """
    refuse_small_groups(reward_PG.shape[1], int(steered_PG.sum(1).max()) if steered_PG.numel() else 0)
    reward_PG = reward_PG.double()
    graded_PG = reward_PG.isfinite()
    normal_PG = graded_PG & ~steered_PG
    value_PG = _standardised(reward_PG, graded_PG, std, epsilon)
    if baseline is Baseline.SEPARATE:
        among_PG = _standardised(reward_PG, normal_PG, std, epsilon)
        value_PG = torch.where(steered_PG, value_PG, among_PG)
    return Advantages(
        torch.where(graded_PG, value_PG, 0.0), graded_PG, ~_differ(reward_PG, graded_PG), ~_differ(reward_PG, normal_PG)
    )


def mixed_groups(score_PG: Tensor, steered_PG: Tensor) -> Tensor:
    """keep_P of dynamic sampling: groups whose normal rollouts do not all score alike.

    The rare negative is left out: it almost always scores otherwise, and nothing would be filtered. Spread decides and
    not the mean, so that any scale of scores will do.

    Args:
        score_PG: rewards, or accuracies where the reward has other parts; NaN for what could not be graded.
        steered_PG: rare negatives.
    """
    return _differ(score_PG, score_PG.isfinite() & ~steered_PG)


def refuse_small_groups(group_size: int, rare_negatives: int) -> None:
    """Refuses groups that have no spread of their own.

    Raises:
        UserError: GROUP_TOO_SMALL.
    """
    fewest = 2 + rare_negatives
    if group_size < fewest:
        beside = f" beside {rare_negatives} rare negative" if rare_negatives else ""
        raise UserError(
            f"A group of {group_size} rollouts has too few to compare{beside}.",
            remedy=f"Set group_size to {fewest} or more; 8 is usual.",
            reason="GROUP_TOO_SMALL",
            field="rl.group_size",
        )


def _differ(reward_PG: Tensor, among_PG: Tensor) -> Tensor:
    """Whether some of a group have another reward than others. Asked of the rewards, since a std of equals rounds."""
    least_P = torch.where(among_PG, reward_PG, torch.inf).amin(1)
    most_P = torch.where(among_PG, reward_PG, -torch.inf).amax(1)
    return most_P > least_P


def _standardised(reward_PG: Tensor, among_PG: Tensor, std: Std, epsilon: float) -> Tensor:
    """(R - mean) / std of a part of each group, for all of it; 0 in groups where that part has one reward."""
    count_P = among_PG.sum(1)
    mean_P = torch.where(among_PG, reward_PG, 0.0).sum(1) / count_P.clamp_min(1)
    away_PG = reward_PG - mean_P[:, None]
    squares_P = torch.where(among_PG, away_PG.square(), 0.0).sum(1)
    divisor_P = (count_P - int(std is Std.UNBIASED)).clamp_min(1)
    return torch.where(
        _differ(reward_PG, among_PG)[:, None], away_PG / ((squares_P / divisor_P).sqrt() + epsilon)[:, None], 0.0
    )
