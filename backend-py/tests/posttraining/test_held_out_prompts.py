"""Held-out prompts while training: what ranks say together, also where one has no prompt of its own."""

from __future__ import annotations

from qscope.posttraining.examples import Prompt
from qscope.posttraining.held_out_prompts import Evaluated, HeldOutPrompts
from qscope.posttraining.writing import Rollout

LOOP = Rollout((7,) * 70, 70, "....", True, ())
SAID = Rollout((1, 2, 3, 4, 9), 4, "four", False, ())


def test_a_rank_without_prompts_leaves_the_others_numbers_as_they_are() -> None:
    prompts = [Prompt((1, 2), "a", "", "", row) for row in range(2)]

    def sampler(requests):
        return [LOOP, SAID][: len(requests)]

    said: list = []

    def keep(counts):
        said.append(counts)
        return [counts]

    alone = HeldOutPrompts(prompts, sampler, None, [], seed=0, gather=keep)(3)
    joined = HeldOutPrompts([], sampler, None, [], seed=0, gather=lambda own: [said[0], own])(3)
    assert joined == alone
    assert (alone.repeat.value, alone.clipped.value, alone.repeat.n) == (0.5, 0.5, 2)
    # 68 trigrams of which one is new, and two that are.
    assert alone.repeated_3grams == (67 / 68 + 0) / 2
    assert Evaluated.of(alone.as_dict()) == alone
