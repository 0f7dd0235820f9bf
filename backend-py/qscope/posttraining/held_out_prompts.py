"""What a policy answers to held-out prompts, measured as ``qscope eval`` does: loops, and right answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qscope.features.intervals import NOTHING, Interval, wilson
from qscope.posttraining.examples import Prompt
from qscope.posttraining.grader_pool import GraderPool
from qscope.posttraining.graders import Grader
from qscope.posttraining.groups import Member
from qscope.posttraining.measures import repeats
from qscope.posttraining.repetition import repetition_of
from qscope.posttraining.rewards import response_of
from qscope.posttraining.rollouts import Request, Sampler
from qscope.runs import seed_of

SHARES = ("repeat_ratio", "clipped_ratio", "accuracy")


@dataclass(frozen=True)
class Evaluated:
    """What was found after a step.

    Attributes:
        step: updates done.
        repeat: share of responses that were cut off in a loop.
        clipped: share that was cut off.
        accuracy: share that is right, of those that could be graded; n 0 where nothing asks for answers.
        ungraded: responses that a grader of answers said nothing of.
        repeated_3grams: mean share of 3-grams that occurred before.
    """

    step: int
    repeat: Interval
    clipped: Interval
    accuracy: Interval
    ungraded: int
    repeated_3grams: float

    def numbers(self) -> dict[str, float]:
        """For the log."""
        found = {
            "held_out_repeat_ratio": self.repeat.value,
            "held_out_repeat_low": self.repeat.low,
            "held_out_repeat_high": self.repeat.high,
            "held_out_clipped_ratio": self.clipped.value,
            "held_out_repeated_3grams": self.repeated_3grams,
        }
        if self.accuracy.n:
            found["held_out_accuracy"] = self.accuracy.value
        return found

    def as_dict(self) -> dict[str, Any]:
        """For files and checkpoints."""
        shares = zip(SHARES, (self.repeat, self.clipped, self.accuracy), strict=True)
        return {
            "step": self.step,
            **{name: [one.value, one.low, one.high, one.n] for name, one in shares if one.n},
            "ungraded": self.ungraded,
            "repeated_3grams": self.repeated_3grams,
        }

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Evaluated:
        """What :meth:`as_dict` gave."""
        shares = [Interval(*kept[name]) if name in kept else NOTHING for name in SHARES]
        return cls(kept["step"], *shares, kept["ungraded"], kept["repeated_3grams"])


class HeldOutPrompts:
    """Asks the same prompts with the same random numbers after every so many steps.

    Args:
        prompts: of this rank's share.
        sampler: with the sampling of evaluations.
        pool: grades; not asked where no grader looks at answers.
        graders: of the pool.
        seed: of the experiment.
        gather: joins what every rank holds.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        sampler: Sampler,
        pool: GraderPool,
        graders: Sequence[Grader],
        *,
        seed: int,
        gather: Callable[[Any], list[Any]] = lambda own: [own],
    ) -> None:
        self._prompts, self._sampler, self._pool = list(prompts), sampler, pool
        self._answers = next((place for place, one in enumerate(graders) if one.kind == "answer"), None)
        self._seed, self._gather = seed, gather

    def __call__(self, step: int) -> Evaluated:
        """Answers of the policy as it is. Collective.

        Raises:
            Stopped: when the sampler was asked to stop.
        """
        requests = [Request(one.ids, seed_of(self._seed, f"evaluation {one.row}")) for one in self._prompts]
        made = self._sampler(requests)
        members = [Member(one, False, repetition_of(one.answer_ids, truncated=one.truncated)) for one in made]
        responses = [response_of(prompt, one) for prompt, one in zip(self._prompts, members, strict=True)]
        right: list[bool] = []
        asked = 0
        if self._answers is not None:
            known = [one for one in responses if one.answer.strip()]
            asked = len(known)
            values = [row[self._answers].value for row in self._pool.grade(known)] if known else []
            right = [value > 0 for value in values if value is not None]
        found = repeats(responses)
        counts = (
            len(found.looping),
            sum(one.truncated for one in responses),
            len(responses),
            sum(right),
            len(right),
            asked,
            # The mean of nothing is not a number: a rank may have no prompt of its own.
            found.repeated_3grams * len(responses) if responses else 0.0,
        )
        looping, cut, n, rights, graded, asked, share = map(sum, zip(*self._gather(counts), strict=True))
        return Evaluated(
            step, wilson(looping, n), wilson(cut, n), wilson(rights, graded), asked - graded, share / max(1, n)
        )
