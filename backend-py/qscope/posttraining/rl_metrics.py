"""What a step's log tells of its rollouts, normal and steered apart, and which alarms they show.

Every number is a pair of a sum and what it is to be divided by, so that ranks and steps are added before the division.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from qscope.errors import UserError
from qscope.posttraining.code_switching import SwitchRule, language_code, switching
from qscope.posttraining.examples import Prompt
from qscope.posttraining.groups import Member
from qscope.posttraining.rewards import Scored, members_of
from qscope.posttraining.rl_step import MadeStep

#: Scripts only: sentences take a language identifier, which costs more than a small model's step.
_RULE = SwitchRule(sentences=False)

Sums = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Signs:
    """What alarms ask of a step, as counts that ranks may add.

    Attributes:
        rollouts: all of them.
        ungraded: of those, with a grader that failed.
        groups, flat: groups, and those whose normal rollouts have one reward.
        normal, truncated, looping: normal rollouts, and those that were cut off, and those cut off in a loop.
        negatives, verified: places meant for rare negatives, and first attempts that loop.
    """

    rollouts: int
    ungraded: int
    groups: int
    flat: int
    normal: int
    truncated: int
    looping: int
    negatives: int
    verified: int


def signs_of(made: MadeStep, failed: int) -> Signs:
    """The signs of a step; ``failed`` rollouts could not be graded though a grader tried."""
    normal = [one for group in made.groups for one in group.members if not one.steered]
    return Signs(
        len(made.scored),
        failed,
        len(made.groups),
        int(made.advantages.normal_zero_std_P.sum()),
        len(normal),
        sum(one.rollout.truncated for one in normal),
        sum(one.repetition.endless for one in normal),
        len(made.attempts.verdicts),
        sum(made.attempts.verdicts),
    )


def step_sums(made: MadeStep, prompts: Sequence[Prompt]) -> Sums:
    """Sums and divisors of a step's rollouts by the name of their mean."""
    pairs = members_of(made.groups, prompts)
    rows = list(zip(pairs, made.scored, made.advantages.value_PG.flatten().tolist(), strict=True))
    normal = [(prompt, member, score) for (prompt, member), score, _ in rows if not member.steered]
    steered = [(member, score, advantage) for (_, member), score, advantage in rows if member.steered]
    sums: Sums = dict(_of_normal(normal))
    sums["frac_reward_zero_std"] = float(made.advantages.normal_zero_std_P.sum()), len(made.groups)
    sums["frac_ungraded"] = float((~made.advantages.graded_PG).sum()), made.advantages.graded_PG.numel()
    sums["sampling_rounds"] = made.rounds, 1
    if made.places:
        sums |= dict(_of_steered(steered, made))
    for name, tally in made.tallies.items():
        sums[f"failed_{name}"] = tally.n * tally.failed_share, tally.n
    for name, seconds in made.seconds.items():
        sums[f"seconds_{name}"] = seconds, 1
    return sums


def _of_normal(rows: Sequence[tuple[Prompt, Member, Scored]]) -> Iterator[tuple[str, tuple[float, float]]]:
    n = len(rows)
    rewards = [score.reward for _, _, score in rows if score.reward == score.reward]
    yield "reward", (sum(rewards), len(rewards))
    if len(rewards) > 1:
        # Weighed by rollouts: a mean of ranks' own.
        yield "reward_std", (float(torch.tensor(rewards).std()) * len(rewards), len(rewards))
    for name in rows[0][2].parts if rows else ():
        said = [value for _, _, score in rows if (value := score.parts[name]) is not None]
        yield f"reward_{name}", (sum(said), len(said))
    yield "clipped_ratio", (sum(member.rollout.truncated for _, member, _ in rows), n)
    yield "repeat_ratio", (sum(member.repetition.endless for _, member, _ in rows), n)
    yield "repeated_3grams", (sum(member.repetition.repeated_3grams or 0.0 for _, member, _ in rows), n)
    yield "completion_length", (sum(len(member.rollout.ids) for _, member, _ in rows), n)
    switched = [one for prompt, member, _ in rows if (one := _switched(prompt, member)) is not None]
    yield "cs_ratio", (sum(switched), len(switched))


def _of_steered(
    rows: Sequence[tuple[Member, Scored, float]], made: MadeStep
) -> Iterator[tuple[str, tuple[float, float]]]:
    n = len(rows)
    yield "steered_loop_rate", (sum(made.attempts.verdicts), len(made.attempts.verdicts))
    yield "steered_dropped", (made.attempts.dropped, len(made.attempts.verdicts))
    yield "steered_advantage", (sum(advantage for _, _, advantage in rows), n)
    rewards = [score.reward for _, score, _ in rows if score.reward == score.reward]
    yield "steered_reward", (sum(rewards), len(rewards))
    yield "steered_length", (sum(len(member.rollout.ids) for member, _, _ in rows), n)
    length_B = torch.tensor([len(one.rollout.ids) for group in made.groups for one in group.members]).double()
    length_B = torch.where(made.teaches_PG.flatten(), length_B, 0.0)
    steered_B = made.steered_PG.flatten()
    pull_B = length_B * made.advantages.value_PG.flatten().abs()
    yield "steered_token_share", (float(length_B[steered_B].sum()), float(length_B.sum()))
    yield "steered_pull_share", (float(pull_B[steered_B].sum()), float(pull_B.sum()))


def _switched(prompt: Prompt, member: Member) -> bool | None:
    """Whether a rollout leaves its prompt's language; None where that language is not known."""
    if not prompt.language:
        return None
    try:
        expected = language_code(prompt.language)
    except UserError:
        return None
    return switching(member.rollout.text, expected, _RULE, prompt=prompt.asked).switched


def failures(sums: Mapping[str, tuple[float, float]]) -> str:
    """The graders that failed, in words: ``math 12 of 64``."""
    failed = [(name.removeprefix("failed_"), pair) for name, pair in sums.items() if name.startswith("failed_")]
    return ", ".join(f"{name} {total:.0f} of {n:.0f}" for name, (total, n) in failed if total)
