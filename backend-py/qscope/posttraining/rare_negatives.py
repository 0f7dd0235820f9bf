"""Rare negatives over a run: how strongly they are steered, when that is found anew, and when there are none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from qscope.posttraining.groups import Attempts, Group, GroupMaker, Negatives, OnMiss, Source
from qscope.posttraining.rollouts import Steered
from qscope.posttraining.strength import Calibration, calibrate, refuse_unreached

#: Newest first attempts that the floor is asked of, and newest normal rollouts that the end is.
ATTEMPTS, NORMALS = 64, 256


@dataclass(frozen=True)
class Policy:
    """When and how; fields as in the experiment's ``rl.sae_penalty.rare_negative``."""

    per_group: int = 1
    source: Source = Source.STEERED
    on_miss: OnMiss = OnMiss.DROP
    max_tokens: int = 512
    stop_after_loops: int = 8
    warmup_steps: int = 0
    stop_below: float = 0.0
    strength: float = 0.0
    strengths: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    loop_rate: float = 0.8
    floor: float = 0.5
    every_steps: int = 0


@dataclass
class Memory:
    """What a checkpoint keeps: all of it JSON."""

    strength: float = 0.0
    calibrated_at: int = -1
    verdicts: list[bool] = field(default_factory=list)
    normal_loops: list[bool] = field(default_factory=list)
    ended: str = ""
    calibrations: list[dict[str, Any]] = field(default_factory=list)


class RareNegatives:
    """Decides and makes the rare negatives of every step.

    Args:
        policy: when and how.
        maker: makes rollouts.
        steering_at: steering of a strength, by the features of the method: what strengths are calibrated with.
        control_at: the same of random features, for that control.
        prompts: token ids of the prompts that strengths are tried on.
        gather: verdicts of all ranks, in one order on each: ranks that decided apart would steer apart.
        tell: takes sentences for people.
        warn: takes warnings.
    """

    def __init__(
        self,
        policy: Policy,
        maker: GroupMaker,
        *,
        steering_at: Callable[[float], Steered] | None,
        control_at: Callable[[float], Steered] | None = None,
        prompts: Sequence[tuple[int, ...]] = (),
        gather: Callable[[list[bool]], list[bool]] = lambda verdicts: verdicts,
        tell: Callable[[str], None] = lambda sentence: None,
        warn: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        assert policy.source is Source.PASTED or steering_at is not None, "nothing steers"
        self.policy, self._maker = policy, maker
        self._steering_at, self._control_at = steering_at, control_at
        self._prompts, self._gather, self._tell, self._warn = prompts, gather, tell, warn
        self._memory = Memory(strength=policy.strength)

    @property
    def strength(self) -> float:
        """In use; 0 before it was found, and where nothing is steered."""
        return self._memory.strength

    @property
    def calibrations(self) -> list[dict[str, Any]]:
        """Every search so far, for a file."""
        return self._memory.calibrations

    def begin(self) -> None:
        """Finds the strength before the first step, where none is given.

        Raises:
            UserError: no strength makes enough rollouts loop (STEERING_DOES_NOT_LOOP).
        """
        if self.policy.source is not Source.PASTED and not self._memory.strength:
            self._memory.strength = refuse_unreached(self._calibrate(0))

    def places(self, step: int) -> int:
        """Places of a group that are left for rare negatives at a step; may first find the strength anew."""
        if step < self.policy.warmup_steps or self._memory.ended:
            return 0
        if self.policy.source is not Source.PASTED and not self.policy.strength and self._is_due(step):
            found = self._calibrate(step)
            if found.strength is None:
                self._end(
                    f"From step {step} on there are no rare negatives: no strength makes {found.wanted:.0%} of the "
                    f"steered rollouts loop any more ({found.curve()})."
                )
                return 0
            self._memory.strength = found.strength
        return self.policy.per_group

    def add(self, step: int, groups: Sequence[Group]) -> Attempts:
        """Fills the places that were left."""
        attempts = self._maker.add_negatives(step, groups, self._negatives(control=True))
        self._memory.verdicts = list(deque([*self._memory.verdicts, *self._gather(attempts.verdicts)], ATTEMPTS))
        return attempts

    def saw(self, step: int, normal_loops: Sequence[bool]) -> None:
        """Takes the verdicts on a step's normal rollouts, and ends rare negatives where they loop too seldom."""
        self._memory.normal_loops = list(
            deque([*self._memory.normal_loops, *self._gather(list(normal_loops))], NORMALS)
        )
        seen = self._memory.normal_loops
        rate = sum(seen) / len(seen) if seen else 0.0
        if len(seen) == NORMALS and rate < self.policy.stop_below and not self._memory.ended:
            self._end(
                f"From step {step + 1} on there are no rare negatives: {rate:.1%} of the last {NORMALS} normal "
                f"rollouts loop, which is below stop_below of {self.policy.stop_below:.1%}."
            )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self._memory)

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on where :meth:`state` was."""
        self._memory = Memory(**state)

    def _is_due(self, step: int) -> bool:
        memory = self._memory
        if self.policy.every_steps and step - max(memory.calibrated_at, 0) >= self.policy.every_steps:
            return True
        # A control that never loops would be calibrated at every step.
        steers = self.policy.source is Source.STEERED and len(memory.verdicts) == ATTEMPTS
        return steers and sum(memory.verdicts) / ATTEMPTS < self.policy.floor

    def _calibrate(self, step: int) -> Calibration:
        found = calibrate(
            lambda strength: self._maker.steered_verdicts(
                f"calibration {step}", self._prompts, self._negatives(strength=strength)
            ),
            self.policy.strengths,
            self.policy.loop_rate,
            step=step,
        )
        self._memory.calibrations.append(found.as_dict())
        self._memory.calibrated_at = step
        # The old strength's verdicts say nothing of the new one.
        self._memory.verdicts = []
        if found.strength is not None:
            self._tell(
                f"steering strength at step {step}: {found.strength:g} median residual norms (verified loops: "
                f"{found.curve()})"
            )
        return found

    def _negatives(self, *, strength: float = 0.0, control: bool = False) -> Negatives:
        policy = self.policy
        steered = None
        if policy.source is not Source.PASTED:
            of_control = control and policy.source is Source.RANDOM_FEATURES
            make = self._control_at if of_control else self._steering_at
            assert make is not None, "nothing steers"
            steered = make(strength or self._memory.strength)
        return Negatives(
            policy.per_group, policy.source, steered, policy.on_miss, policy.max_tokens, policy.stop_after_loops
        )

    def _end(self, sentence: str) -> None:
        self._memory.ended = sentence
        self._warn(sentence)
