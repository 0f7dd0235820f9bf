"""What one step learns from: prompts drawn, rollouts made and scored, advantages; everything before the gradient."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qscope.posttraining.advantages import Advantages, Baseline, Std, group_advantages, mixed_groups
from qscope.posttraining.examples import Prompt
from qscope.posttraining.graders import Tally
from qscope.posttraining.groups import Asked, Attempts, Group, GroupMaker
from qscope.posttraining.overlong import overlong_filter
from qscope.posttraining.rare_negatives import RareNegatives
from qscope.posttraining.rewards import Rewards, Scored, members_of


class PromptOrder:
    """Which prompt each draw of a run is: pass after pass over all of them, each in an order of its own.

    The draws of a rank are every ``ranks``-th, so that a step asks the same prompts however many ranks share it.

    Args:
        count: prompts.
        seed: of the order.
        rank, ranks: this one and how many.
    """

    def __init__(self, count: int, *, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self._count, self._seed, self._rank, self._ranks = count, seed, rank, ranks
        self.drawn = 0

    def next(self, prompts: Sequence[Prompt], count: int) -> list[Asked]:
        """The next draws of this rank."""
        asked = []
        for _ in range(count):
            draw = self.drawn * self._ranks + self._rank
            self.drawn += 1
            row = _order(self._count, self._seed, draw // self._count)[draw % self._count]
            asked.append(Asked(draw, row, prompts[row].ids))
        return asked


@lru_cache(maxsize=2)
def _order(count: int, seed: int, turn: int) -> list[int]:
    return np.random.default_rng((seed, turn)).permutation(count).tolist()


@dataclass(frozen=True)
class StepSettings:
    """How a step is made up.

    Attributes:
        prompts: of this rank's share of a step.
        baseline, std: of advantages.
        drop_overlong: truncated rollouts get no loss; rare negatives do.
        rounds: of dynamic sampling; 0 is off.
    """

    prompts: int
    baseline: Baseline = Baseline.JOINT
    std: Std = Std.UNBIASED
    drop_overlong: bool = False
    rounds: int = 0


@dataclass
class MadeStep:
    """The rollouts of a step, group by group.

    Attributes:
        number: of the step, from 1.
        groups: of this rank, all of one size.
        scored: of every rollout, in the order of the groups.
        advantages: P groups of G.
        teaches_PG: rollouts that take part in the loss.
        attempts: what became of rare negatives.
        places: of a group that were meant for rare negatives.
        tallies: how each grader fared, by name.
        rounds: of prompts that were drawn.
        seconds: spent on ``generation`` and ``grading``.
    """

    number: int
    groups: list[Group]
    scored: list[Scored]
    advantages: Advantages
    teaches_PG: Tensor
    attempts: Attempts
    places: int
    tallies: dict[str, Tally]
    rounds: int
    seconds: dict[str, float]

    @property
    def steered_PG(self) -> Tensor:
        """Rare negatives."""
        return _steered(self.groups)


@dataclass
class _Work:
    """Of one step, while it is made."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"generation": 0.0, "grading": 0.0})


class StepMaker:
    """Makes the rollouts of every step.

    Args:
        prompts: all of them.
        order: in which they are drawn.
        maker: makes groups.
        rewards: scores rollouts.
        rare: rare negatives; None for plain DAPO.
        settings: the rest.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        order: PromptOrder,
        maker: GroupMaker,
        rewards: Rewards,
        rare: RareNegatives | None,
        settings: StepSettings,
    ) -> None:
        self.prompts, self.order, self.rewards, self.rare = prompts, order, rewards, rare
        self._maker, self._settings = maker, settings

    def make(self, step: int) -> MadeStep:
        """The rollouts that the update after ``step`` learns from.

        Raises:
            UserError: see :class:`Rewards` and :class:`RareNegatives`.
            Stopped: when asked to stop.
        """
        work, settings = _Work(), self._settings
        begun = time.perf_counter()
        places = self.rare.places(step) if self.rare is not None else 0
        work.seconds["generation"] += time.perf_counter() - begun
        groups, scores, rounds = self._normal(step, places, work)
        attempts = Attempts()
        if self.rare is not None and places:
            begun = time.perf_counter()
            before = [len(group.members) for group in groups]
            attempts = self.rare.add(step, groups)
            work.seconds["generation"] += time.perf_counter() - begun
            later = [Group(one.asked, one.members[n:]) for one, n in zip(groups, before, strict=True)]
            added = self._score(later, work)
            # Each group's normal rollouts first, then what stands in the places left for rare negatives.
            scores = [first + second for first, second in zip(scores, added, strict=True)]
        scored = [one for row in scores for one in row]
        if self.rare is not None:
            normal = [one for group in groups for one in group.members if not one.steered]
            self.rare.saw(step, [one.repetition.endless for one in normal])
        advantages = group_advantages(_rewards(scores), _steered(groups), baseline=settings.baseline, std=settings.std)
        return MadeStep(
            step + 1,
            groups,
            scored,
            advantages,
            self._teaches(groups, advantages),
            attempts,
            places,
            work.tallies,
            rounds,
            work.seconds,
        )

    def _normal(self, step: int, places: int, work: _Work) -> tuple[list[Group], list[list[Scored]], int]:
        """Groups of normal rollouts with their scores: drawn once, or until all of them differ in reward.

        Where the rounds do not suffice, the step goes on with the groups that it has, those that differ first.
        """
        wanted, kept, others = self._settings.prompts, [], []
        rounds = 0
        while not rounds or (len(kept) < wanted and rounds < self._settings.rounds):
            rounds += 1
            begun = time.perf_counter()
            asked = self.order.next(self.prompts, wanted - len(kept))
            groups = self._maker.normal(step, asked, leave=places)
            work.seconds["generation"] += time.perf_counter() - begun
            scores = self._score(groups, work)
            pairs = list(zip(groups, scores, strict=True))
            if not self._settings.rounds:
                return groups, scores, 1
            mixed_P = mixed_groups(_rewards(scores), _steered(groups)).tolist()
            kept += [pair for pair, mixed in zip(pairs, mixed_P, strict=True) if mixed]
            others += [pair for pair, mixed in zip(pairs, mixed_P, strict=True) if not mixed]
        chosen = (kept + others)[:wanted]
        return [group for group, _ in chosen], [row for _, row in chosen], rounds

    def _score(self, groups: Sequence[Group], work: _Work) -> list[list[Scored]]:
        begun = time.perf_counter()
        scored = iter(self.rewards(members_of(groups, self.prompts), work.tallies))
        rows = [[next(scored) for _ in group.members] for group in groups]
        work.seconds["grading"] += time.perf_counter() - begun
        return rows

    def _teaches(self, groups: Sequence[Group], advantages: Advantages) -> Tensor:
        if not self._settings.drop_overlong:
            return advantages.graded_PG
        truncated_PG = torch.tensor([[one.rollout.truncated for one in group.members] for group in groups])
        keep_B = overlong_filter(truncated_PG.flatten(), _steered(groups).flatten())
        return advantages.graded_PG & keep_B.view_as(truncated_PG)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"drawn": self.order.drawn, "rare": self.rare.state() if self.rare is not None else None}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on where :meth:`state` was."""
        self.order.drawn = state["drawn"]
        if self.rare is not None and state["rare"] is not None:
            self.rare.load_state(state["rare"])


def _rewards(scores: Sequence[Sequence[Scored]]) -> Tensor:
    return torch.tensor([[one.reward for one in row] for row in scores], dtype=torch.float64)


def _steered(groups: Sequence[Group]) -> Tensor:
    return torch.tensor([[one.steered for one in group.members] for group in groups])
