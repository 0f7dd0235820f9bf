"""The reward of rollouts: what graders say, what a rollout's length costs, what its features cost.

A rollout that a grader could not grade has no reward (NaN) and takes no part; it is counted and never scored 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from qscope.models import LoadedModel
from qscope.posttraining.examples import Prompt
from qscope.posttraining.grader_pool import GraderPool
from qscope.posttraining.graders import ABSTAINED, Grade, Grader, Response, Tally, reward_of
from qscope.posttraining.groups import Group, Member
from qscope.posttraining.overlong import soft_overlong_penalty
from qscope.posttraining.rl_batch import padded
from qscope.posttraining.sae_penalty import SaePenalty, penalty_excess
from qscope.v1.rl_pb2 import GraderKind, Reward

OVERLONG, SAE_PENALTY = "overlong", "sae_penalty"


def graders_of(rewards: Sequence[Reward]) -> list[Grader]:
    """The graders of an experiment's parts of the reward, named by their kind where they have no name."""
    made = []
    for one in rewards:
        kind = GraderKind.Name(one.kind).removeprefix("GRADER_KIND_").lower()
        made.append(Grader(one.name or kind, kind, one.weight, one.rule, one.pattern, one.ngram, one.path))
    return made


@dataclass
class Scored:
    """What a rollout is worth.

    Attributes:
        reward: NaN where a grader that counts said nothing.
        parts: weighted numbers by name, penalties among them; None for a grader that said nothing.
        reasons: of those, by name.
    """

    reward: float
    parts: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Overlong:
    """DAPO's soft penalty.

    Attributes:
        longest: tokens of a rollout at most.
        cache: tokens before that limit over which the penalty grows.
    """

    longest: int
    cache: int


class Rewards:
    """Scores rollouts.

    Args:
        pool: the graders at work.
        graders: the same, in the same order.
        overlong: soft penalty; None leaves it out.
        penalty: of features; None leaves it out.
        loaded: the model whose features cost; the plain one, under training.
        rows: rollouts of a pass of that model.
        should_stop: asked while graders work.
    """

    def __init__(
        self,
        pool: GraderPool,
        graders: Sequence[Grader],
        *,
        overlong: Overlong | None = None,
        penalty: SaePenalty | None = None,
        loaded: LoadedModel | None = None,
        rows: int = 8,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        assert (penalty is None) == (loaded is None), "features cost on a model"
        self._pool, self._graders, self._should_stop = pool, list(graders), should_stop
        self._overlong, self._penalty, self._loaded, self._rows = overlong, penalty, loaded, rows

    @property
    def graders(self) -> list[Grader]:
        """What grades."""
        return list(self._graders)

    def __call__(
        self, members: Sequence[tuple[Prompt, Member]], tallies: dict[str, Tally] | None = None
    ) -> list[Scored]:
        """Scores of rollouts, in their order.

        Args:
            members: each with its prompt.
            tallies: counts how each grader fared, by name.

        Raises:
            UserError: a grader could not be started again.
            Stopped: when asked to stop.
        """
        responses = [response_of(prompt, member) for prompt, member in members]
        grades = self._pool.grade(responses, should_stop=self._should_stop)
        scored = [self._graded(row) for row in grades]
        for row in grades if tallies is not None else ():
            for grader, grade in zip(self._graders, row, strict=True):
                tallies.setdefault(grader.name, Tally()).count(grade)
        self._take_off(scored, [(OVERLONG, one) for one in self._too_long(members)])
        self._take_off(scored, [(SAE_PENALTY, -one) for one in self._too_active(members)])
        return scored

    def _graded(self, row: Sequence[Grade]) -> Scored:
        total = reward_of(self._graders, row)
        scored = Scored(math.nan if total is None else total)
        for grader, grade in zip(self._graders, row, strict=True):
            scored.parts[grader.name] = None if grade.value is None else grader.weight * grade.value
            if grade.value is None:
                scored.reasons[grader.name] = grade.reason
        return scored

    def _too_long(self, members: Sequence[tuple[Prompt, Member]]) -> list[float]:
        if self._overlong is None:
            return []
        length_B = torch.tensor([len(member.rollout.ids) for _, member in members])
        # A rare negative is cut at a limit of its own and is not too long by this one.
        return soft_overlong_penalty(length_B, longest=self._overlong.longest, cache=self._overlong.cache).tolist()

    def _too_active(self, members: Sequence[tuple[Prompt, Member]]) -> list[float]:
        if self._penalty is None:
            return []
        assert self._loaded is not None
        return [
            self._penalty.weight * one
            for one in feature_excess(
                self._loaded, self._penalty, [(p.ids, m.rollout.ids) for p, m in members], self._rows
            )
        ]

    def _take_off(self, scored: Sequence[Scored], parts: Sequence[tuple[str, float]]) -> None:
        for one, (name, value) in zip(scored, parts, strict=False):
            one.parts[name] = value
            one.reward += value


def response_of(prompt: Prompt, member: Member) -> Response:
    """What graders see of a rollout."""
    rollout = member.rollout
    return Response(
        rollout.text,
        prompt.asked or prompt.text,
        rollout.answer_ids,
        rollout.truncated,
        prompt.answer,
        prompt.language,
        prompt.fields,
    )


def feature_excess(
    loaded: LoadedModel, penalty: SaePenalty, rows: Sequence[tuple[Sequence[int], Sequence[int]]], at_once: int
) -> list[float]:
    """Mean excess of the watched features over each rollout's generated tokens.

    Args:
        loaded: the plain model.
        penalty: what is watched.
        rows: prompt and generated tokens.
        at_once: rollouts of a pass.
    """
    order = sorted(range(len(rows)), key=lambda number: len(rows[number][0]) + len(rows[number][1]))
    found: dict[int, float] = {}
    for start in range(0, len(order), at_once):
        numbers = order[start : start + at_once]
        batch = padded([rows[number] for number in numbers])
        excess_B = penalty_excess(loaded, penalty, batch.ids_BT, batch.valid_BT, batch.generated_BT.to(loaded.device))
        found.update(zip(numbers, excess_B.tolist(), strict=True))
    return [found[number] for number in range(len(rows))]


def members_of(groups: Sequence[Group], prompts: Sequence[Prompt]) -> list[tuple[Prompt, Member]]:
    """All rollouts of groups with their prompts, group by group."""
    return [(prompts[group.asked.row], member) for group in groups for member in group.members]


def failed_count(scored: Sequence[Scored]) -> int:
    """Rollouts that some grader failed on; an abstention is no failure."""
    return sum(any(reason != ABSTAINED for reason in one.reasons.values()) for one in scored)
