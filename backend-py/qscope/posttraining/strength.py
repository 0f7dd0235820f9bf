"""How strongly to steer: the smallest strength that makes enough rollouts loop, and the curve it was read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qscope.errors import UserError
from qscope.features.intervals import Interval, wilson

AT = "rl.sae_penalty.rare_negative.calibrate"


@dataclass(frozen=True)
class Point:
    """One strength.

    Attributes:
        strength: in median residual norms.
        loops: share of its steered rollouts that are verified loops.
    """

    strength: float
    loops: Interval


@dataclass(frozen=True)
class Calibration:
    """One search.

    Attributes:
        step: optimiser steps done before it.
        points: strengths tried, ascending.
        wanted: share that was to be reached.
        strength: the smallest that reached it; None when none did.
    """

    step: int
    points: tuple[Point, ...]
    wanted: float
    strength: float | None

    def as_dict(self) -> dict[str, Any]:
        """For files."""
        curve = [
            {
                "strength": point.strength,
                "loop_rate": point.loops.value,
                "low": point.loops.low,
                "high": point.loops.high,
                "n": point.loops.n,
            }
            for point in self.points
        ]
        return {"step": self.step, "wanted": self.wanted, "strength": self.strength, "curve": curve}

    def curve(self) -> str:
        """The curve in words: ``0.2: 13 % of 64, 0.4: 88 % of 64``."""
        return ", ".join(f"{point.strength:g}: {point.loops.value:.0%} of {point.loops.n}" for point in self.points)


def calibrate(
    loops_at: Callable[[float], Sequence[bool]], strengths: Sequence[float], wanted: float, *, step: int
) -> Calibration:
    """Tries strengths from the lowest on, and stops at the first that reaches ``wanted``.

    Stronger ones are not tried: they would loop as well, and be further from what the model says by itself.

    Args:
        loops_at: of each steered rollout of a strength, whether it is a verified loop.
        strengths: to be tried.
        wanted: share that must loop.
        step: optimiser steps done.
    """
    points = []
    for strength in sorted(strengths):
        verdicts = loops_at(strength)
        points.append(Point(strength, wilson(sum(verdicts), len(verdicts))))
        if points[-1].loops.value >= wanted:
            return Calibration(step, tuple(points), wanted, strength)
    return Calibration(step, tuple(points), wanted, None)


def refuse_unreached(found: Calibration) -> float:
    """The strength that was found.

    Raises:
        UserError: none makes enough rollouts loop (STEERING_DOES_NOT_LOOP); the sentence shows the curve.
    """
    if found.strength is None:
        raise UserError(
            f"No strength makes {found.wanted:.0%} of the steered rollouts loop ({found.curve()}).",
            remedy="Take other features (`qscope features repetition`), try higher strengths in "
            f"{AT}.strengths, or lower {AT}.loop_rate.",
            reason="STEERING_DOES_NOT_LOOP",
            field=f"{AT}.strengths",
        )
    return found.strength
