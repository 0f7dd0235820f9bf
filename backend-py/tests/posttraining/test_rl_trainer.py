"""The trainer: its gradient by hand, ratios of exactly 1, exemptions, and what its log tells."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qscope.errors import UserError
from qscope.models import load_model
from qscope.posttraining import rl_trainer
from qscope.posttraining.alarms import Alarm
from qscope.posttraining.dapo import Clip, Ratio
from qscope.posttraining.graders import Grader
from qscope.posttraining.groups import Source
from qscope.posttraining.importance import Importance, ImportanceMode
from qscope.posttraining.objective import Objective
from qscope.posttraining.rewards import Overlong
from qscope.posttraining.rl_step import StepSettings
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.posttraining_pb2 import ALARM_ACTION_STOP, ALARM_ACTION_WARN
from tests.posttraining.reinforced import KEPT, PROMPTS, reinforce


def gradients_of(made) -> dict[str, torch.Tensor]:
    """Gradients of the first update, as the optimiser would take them."""
    found: dict[str, torch.Tensor] = {}

    def keep(*_, **__) -> None:
        if not found:
            found.update({name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None})

    made.trainer.callback_handler.callbacks[-1].on_pre_optimizer_step = keep
    made.trainer.train_run()
    return found


def by_hand(model, made, temperature: float = 1.0) -> dict[str, torch.Tensor]:
    """The gradient of -J at ratio 1, rollout by rollout without padding: -(1/N) sum_i A_i sum_t grad log pi."""
    model.zero_grad()
    members = [(group.asked.ids, one) for group in made.groups for one in group.members]
    teaches = made.teaches_PG.flatten().tolist()
    tokens = sum(len(one.rollout.ids) for (_, one), teach in zip(members, teaches, strict=True) if teach)
    advantages = made.advantages.value_PG.flatten().tolist()
    total = 0.0
    for (prompt, one), teach, advantage in zip(members, teaches, advantages, strict=True):
        if not teach:
            continue
        ids = torch.tensor([prompt + one.rollout.ids])
        logits_TV = model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / temperature
        logprob_T = logits_TV.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])
        total = total - advantage * logprob_T.sum() / tokens
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


CASES = {
    "plain": {},
    "rare negatives": {"rare": KEPT},
    "two in a group, apart": {"rare": replace(KEPT, per_group=2), "group_size": 6},
    "warm": {"sampling": Sampling(temperature=0.5, top_p=1, max_tokens=10)},
    "overlong ones filtered": {"rare": KEPT, "settings": StepSettings(3, drop_overlong=True)},
    "soft penalty": {"overlong": Overlong(10, 6)},
    "some ungraded": {"fails": lambda response: len(response.text) % 3 == 0},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("micro_rows", [2, 12])
def test_the_gradient_is_that_of_the_mean_over_the_tokens_of_the_step(case, micro_rows, tiny_folder, tmp_path):
    options = {**CASES[case], "steps": 1, "max_grad_norm": 0.0, "double": True}
    made = reinforce(tiny_folder, tmp_path, micro_rows=micro_rows, **options)
    before = load_model(str(tiny_folder), ModelOptions()).model.double().requires_grad_(True)
    found = gradients_of(made)
    temperature = options["sampling"].temperature if "sampling" in options else 1.0
    expected = by_hand(before, made.made[0], temperature)
    assert set(found) == set(expected)
    assert max(part.abs().max() for part in expected.values()) > 1e-4
    for name, part in expected.items():
        # The trainer's output layer works in float32.
        assert (found[name] - part).norm() <= 1e-5 * part.norm(), name
    if "rare" in case:
        assert made.made[0].steered_PG.any()


def test_on_the_first_update_every_ratio_is_exactly_1_and_later_ones_are_not(tiny_folder, tmp_path, monkeypatch):
    furthest: list[tuple[float, float]] = []
    real = rl_trainer.dapo_loss

    def watched(*args, **kwargs):
        term = real(*args, **kwargs)
        furthest.append((float(term.furthest), float(term.steered_furthest)))
        return term

    monkeypatch.setattr(rl_trainer, "dapo_loss", watched)
    reinforce(tiny_folder, tmp_path, steps=6, iterations=3, rare=KEPT, micro_rows=6).trainer.train_run()
    # Two micro-batches an update, three updates on the same rollouts.
    first, later = furthest[0:2] + furthest[6:8], furthest[2:6] + furthest[8:12]
    assert first == [(0.0, 0.0)] * 4
    assert all(normal > 0 for normal, _ in later)
    assert any(steered > 0 for _, steered in later)


def test_old_log_probabilities_of_steered_tokens_are_those_of_the_unsteered_model(tiny_folder, tmp_path):
    made = reinforce(tiny_folder, tmp_path, iterations=2, rare=KEPT, micro_rows=12)
    made.trainer._begun = 0.0
    [inputs] = made.trainer._generate_and_score_completions([])
    logits_BTV = made.model(input_ids=inputs["ids_BT"]).logits.detach()
    logprob_BT = logits_BTV[:, :-1].log_softmax(-1).gather(2, inputs["ids_BT"][:, 1:, None])[..., 0]
    generated_BT = inputs["generated_BT"]
    assert inputs["steered_B"].sum() == 3
    torch.testing.assert_close(inputs["old_BT"][generated_BT], logprob_BT[generated_BT[:, 1:]], atol=1e-5, rtol=0)


def test_unlikely_steered_tokens_get_no_loss_and_the_others_keep_it(tiny_folder, tmp_path):
    # A random model finds every token of 300 about equally likely.
    least = 1 / 300
    made = reinforce(
        tiny_folder, tmp_path, rare=KEPT, micro_rows=12, objective=Objective(min_token_prob=least), steps=1
    )
    made.trainer._begun = 0.0
    [inputs] = made.trainer._generate_and_score_completions([])
    logits_BTV = made.model(input_ids=inputs["ids_BT"]).logits.detach()
    prob_BT = logits_BTV[:, :-1].softmax(-1).gather(2, inputs["ids_BT"][:, 1:, None])[..., 0]
    prob_BT = torch.nn.functional.pad(prob_BT, (1, 0))
    kept_BT, generated_BT, steered_B1 = inputs["mask_BT"], inputs["generated_BT"], inputs["steered_B"][:, None]
    assert torch.equal(kept_BT, generated_BT & (~steered_B1 | (prob_BT >= least)))
    assert 0 < int((kept_BT & steered_B1).sum()) < int((generated_BT & steered_B1).sum())
    assert inputs["batch"].tokens == int(kept_BT.sum())


def test_behaviour_ratio_divides_by_what_the_steered_sampler_said(tiny_folder, tmp_path):
    made = reinforce(
        tiny_folder, tmp_path, rare=KEPT, micro_rows=12, objective=Objective(ratio=Ratio.BEHAVIOR), steps=1
    )
    made.trainer.train_run()
    before = load_model(str(tiny_folder), ModelOptions()).model
    gap, tokens = 0.0, 0
    for group in made.made[0].groups:
        for one in group.members:
            if one.steered:
                ids = torch.tensor([group.asked.ids + one.rollout.ids])
                logits_TV = before(input_ids=ids).logits[0, len(group.asked.ids) - 1 : -1].double()
                plain_T = logits_TV.log_softmax(-1).gather(1, ids[0, len(group.asked.ids) :, None])[:, 0]
                gap += float(plain_T.sum()) - sum(one.rollout.logprobs)
                tokens += len(one.rollout.ids)
    assert abs(gap) > 1e-3
    assert made.context.series("steered_gap")[1] == pytest.approx(gap / tokens, rel=1e-3)


@pytest.mark.parametrize("mode", [ImportanceMode.TOKEN_TRUNCATE, ImportanceMode.SEQUENCE_MASK])
def test_importance_correction_exempts_steered_rows(mode, tiny_folder, tmp_path):
    def gradient(folder, **options):
        return gradients_of(reinforce(tiny_folder, folder, rare=KEPT, steps=1, max_grad_norm=0.0, **options))

    plain = gradient(tmp_path / "plain")
    # One process samples and trains: the weights of normal rows are 1 up to rounding, those of steered ones exactly.
    corrected = gradient(tmp_path / "corrected", objective=Objective(importance=Importance(mode, 3.0)))
    for name, part in plain.items():
        torch.testing.assert_close(corrected[name], part, atol=1e-6, rtol=1e-3)


def test_the_log_tells_normal_and_steered_apart(tiny_folder, tmp_path):
    made = reinforce(tiny_folder, tmp_path, rare=KEPT, steps=2)
    made.trainer.train_run()
    step = made.made[1]
    rows = [one for group in step.groups for one in group.members]
    pairs = list(zip(rows, step.scored, step.advantages.value_PG.flatten().tolist(), strict=True))

    def mean(values) -> float:
        values = list(values)
        return sum(values) / len(values)

    logged = {name: made.context.series(name)[2] for name in made.context.metrics_seen[-1][1]}
    assert logged["reward"] == pytest.approx(mean(score.reward for row, score, _ in pairs if not row.steered))
    assert logged["steered_reward"] == pytest.approx(mean(score.reward for row, score, _ in pairs if row.steered))
    assert logged["steered_advantage"] == pytest.approx(mean(value for row, _, value in pairs if row.steered))
    assert logged["completion_length"] == mean(len(row.rollout.ids) for row in rows if not row.steered)
    assert logged["clipped_ratio"] == mean(row.rollout.truncated for row in rows if not row.steered)
    tokens = {kind: sum(len(row.rollout.ids) for row in rows if row.steered is kind) for kind in (True, False)}
    assert logged["steered_token_share"] == pytest.approx(tokens[True] / (tokens[True] + tokens[False]))
    pulls = {kind: sum(abs(v) * len(r.rollout.ids) for r, _, v in pairs if r.steered is kind) for kind in (True, False)}
    assert logged["steered_pull_share"] == pytest.approx(pulls[True] / (pulls[True] + pulls[False]))
    assert logged["steered_loop_rate"] == 0
    assert logged["steering_strength"] == 2.0
    expected = {"loss", "grad_norm", "learning_rate", "entropy", "repeat_ratio", "frac_reward_zero_std", "reward_std"}
    expected |= {"seconds_generation", "seconds_grading", "seconds_training", "tokens_per_second", "reward_letter"}
    assert expected <= set(logged)
    assert logged["tokens"] == sum(len(one.rollout.ids) for s in made.made for g in s.groups for one in g.members)
    # Languages of these prompts are not known.
    assert "cs_ratio" not in logged


def test_dynamic_sampling_decides_on_the_normal_rows(tiny_folder, tmp_path):
    # One grader of nothing but the prompt's parity: half of the groups have one reward.
    graders = [Grader("letter", "regex", pattern="[a-g]")]
    made = reinforce(
        tiny_folder,
        tmp_path,
        rare=KEPT,
        steps=2,
        graders=graders,
        sampling=Sampling(temperature=1, top_p=1, max_tokens=4, ignore_end=True),
        settings=StepSettings(3, rounds=10),
    )
    made.trainer.train_run()
    for step in made.made:
        assert not step.advantages.normal_zero_std_P.any()
        assert step.rounds > 1 or len({group.asked.draw for group in step.groups}) == 3
    assert any(step.rounds > 1 for step in made.made)
    # Where no group differs, the step goes on after the last round with those that it has.
    flat = reinforce(
        tiny_folder,
        tmp_path / "flat",
        steps=1,
        graders=[Grader("none", "regex", pattern="never said")],
        settings=StepSettings(3, rounds=4),
    )
    flat.trainer.train_run()
    assert flat.made[0].rounds == 4
    assert len(flat.made[0].groups) == 3
    assert flat.context.series("frac_reward_zero_std")[1] == 1


def alarm(name: str, action: int = ALARM_ACTION_STOP) -> Alarm:
    return Alarm(name, action, 1, "Seen", "Mend it.")


FLAT = [Grader("none", "regex", pattern="never said")]
ALARMED = {
    "zero_reward_std": {"graders": FLAT},
    "all_truncated": {"sampling": Sampling(temperature=1, top_p=1, max_tokens=6, ignore_end=True)},
    "dead_signal": {"rare": KEPT},
    "grader_failures": {"fails": lambda response: True, "grader_failure_share": 0.2},
    "collapse": {"sampling": Sampling(temperature=1e-4, top_p=1, max_tokens=100, ignore_end=True)},
}


@pytest.mark.parametrize("name", ALARMED)
def test_alarms_stop_the_run_or_warn(name, tiny_folder, tmp_path):
    made = reinforce(tiny_folder, tmp_path / "stop", alarms=[alarm(name)], **ALARMED[name])
    with pytest.raises(UserError) as error:
        made.trainer.train_run()
    assert error.value.reason == f"ALARM_{name.upper()}"
    assert made.trainer.state.global_step == 1
    assert [path.name for path in (tmp_path / "stop" / "checkpoints").iterdir()] == ["step-000000001"]
    warned = reinforce(tiny_folder, tmp_path / "warn", alarms=[alarm(name, ALARM_ACTION_WARN)], **ALARMED[name])
    assert warned.trainer.train_run() == 3
    assert len(warned.context.said) == 1
    enough = Sampling(temperature=1, top_p=1, max_tokens=200)
    quiet = reinforce(tiny_folder, tmp_path / "quiet", alarms=[alarm(name)], steps=1, sampling=enough)
    assert quiet.trainer.train_run() == 1


def test_rollouts_that_cannot_be_graded_take_no_part_and_are_counted(tiny_folder, tmp_path):
    made = reinforce(tiny_folder, tmp_path, steps=1, fails=lambda response: len(response.text) % 2 == 0)
    made.trainer.train_run()
    step = made.made[0]
    failed = [len(one.rollout.text) % 2 == 0 for group in step.groups for one in group.members]
    assert 0 < sum(failed) < len(failed)
    assert made.context.series("frac_ungraded")[1] == sum(failed) / len(failed)
    assert made.context.series("failed_letter")[1] == sum(failed) / len(failed)
    assert (~step.teaches_PG.flatten()).tolist() == failed
    assert all(
        score.reasons == ({"letter": "raised", "repetition": "raised"} if bad else {})
        for score, bad in zip(step.scored, failed, strict=True)
    )


def test_a_dual_clip_and_bounds_reach_the_objective(tiny_folder, tmp_path):
    def weights(folder, clip):
        made = reinforce(tiny_folder, folder, steps=4, iterations=4, objective=Objective(clip=clip), learning_rate=0.1)
        made.trainer.train_run()
        return made.weights()

    loose = weights(tmp_path / "a", Clip(0.9, 50.0, None))
    assert loose != weights(tmp_path / "b", Clip(0.01, 0.01, None))


def test_pasted_loops_need_no_steering(tiny_folder, tmp_path):
    made = reinforce(
        tiny_folder,
        tmp_path,
        steps=1,
        rare=replace(KEPT, source=Source.PASTED, max_tokens=70, strength=0.0),
        sampling=Sampling(temperature=1, top_p=1, max_tokens=70, ignore_end=True),
    )
    made.trainer.train_run()
    assert made.context.series("steered_loop_rate")[1] == 1
    assert "steering_strength" not in made.context.metrics_seen[-1][1]
    assert len(PROMPTS) > 3
