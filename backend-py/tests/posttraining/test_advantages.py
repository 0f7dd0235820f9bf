"""Advantages against a table worked out by hand, a plain loop, and the groups that teach nothing."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from qscope.errors import UserError
from qscope.posttraining.advantages import Baseline, Std, group_advantages, mixed_groups, refuse_small_groups
from qscope.posttraining.overlong import steered_share

JOINT, SEPARATE = Baseline.JOINT, Baseline.SEPARATE
UNBIASED, POPULATION = Std.UNBIASED, Std.POPULATION
NAN = math.nan


def of(rewards, *, steered=True, **options):
    reward_PG = torch.tensor([rewards], dtype=torch.float64)
    steered_PG = torch.zeros_like(reward_PG, dtype=torch.bool)
    if steered:
        steered_PG[:, -1] = True
    return group_advantages(reward_PG, steered_PG, **options)


def group(right: int, wrong: int, steered: float) -> list[float]:
    return [1.0] * right + [-1.0] * wrong + [steered]


# Rewards are 1 for right and -1 for wrong; the last rollout is the steered one. Three digits, as worked out by hand:
# for seven right ones and -1, mean 0.75 and unbiased std sqrt(3.5 / 7) = 0.7071.
TABLE = [
    (group(7, 0, -1), UNBIASED, {1.0: 0.354}, -2.475),
    (group(7, 0, -1), POPULATION, {1.0: 0.378}, -2.646),
    (group(0, 7, -1), UNBIASED, {-1.0: 0.0}, 0.0),
    (group(0, 7, -2), UNBIASED, {-1.0: 0.354}, -2.475),
    (group(4, 3, -1), UNBIASED, {1.0: 0.935, -1.0: -0.935}, -0.935),
    (group(4, 3, -2), UNBIASED, {1.0: 0.903, -1.0: -0.702}, -1.504),
    (group(15, 0, -1), UNBIASED, {1.0: 0.250}, -3.750),
    (group(15, 0, -1), POPULATION, {1.0: 0.258}, -3.873),
]


@pytest.mark.parametrize(("rewards", "std", "normal", "steered"), TABLE)
def test_the_table(rewards, std, normal, steered):
    found = of(rewards, std=std).value_PG[0].tolist()
    for reward, advantage in zip(rewards[:-1], found[:-1], strict=True):
        assert round(advantage, 3) == normal[reward]
    assert round(found[-1], 3) == steered


def test_separate_baselines():
    # All wrong, the steered one worse: joint rewards wrong answers, separate does not, and the loop is still pushed.
    found = of(group(0, 7, -2), baseline=SEPARATE).value_PG[0].tolist()
    assert found[:-1] == [0.0] * 7
    assert found[-1] == pytest.approx(-7 / 8 / math.sqrt(1 / 8))
    rewards = group(4, 3, -2)
    found = of(rewards, baseline=SEPARATE).value_PG[0].tolist()
    mean, std = statistics.fmean(rewards[:-1]), statistics.stdev(rewards[:-1])
    assert found[:-1] == pytest.approx([(reward - mean) / std for reward in rewards[:-1]])
    assert found[-1] == pytest.approx((-2 - statistics.fmean(rewards)) / statistics.stdev(rewards))


def test_without_a_rare_negative_both_are_the_same():
    rewards = [0.5, 1.0, -1.0, 0.25]
    wanted = [(r - statistics.fmean(rewards)) / statistics.stdev(rewards) for r in rewards]
    for baseline in (JOINT, SEPARATE):
        assert of(rewards, steered=False, baseline=baseline).value_PG[0].tolist() == pytest.approx(wanted)


def test_the_steered_rollout_may_stand_anywhere_and_groups_do_not_mix():
    reward_PG = torch.tensor([[-2.0, 1, 1, -1], [1, 1, -1, 1]])
    steered_PG = torch.tensor([[True, False, False, False], [False, False, True, False]])
    for baseline in (JOINT, SEPARATE):
        both = group_advantages(reward_PG, steered_PG, baseline=baseline).value_PG
        for p in range(2):
            alone = group_advantages(reward_PG[p : p + 1], steered_PG[p : p + 1], baseline=baseline).value_PG[0]
            torch.testing.assert_close(both[p], alone, rtol=0, atol=0)
    # The three normal rewards of the second group are equal.
    assert both[1].tolist() == pytest.approx([0, 0, -1.5, 0])


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e8 + 0.1, -7.7])
def test_equal_rewards_have_no_advantage_however_they_round(value):
    # The mean of seven times 0.1 is not 0.1: a std of 1e-17 would make advantages of 1 out of rounding.
    found = of([value] * 7, steered=False)
    assert found.value_PG.tolist() == [[0.0] * 7]
    assert found.zero_std_P.tolist() == [True]


def test_groups_that_teach_nothing_are_told():
    reward_PG = torch.tensor([[1.0, 1, 1, -1], [-1, -1, -1, -1], [1, -1, 1, -1], [NAN, 1, NAN, -1]])
    steered_PG = torch.tensor([[False, False, False, True]] * 4)
    found = group_advantages(reward_PG, steered_PG)
    assert found.zero_std_P.tolist() == [False, True, False, False]
    assert found.normal_zero_std_P.tolist() == [True, True, False, True]
    assert found.metrics == {
        "frac_reward_zero_std": 0.25,
        "frac_normal_reward_zero_std": 0.75,
        "frac_ungraded": 0.125,
    }


def test_an_ungraded_rollout_takes_no_part_and_is_never_scored_zero():
    found = of([1.0, NAN, -1.0, 1.0, -2.0])
    graded = [1.0, -1.0, 1.0, -2.0]
    wanted = [(r - statistics.fmean(graded)) / statistics.stdev(graded) for r in graded]
    wanted.insert(1, 0.0)
    assert found.value_PG[0].tolist() == pytest.approx(wanted)
    assert found.graded_PG.tolist() == [[True, False, True, True, True]]
    assert of([NAN] * 4).value_PG.tolist() == [[0.0] * 4]
    assert of([NAN] * 4).zero_std_P.tolist() == [True]
    # A steered rollout that was not graded leaves the others as they were without it.
    alone = of([1.0, -1.0, 1.0], steered=False).value_PG[0].tolist()
    assert of([1.0, -1.0, 1.0, NAN]).value_PG[0].tolist() == [*alone, 0.0]


def test_epsilon_is_added_to_the_std():
    found = of([1.0, -1.0], steered=False, epsilon=0.5).value_PG[0, 0].item()
    assert found == pytest.approx(1 / (math.sqrt(2) + 0.5))


def test_dynamic_sampling_decides_on_the_normal_rollouts():
    reward_PG = torch.tensor([[1.0, 1, 1, -1], [-1, -1, -1, -2], [1, -1, 1, -1], [0.1, 0.1, 0.1, 0.1], [NAN, 1, 1, 0]])
    steered_PG = torch.tensor([[False, False, False, True]] * 5)
    assert mixed_groups(reward_PG, steered_PG).tolist() == [False, False, True, False, False]
    # Without rare negatives all decide, whatever the scale: the mean of the third group is neither 0 nor 1.
    assert mixed_groups(reward_PG, torch.zeros_like(steered_PG)).tolist() == [True, True, True, False, True]


@pytest.mark.parametrize(("size", "rare", "fewest"), [(1, 0, 2), (2, 1, 3)])
def test_groups_that_are_too_small_are_refused(size, rare, fewest):
    with pytest.raises(UserError, match=f"A group of {size} rollouts") as caught:
        refuse_small_groups(size, rare)
    assert caught.value.reason == "GROUP_TOO_SMALL"
    assert f"{fewest} or more" in caught.value.remedy
    refuse_small_groups(fewest, rare)
    with pytest.raises(UserError):
        of([1.0, -1.0])


SHARES = [
    (512, 500, 12.8, 50.6),
    (1024, 500, 22.6, 67.2),
    (2048, 500, 36.9, 80.4),
    (4096, 500, 53.9, 89.1),
    (4096, 1500, 28.1, 73.2),
]


@pytest.mark.parametrize(("steered", "normal", "tokens", "pull"), SHARES)
def test_what_a_long_steered_rollout_holds(steered, normal, tokens, pull):
    advantage_B = of(group(7, 0, -1)).value_PG[0]
    length_B, steered_B = torch.tensor([normal] * 7 + [steered]), torch.arange(8) == 7
    found = steered_share(length_B, advantage_B, steered_B)
    assert [round(100 * share, 1) for share in found] == [tokens, pull]
    assert steered_share(length_B, advantage_B, torch.zeros(8, dtype=torch.bool)) == (0.0, 0.0)
