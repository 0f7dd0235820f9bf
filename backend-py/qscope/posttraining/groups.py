"""Groups of rollouts of one prompt, and how a group is filled: normal rollouts, and rare negatives that were verified.

    normal rollouts of every place that is not steered
      -> steered rollouts, verified with the loop detector
      -> what missed: a normal rollout in its place (drop), once more and then that (resample), or left (keep)

The controls keep what they make: a random feature hardly ever makes a loop, and dropping all it makes would be a run
without the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from qscope.posttraining.pasted import pasted_loop
from qscope.posttraining.repetition import Repetition, repetition_of
from qscope.posttraining.rollouts import Request, Sampler, Steered
from qscope.posttraining.writing import Rollout
from qscope.runs import seed_of


class Source(StrEnum):
    """Where rare negatives come from."""

    STEERED = "steered"
    RANDOM_FEATURES = "random_features"
    PASTED = "pasted"


class OnMiss(StrEnum):
    """What becomes of a steered rollout that does not loop."""

    DROP = "drop"
    RESAMPLE = "resample"
    KEEP = "keep"


@dataclass(frozen=True)
class Asked:
    """A prompt drawn for a step.

    Attributes:
        draw: number of the draw, over the whole run and all ranks.
        row: number of the prompt in its list.
        ids: its tokens.
    """

    draw: int
    row: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Member:
    """One rollout of a group.

    Attributes:
        rollout: what was written.
        steered: it is a rare negative, wherever it comes from.
        repetition: what the loop detector says.
    """

    rollout: Rollout
    steered: bool
    repetition: Repetition

    @property
    def verified(self) -> bool:
        """A rare negative that loops."""
        return self.steered and self.repetition.endless


@dataclass
class Group:
    """The rollouts of one prompt, rare negatives last."""

    asked: Asked
    members: list[Member] = field(default_factory=list)


@dataclass(frozen=True)
class Negatives:
    """How a step's rare negatives are made.

    Attributes:
        per_group: of each group.
        source: from where.
        steered: how they are steered; None where they are pasted.
        on_miss: what becomes of steered ones that do not loop.
        max_tokens: of each at most.
        stop_after_loops: whole repetitions after which one is cut; 0 lets it run on.
    """

    per_group: int
    source: Source
    steered: Steered | None
    on_miss: OnMiss
    max_tokens: int
    stop_after_loops: int


@dataclass
class Attempts:
    """What became of the rare negatives that were tried.

    Attributes:
        verdicts: of every first attempt, in order: does it loop?
        dropped: places that a normal rollout took.
    """

    verdicts: list[bool] = field(default_factory=list)
    dropped: int = 0


class GroupMaker:
    """Fills groups.

    Args:
        sampler: makes rollouts.
        seed: of the experiment.
        group_size: rollouts of a prompt.
    """

    def __init__(self, sampler: Sampler, *, seed: int, group_size: int) -> None:
        self._sampler, self._seed, self.group_size = sampler, seed, group_size

    def normal(self, step: int, asked: Sequence[Asked], *, leave: int = 0) -> list[Group]:
        """Groups of normal rollouts, ``leave`` places of each left for rare negatives."""
        groups = [Group(one) for one in asked]
        self._fill(step, [(group, place) for group in groups for place in range(self.group_size - leave)])
        return groups

    def add_negatives(self, step: int, groups: Sequence[Group], negatives: Negatives) -> Attempts:
        """Fills the places that :meth:`normal` left, in place."""
        attempts = Attempts()
        first = self.group_size - negatives.per_group
        places = [(group, place) for group in groups for place in range(first, self.group_size)]
        if negatives.source is Source.PASTED:
            for group, place in places:
                group.members.append(_member(self._pasted(step, group, place, negatives), steered=True))
            attempts.verdicts = [group.members[place].verified for group, place in places]
            return attempts
        made = dict(zip(map(_key, places), self._steered(step, places, negatives, "steered"), strict=True))
        attempts.verdicts = [one.verified for one in made.values()]
        keep = negatives.on_miss is OnMiss.KEEP or negatives.source is Source.RANDOM_FEATURES
        missed = [] if keep else [one for one in places if not made[_key(one)].verified]
        if negatives.on_miss is OnMiss.RESAMPLE and missed:
            again = self._steered(step, missed, negatives, "steered again")
            made |= {_key(one): member for one, member in zip(missed, again, strict=True) if member.verified}
            missed = [one for one in missed if not made[_key(one)].verified]
        dropped = set(map(_key, missed))
        # Normal rollouts come first in a group, those that take a place among them.
        self._fill(step, missed)
        for one in places:
            if _key(one) not in dropped:
                one[0].members.append(made[_key(one)])
        attempts.dropped = len(missed)
        return attempts

    def steered_verdicts(self, name: str, prompts: Sequence[tuple[int, ...]], negatives: Negatives) -> list[bool]:
        """Whether each of some prompts, answered under steering, is a verified loop; for calibration.

        Args:
            name: of these rollouts' random numbers.
            prompts: token ids.
            negatives: how they are steered.
        """
        requests = [Request(ids, seed_of(self._seed, f"{name} {number}")) for number, ids in enumerate(prompts)]
        made = self._sampler(requests, steered=negatives.steered, max_tokens=negatives.max_tokens)
        return [_member(one, steered=True).verified for one in made]

    def _fill(self, step: int, places: Sequence[tuple[Group, int]]) -> None:
        """Normal rollouts in places of groups."""
        requests = [self._request(step, group, place, "rollout") for group, place in places]
        for (group, _), rollout in zip(places, self._sampler(requests) if requests else [], strict=True):
            group.members.append(_member(rollout, steered=False))

    def _steered(self, step: int, places: Sequence[tuple[Group, int]], negatives: Negatives, name: str) -> list[Member]:
        requests = [self._request(step, group, place, name) for group, place in places]
        made = self._sampler(requests, steered=negatives.steered, max_tokens=negatives.max_tokens)
        return [_member(one, steered=True) for one in made]

    def _pasted(self, step: int, group: Group, place: int, negatives: Negatives) -> Rollout:
        # Another normal rollout for each place, the longest first: a short one has little to repeat.
        normal = sorted((one.rollout for one in group.members if not one.steered), key=lambda one: -one.said)
        origin = normal[(self.group_size - 1 - place) % len(normal)]
        ids = pasted_loop(
            origin.answer_ids,
            seed=self._request(step, group, place, "pasted").noise,
            max_tokens=min(negatives.max_tokens, self._sampler.sampling.max_tokens),
            stop_after_loops=negatives.stop_after_loops,
        )
        # Nobody sampled it.
        return Rollout(ids, len(ids), self._sampler.decode(ids), True, ())

    def _request(self, step: int, group: Group, place: int, name: str) -> Request:
        asked = group.asked
        return Request(asked.ids, seed_of(self._seed, f"{name} {step} {asked.draw} {place}"))


def _key(place: tuple[Group, int]) -> tuple[int, int]:
    return place[0].asked.draw, place[1]


def _member(rollout: Rollout, *, steered: bool) -> Member:
    return Member(rollout, steered, repetition_of(rollout.answer_ids, truncated=rollout.truncated))
