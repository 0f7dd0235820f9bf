"""The rollouts of a run that are written down: some groups of some steps, each row with all that decided over it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qscope.posttraining.answered import Answered
from qscope.posttraining.examples import Prompt
from qscope.posttraining.rewards import response_of
from qscope.posttraining.rl_step import MadeStep
from qscope.runs import seed_of
from qscope.runs.lines import JsonLines


class RolloutLog:
    """``rollouts.jsonl``. A run that goes on from a checkpoint neither loses a row nor has one twice.

    Args:
        path: the file.
        every: steps between two entries.
        groups: of each entry, drawn at random.
        seed: of the experiment.
    """

    def __init__(self, path: Path, *, every: int, groups: int, seed: int) -> None:
        self._lines = JsonLines(path)
        self._every, self._groups, self._seed = every, groups, seed

    @property
    def damaged(self) -> int:
        """Lines that hold no row."""
        return self._lines.damaged

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Everything that was written, in order; a group's rollouts stand together."""
        return self._lines.records

    def keep_until(self, step: int) -> None:
        """Drops what was written after a step: those rollouts are made again."""
        self._lines.keep(lambda row: row.get("step", 0) <= step)

    def write(self, made: MadeStep, prompts: Sequence[Prompt], *, strength: float = 0.0) -> None:
        """Adds an entry where one is due.

        Args:
            made: the rollouts of a step.
            prompts: all of them.
            strength: of steering, 0 for none.
        """
        if (made.number - 1) % self._every or not self._groups:
            return
        draw = random.Random(seed_of(self._seed, f"rollout log {made.number}"))
        chosen = sorted(draw.sample(range(len(made.groups)), min(self._groups, len(made.groups))))
        self._lines.append([row for number in chosen for row in self._rows(made, number, prompts, strength)])

    def _rows(self, made: MadeStep, number: int, prompts: Sequence[Prompt], strength: float) -> list[dict[str, Any]]:
        group = made.groups[number]
        prompt = prompts[group.asked.row]
        first = sum(len(one.members) for one in made.groups[:number])
        rows = []
        for place, member in enumerate(group.members):
            scored, loop = made.scored[first + place], member.repetition.loop
            rows.append(
                {
                    "step": made.number,
                    "draw": group.asked.draw,
                    **Answered(prompt.row, place, response_of(prompt, member)).as_row(),
                    "steered": member.steered,
                    "strength": strength if member.steered else 0.0,
                    "endless": member.repetition.endless,
                    "loop": None if loop is None else [loop.start, loop.period, loop.repetitions],
                    "reward": scored.reward,
                    "reward_parts": scored.parts,
                    "not_graded": scored.reasons,
                    "advantage": float(made.advantages.value_PG[number, place]),
                    "teaches": bool(made.teaches_PG[number, place]),
                }
            )
        return rows
