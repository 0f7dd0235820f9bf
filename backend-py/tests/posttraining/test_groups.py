"""Groups with rare negatives: who stands where, what happens to those that do not loop, and when there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from qscope.errors import UserError
from qscope.posttraining.groups import Asked, GroupMaker, Negatives, OnMiss, Source
from qscope.posttraining.pasted import pasted_loop
from qscope.posttraining.rare_negatives import ATTEMPTS, NORMALS, Policy, RareNegatives
from qscope.posttraining.repetition import repetition_of
from qscope.posttraining.rollouts import Request, Sampler, Steered
from qscope.posttraining.strength import calibrate, refuse_unreached
from qscope.posttraining.writing import Rollout
from qscope.v1.generation_pb2 import Sampling

FREE = Sampling(temperature=1, top_p=1, max_tokens=128, ignore_end=True)
ASKED = [Asked(10, 3, (40, 41)), Asked(11, 4, (90,)), Asked(12, 5, (7, 8))]
LOOP = tuple([1, 2, 3, 4] * 20)
PLAIN = tuple(range(100, 180))


class Scripted(Sampler):
    """A sampler whose steered rollouts loop when ``loops`` says so; it keeps what it was asked."""

    def __init__(self, loops: Callable[[int], bool] = lambda number: True) -> None:
        self.sampling, self._loops = FREE, loops
        self.normal: list[Request] = []
        self.steered: list[Request] = []

    def __call__(
        self, requests: Sequence[Request], *, steered: Steered | None = None, max_tokens: int = 0
    ) -> list[Rollout]:
        if steered is None:
            self.normal += requests
            return [self._made(PLAIN) for _ in requests]
        first = len(self.steered)
        self.steered += requests
        return [self._made(LOOP if self._loops(first + number) else PLAIN) for number in range(len(requests))]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def _made(self, ids: tuple[int, ...]) -> Rollout:
        return Rollout(ids, len(ids), "", True, (-1.0,) * len(ids))


STEERED = Steered(spec=None, saes=None, stop_after_loops=8)  # type: ignore[arg-type]


def negatives(**changes) -> Negatives:
    made = {
        "per_group": 1,
        "source": Source.STEERED,
        "steered": STEERED,
        "on_miss": OnMiss.DROP,
        "max_tokens": 96,
        "stop_after_loops": 8,
    }
    return Negatives(**{**made, **changes})


def filled(sampler: Sampler, wanted: Negatives, group_size: int = 4, step: int = 2):
    maker = GroupMaker(sampler, seed=1, group_size=group_size)
    groups = maker.normal(step, ASKED, leave=wanted.per_group)
    return groups, maker.add_negatives(step, groups, wanted)


def test_one_of_a_group_is_steered_and_all_have_random_numbers_of_their_own():
    sampler = Scripted()
    groups, attempts = filled(sampler, negatives())
    assert [[one.steered for one in group.members] for group in groups] == [[False] * 3 + [True]] * 3
    assert all(group.members[-1].verified for group in groups)
    assert attempts.verdicts == [True] * 3
    noise = [one.noise for one in sampler.normal + sampler.steered]
    assert len(set(noise)) == len(noise) == 12


def test_random_numbers_depend_on_step_draw_and_place_alone():
    def noise(asked, step=2, size=4):
        sampler = Scripted()
        GroupMaker(sampler, seed=1, group_size=size).normal(step, asked)
        return [one.noise for one in sampler.normal]

    assert noise(ASKED)[4:8] == noise([ASKED[1]])
    assert noise(ASKED, step=3) != noise(ASKED)
    # A larger group begins with the same rollouts.
    assert noise([ASKED[0]], size=6)[:4] == noise([ASKED[0]])


def test_a_miss_is_replaced_by_a_normal_rollout():
    sampler = Scripted(lambda number: number != 1)
    groups, attempts = filled(sampler, negatives())
    assert [sum(one.steered for one in group.members) for group in groups] == [1, 0, 1]
    assert all(len(group.members) == 4 for group in groups)
    assert (attempts.verdicts, attempts.dropped) == ([True, False, True], 1)
    assert len(sampler.normal) == 3 * 3 + 1


def test_a_miss_is_drawn_once_more_and_then_dropped():
    sampler = Scripted(lambda number: number not in (0, 1, 4))
    groups, attempts = filled(sampler, negatives(on_miss=OnMiss.RESAMPLE))
    # The second tries of the first two groups are number 3, which loops, and number 4, which does not.
    assert [sum(one.steered for one in group.members) for group in groups] == [1, 0, 1]
    assert (attempts.verdicts, attempts.dropped) == ([False, False, True], 1)
    assert len({one.noise for one in sampler.steered}) == 5


def test_a_miss_is_kept_when_that_is_wanted_and_by_the_control():
    for changes in ({"on_miss": OnMiss.KEEP}, {"source": Source.RANDOM_FEATURES}):
        groups, attempts = filled(Scripted(lambda number: False), negatives(**changes))
        assert all(group.members[-1].steered and not group.members[-1].verified for group in groups)
        assert (attempts.verdicts, attempts.dropped) == ([False] * 3, 0)


def test_several_in_a_group_and_normal_rollouts_come_first():
    groups, _ = filled(Scripted(lambda number: number % 2 == 1), negatives(per_group=2), group_size=5)
    assert [[one.steered for one in group.members] for group in groups] == [[False] * 4 + [True]] * 3


def test_pasted_loops_are_verified_loops_made_of_a_normal_rollout():
    sampler = Scripted()
    groups, attempts = filled(sampler, negatives(source=Source.PASTED, steered=None))
    assert attempts.verdicts == [True] * 3
    assert not sampler.steered
    for group in groups:
        pasted = group.members[-1]
        assert pasted.steered
        assert set(pasted.rollout.ids) <= set(PLAIN)
        assert len(pasted.rollout.ids) <= 96
        assert pasted.rollout.logprobs == ()
    assert len({group.members[-1].rollout.ids for group in groups}) > 1


@pytest.mark.parametrize("length", [1, 3, 30, 200])
@pytest.mark.parametrize("limit", [70, 128, 512])
@pytest.mark.parametrize("loops", [0, 8])
def test_a_pasted_loop_begins_as_the_rollout_and_loops(length, limit, loops):
    ids = tuple(range(length))
    for seed in range(20):
        made = pasted_loop(ids, seed=seed, max_tokens=limit, stop_after_loops=loops)
        found = repetition_of(made, truncated=True)
        assert found.endless
        assert len(made) <= limit
        assert loops or len(made) == limit
        assert made[: found.loop.start + found.loop.period] == ids[: found.loop.start + found.loop.period]
    assert pasted_loop((), seed=0, max_tokens=limit, stop_after_loops=loops) == ()


# -- strength ------------------------------------------------------------------------------------------------------


def test_the_smallest_strength_that_reaches_the_rate_is_taken_and_no_stronger_one_is_tried():
    tried = []

    def loops_at(strength: float) -> list[bool]:
        tried.append(strength)
        return [number < 10 * strength for number in range(10)]

    found = calibrate(loops_at, [0.9, 0.2, 0.8, 0.5], 0.8, step=7)
    assert found.strength == 0.8
    assert tried == [0.2, 0.5, 0.8]
    curve = found.as_dict()["curve"]
    assert [(one["strength"], one["loop_rate"], one["n"]) for one in curve] == [
        (0.2, 0.2, 10),
        (0.5, 0.5, 10),
        (0.8, 0.8, 10),
    ]
    assert all(one["low"] < one["loop_rate"] < one["high"] for one in curve)


def test_when_no_strength_reaches_the_rate_the_refusal_shows_the_curve():
    found = calibrate(lambda strength: [False, strength > 1], [0.5, 2.0], 0.8, step=0)
    with pytest.raises(UserError) as error:
        refuse_unreached(found)
    assert error.value.reason == "STEERING_DOES_NOT_LOOP"
    assert "0.5: 0% of 2, 2: 50% of 2" in error.value.message


# -- over a run ----------------------------------------------------------------------------------------------------


def run_of(policy: Policy, loops: Callable[[int], bool] = lambda number: True, **more):
    sampler = Scripted(loops)
    strengths: list[float] = []

    def steering_at(strength: float) -> Steered:
        strengths.append(strength)
        return STEERED

    maker = GroupMaker(sampler, seed=1, group_size=4)
    return (
        RareNegatives(policy, maker, steering_at=steering_at, prompts=[(1,)] * 8, **more),
        maker,
        sampler,
        strengths,
    )


def one_step(rare: RareNegatives, maker: GroupMaker, step: int) -> int:
    places = rare.places(step)
    groups = maker.normal(step, ASKED, leave=places)
    if places:
        rare.add(step, groups)
    return places


def test_the_strength_is_found_before_the_first_step_and_not_where_it_is_given():
    rare, _, sampler, strengths = run_of(Policy(strengths=(0.3, 0.1)))
    rare.begin()
    assert rare.strength == 0.1
    assert strengths == [0.1]
    assert len(sampler.steered) == 8
    given, _, sampler, _ = run_of(Policy(strength=0.7))
    given.begin()
    assert given.strength == 0.7
    assert not sampler.steered


def test_below_the_floor_the_strength_is_found_anew_and_a_checkpoint_knows_all_of_it():
    said: list[str] = []
    # The calibration's eight loop; of the attempts after it one in three does.
    state = {"all": True}
    rare, maker, _, _ = run_of(
        Policy(strengths=(0.1, 0.2), floor=0.5), lambda number: state["all"] or number % 3 == 0, tell=said.append
    )
    rare.begin()
    state["all"] = False
    steps = 0
    while len(rare.calibrations) == 1:
        state["all"] = len(rare.state()["verdicts"]) == ATTEMPTS
        one_step(rare, maker, steps)
        steps += 1
        assert steps < 40
    # 64 attempts, three a step, then one calibration; the window begins anew.
    assert steps == 23
    assert rare.calibrations[1]["step"] == 22
    assert len(rare.state()["verdicts"]) == 3
    assert len(said) == 2
    other, _, _, _ = run_of(Policy(strengths=(0.1, 0.2)))
    other.load_state(rare.state())
    assert other.state() == rare.state()
    assert other.strength == rare.strength


def test_it_is_found_anew_every_so_many_steps():
    rare, maker, _, _ = run_of(Policy(strengths=(0.1,), every_steps=3))
    rare.begin()
    for step in range(8):
        one_step(rare, maker, step)
    assert [one["step"] for one in rare.calibrations] == [0, 3, 6]


def test_when_nothing_loops_any_more_rare_negatives_end_with_a_warning():
    warned: list[str] = []
    state = {"loops": True}
    rare, maker, _, _ = run_of(
        Policy(strengths=(0.1, 0.2), every_steps=2), lambda number: state["loops"], warn=warned.append
    )
    rare.begin()
    assert one_step(rare, maker, 0) == 1
    state["loops"] = False
    assert one_step(rare, maker, 2) == 0
    assert one_step(rare, maker, 3) == 0
    assert len(warned) == 1
    assert "0.1: 0% of 8, 0.2: 0% of 8" in warned[0]


def test_there_are_none_during_the_warm_up_and_after_loops_have_become_rare():
    rare, maker, _, _ = run_of(Policy(strength=0.5, warmup_steps=2, stop_below=0.1), warn=lambda sentence: None)
    rare.begin()
    assert [one_step(rare, maker, step) for step in range(4)] == [0, 0, 1, 1]
    rare.saw(3, [False] * (NORMALS - 1))
    assert rare.places(4) == 1
    rare.saw(4, [False])
    assert rare.places(5) == 0


def test_a_control_of_random_features_uses_the_strength_of_the_method():
    control: list[float] = []

    def control_at(strength: float) -> Steered:
        control.append(strength)
        return STEERED

    rare, maker, _, strengths = run_of(
        Policy(source=Source.RANDOM_FEATURES, strengths=(0.1, 0.4)), control_at=control_at
    )
    rare.begin()
    assert (strengths, control) == ([0.1], [])
    for step in range(30):
        one_step(rare, maker, step)
    assert set(control) == {0.1}
    assert len(rare.calibrations) == 1


def test_ranks_decide_by_the_verdicts_of_all():
    rare, maker, _, _ = run_of(Policy(strength=0.5), gather=lambda verdicts: [*verdicts, *([False] * len(verdicts))])
    one_step(rare, maker, 0)
    assert rare.state()["verdicts"] == [True] * 3 + [False] * 3
