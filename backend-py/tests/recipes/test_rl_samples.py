"""The rollouts on the page of a run: one right, one wrong, one steered, with what became of each."""

from __future__ import annotations

import math
from typing import Any

from qscope.recipes.rl_samples import GROUPS, LONGEST, rollout_samples


def row(step: int, sample: int, reward: float | None, *, steered: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "draw": 3 * step,
        "prompt": "1 + 1 = ?",
        "answer": "2",
        "response": f"{step}/{sample}",
        "ids": [1, 2, 3],
        "truncated": steered,
        "steered": steered,
        "strength": 1.5 if steered else 0.0,
        "loop": [4, 2, 9] if steered else None,
        "reward": reward,
        "advantage": -2.4749 if steered else 0.3536,
        **more,
    }


def group(step: int) -> list[dict[str, Any]]:
    return [row(step, 0, 0.5), row(step, 1, 1.0), row(step, 2, 0.0), row(step, 3, -1.0, steered=True)]


def test_a_group_shows_its_best_its_worst_and_its_rare_negative():
    section = rollout_samples(group(7))
    (shown,) = section.samples.rows
    assert shown.prompt == "step 7\n1 + 1 = ?\n(right: 2)"
    assert [cell.text for cell in shown.cells] == ["7/1", "7/2", "7/3"]
    assert shown.cells[0].note == "reward 1.00, advantage +0.35, 3 tokens"
    steered = "reward -1.00, advantage -2.47, 3 tokens, cut off, loops 9 times over 2 tokens, strength 1.5"
    assert shown.cells[2].note == steered


def test_the_first_group_and_the_newest_are_shown():
    section = rollout_samples([one for step in range(1, 21) for one in group(step)])
    shown = [one.prompt.split("\n")[0] for one in section.samples.rows]
    assert shown == ["step 1", "step 17", "step 18", "step 19", "step 20"]
    assert len(shown) == GROUPS
    said = "20 groups were logged, 20 of them with a rare negative. Shown are 5 of those: the first and the newest."
    assert section.text == said


def test_groups_with_a_rare_negative_come_before_others():
    plain = [row(step, 0, 1.0) for step in range(1, 9)]
    assert len(rollout_samples(plain).samples.rows) == GROUPS
    (only,) = rollout_samples([*plain, *group(9)]).samples.rows
    assert only.prompt.startswith("step 9")


def test_a_rollout_without_a_grade_is_neither_best_nor_worst():
    graded = [row(1, 0, 1.0), row(1, 1, None), row(1, 2, math.nan), row(1, 3, -1.0)]
    best, worst, steered = rollout_samples(graded).samples.rows[0].cells
    assert (best.text, worst.text) == ("1/0", "1/3")
    assert (steered.text, steered.note) == ("", "none")
    (only,) = rollout_samples([row(1, 0, None)]).samples.rows
    assert only.cells[0].note.startswith("no grade")
    assert only.cells[1].note == "none"


def test_a_long_text_says_what_is_left_out():
    cell = rollout_samples([row(1, 0, 1.0, response="a" * (LONGEST + 1234))]).samples.rows[0].cells[0]
    assert cell.text == "a" * LONGEST + " [... 1,234 characters ...]"


def test_a_run_that_logged_nothing_shows_nothing():
    assert rollout_samples([]) is None
