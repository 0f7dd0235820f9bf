"""DAPO's objective against a plain loop, its clips and ratios, and what its gradient must not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from qscope.errors import UserError
from qscope.posttraining.dapo import Clip, Ratio, Rollouts, dapo_loss, entry_mask, token_logprobs
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.overlong import overlong_filter, soft_overlong_penalty, steered_limit

CLIP = Clip(0.2, 0.28, 10.0)


def term_of(logprob, old, advantage, *, steered=False, ratio=Ratio.UNSTEERED, clip=CLIP, behavior=None):
    """One rollout of one token."""
    logprob_BT = torch.tensor([[logprob]], dtype=torch.float64, requires_grad=True)

    def one(value):
        return None if value is None else torch.tensor([[value]], dtype=torch.float64)

    mask_BT = torch.ones(1, 1, dtype=torch.bool)
    rollouts = Rollouts(torch.tensor([advantage]), mask_BT, torch.tensor([steered]), one(old), one(behavior))
    term = dapo_loss(logprob_BT, rollouts, GlobalBatch.of([mask_BT]), clip=clip, ratio=ratio)
    term.loss.backward()
    return term, logprob_BT.grad.item()


# The objective J of one token by its ratio r and advantage A, and dJ / d log pi. Bounds 0.8, 1.28, dual clip 10.
GOLDEN = [
    (1.0, 2.0, 2.0, 2.0),
    (1.25, 2.0, 2.5, 2.5),
    (1.5, 2.0, 2.56, 0.0),
    (0.5, 2.0, 1.0, 1.0),
    (1.0, -2.0, -2.0, -2.0),
    (1.5, -2.0, -3.0, -3.0),
    (0.5, -2.0, -1.6, 0.0),
    (8.0, -2.0, -16.0, -16.0),
    (16.0, -2.0, -20.0, 0.0),
    (1.25, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("r", "advantage", "objective", "slope"), GOLDEN)
@pytest.mark.parametrize("steered", [False, True])
def test_golden_values(r, advantage, objective, slope, steered):
    term, gradient = term_of(math.log(r) - 3, -3.0, advantage, steered=steered)
    assert -term.loss.item() == pytest.approx(objective, abs=1e-12)
    assert -gradient == pytest.approx(slope, abs=1e-12)


def test_clip_higher_is_the_upper_bound_alone():
    for r, slope in [(1.25, 1.25), (1.3, 0.0), (0.75, 0.75)]:
        assert -term_of(math.log(r), 0.0, 1.0)[1] == pytest.approx(slope)
    for r, slope in [(0.75, 0.0), (0.85, -0.85), (1.3, -1.3)]:
        assert -term_of(math.log(r), 0.0, -1.0)[1] == pytest.approx(slope)


def test_without_a_dual_clip_a_negative_advantage_is_unbounded():
    term, gradient = term_of(math.log(16), 0.0, -2.0, clip=Clip(0.2, 0.28, None))
    assert (-term.loss.item(), -gradient) == (pytest.approx(-32), pytest.approx(-32))


def test_what_the_clips_keep_from_teaching_is_counted():
    def counts(*arguments, **options):
        term, _ = term_of(*arguments, **options)
        names = ("clipped_low", "clipped_high", "clipped_dual", "steered_clipped")
        return [int(getattr(term, name)) for name in names]

    assert counts(math.log(0.5), 0.0, -1.0) == [1, 0, 0, 0]
    assert counts(math.log(0.5), 0.0, 1.0) == [0, 0, 0, 0]
    assert counts(math.log(2), 0.0, 1.0) == [0, 1, 0, 0]
    assert counts(math.log(2), 0.0, -1.0) == [0, 0, 0, 0]
    assert counts(math.log(11), 0.0, -1.0) == [0, 0, 1, 0]
    assert counts(math.log(0.5), 0.0, -1.0, steered=True) == [0, 0, 0, 1]


def random_rollouts(seed: int = 0, rows: int = 6, width: int = 7):
    noise = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=noise, dtype=torch.float64)

    old_BT, behavior_BT = normal(rows, width) - 3, normal(rows, width) - 1
    logprob_BT = (old_BT + 0.4 * normal(rows, width)).requires_grad_()
    mask_BT = torch.rand(rows, width, generator=noise) < 0.7
    steered_B = torch.arange(rows) % 3 == 2
    return logprob_BT, Rollouts(normal(rows), mask_BT, steered_B, old_BT, behavior_BT)


def reference(logprob_BT, rollouts, clip, ratio):
    """J and dJ / d log pi, one token at a time."""
    total, slopes, count = 0.0, torch.zeros_like(logprob_BT), int(rollouts.mask_BT.sum())
    for b in range(len(logprob_BT)):
        a, steered = float(rollouts.advantage_B[b]), bool(rollouts.steered_B[b])
        for t in range(logprob_BT.shape[1]):
            if not rollouts.mask_BT[b, t]:
                continue
            behavior = ratio is Ratio.BEHAVIOR and steered
            old = float((rollouts.behavior_BT if behavior else rollouts.old_BT)[b, t])
            r = math.exp(float(logprob_BT[b, t]) - old)
            if behavior and a < 0:
                value = slope = min(r, 1.0) * a
            elif a >= 0:
                value, slope = (r * a, r * a) if r <= 1 + clip.high else ((1 + clip.high) * a, 0.0)
            elif r < 1 - clip.low:
                value, slope = (1 - clip.low) * a, 0.0
            elif r > clip.dual:
                value, slope = clip.dual * a, 0.0
            else:
                value = slope = r * a
            total += value
            slopes[b, t] = slope
    return total / count, slopes / count


@pytest.mark.parametrize("ratio", list(Ratio))
@pytest.mark.parametrize("seed", range(3))
def test_any_rollouts_equal_the_definition(ratio, seed):
    logprob_BT, rollouts = random_rollouts(seed)
    clip = Clip(0.2, 0.28, 1.5)
    term = dapo_loss(logprob_BT, rollouts, GlobalBatch.of([rollouts.mask_BT]), clip=clip, ratio=ratio)
    term.loss.backward()
    wanted, slopes = reference(logprob_BT.detach(), rollouts, clip, ratio)
    assert -term.loss.item() == pytest.approx(wanted, rel=1e-12)
    torch.testing.assert_close(-logprob_BT.grad, slopes, rtol=1e-12, atol=1e-14)
    steered_BT = rollouts.mask_BT & rollouts.steered_B[:, None]
    assert int(term.steered_tokens) == int(steered_BT.sum())
    gap = (logprob_BT.detach() - rollouts.behavior_BT)[steered_BT].sum()
    assert term.steered_gap.item() == pytest.approx(float(gap))


def test_against_the_sampler_a_rare_negative_would_have_no_gradient_and_is_tapered():
    # Unsteered -9, steered -1: the ratio is e^-8, below every clip.
    assert term_of(-9.0, -1.0, -2.0)[1] == 0.0
    term, gradient = term_of(-9.0, None, -2.0, steered=True, ratio=Ratio.BEHAVIOR, behavior=-1.0)
    assert gradient == pytest.approx(2 * math.exp(-8))
    assert term.steered_gap.item() == pytest.approx(-8)
    # Likelier than under the sampler: the weight ends at 1.
    assert term_of(-1.0, None, -2.0, steered=True, ratio=Ratio.BEHAVIOR, behavior=-9.0)[1] == pytest.approx(2)
    # One that turned out well is clipped like any other.
    for r, slope in [(1.25, 2.5), (1.5, 0.0)]:
        good = term_of(math.log(r) - 3, None, 2.0, steered=True, ratio=Ratio.BEHAVIOR, behavior=-3.0)
        assert -good[1] == pytest.approx(slope)
    # A normal rollout does not look at it.
    assert term_of(-9.0, -9.0, -2.0, ratio=Ratio.BEHAVIOR, behavior=-1.0)[1] == pytest.approx(2)


def test_the_mean_is_over_the_tokens_of_the_whole_step():
    logprob_BT, rollouts = random_rollouts()
    whole = GlobalBatch.of([rollouts.mask_BT])
    dapo_loss(logprob_BT, rollouts, whole, clip=CLIP).loss.backward()
    wanted, logprob_BT.grad = logprob_BT.grad, None
    parts = [[0], [1, 2, 3], [4, 5]]
    batch = GlobalBatch.of([rollouts.mask_BT[index] for index in parts], micro_batches=3)
    assert batch.tokens == whole.tokens
    for index in parts:
        part = Rollouts(
            rollouts.advantage_B[index], rollouts.mask_BT[index], rollouts.steered_B[index], rollouts.old_BT[index]
        )
        (dapo_loss(logprob_BT[index], part, batch, clip=CLIP).loss / 3).backward()
    torch.testing.assert_close(logprob_BT.grad, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf, 1e4])
def test_what_stands_at_padding_does_not_matter(rubbish):
    logprob_BT, rollouts = random_rollouts()
    clean = dapo_loss(logprob_BT, rollouts, GlobalBatch.of([rollouts.mask_BT]), clip=CLIP).loss
    dirty_BT = torch.where(rollouts.mask_BT, rollouts.old_BT, rubbish)
    dirty = Rollouts(rollouts.advantage_B, rollouts.mask_BT, rollouts.steered_B, dirty_BT, dirty_BT)
    for ratio in Ratio:
        logprob_BT = torch.where(rollouts.mask_BT, logprob_BT.detach(), rubbish).requires_grad_()
        term = dapo_loss(logprob_BT, dirty, GlobalBatch.of([rollouts.mask_BT]), clip=CLIP, ratio=ratio)
        term.loss.backward()
        assert logprob_BT.grad.isfinite().all()
        assert not logprob_BT.grad[~rollouts.mask_BT].any()
        if ratio is Ratio.UNSTEERED:
            assert term.loss.item() == clean.item()


def test_a_ratio_that_overflows_has_a_finite_gradient():
    term, gradient = term_of(0.0, -2000.0, -1.0)
    assert (-term.loss.item(), gradient) == (-10.0, 0.0)


def logprobs_of(trained, rows):
    logits_BTV = trained.model(rows.ids_BT, attention_mask=rows.mask_BT.long(), use_cache=False).logits
    return token_logprobs(logits_BTV, rows.ids_BT)


def test_the_ratio_is_exactly_one_at_the_first_update_and_not_at_the_second(trained, rows):
    steered_B = torch.arange(8) % 4 == 3
    advantage_B = torch.where(steered_B, -2.0, 0.5)
    batch = GlobalBatch.of([rows.answer_BT])
    with torch.no_grad():
        old_BT = logprobs_of(trained, rows)
    # Old log-probabilities left out, or from a pass of the unsteered model over the same rows, steered ones among them.
    for old in (None, old_BT):
        term = dapo_loss(
            logprobs_of(trained, rows), Rollouts(advantage_B, rows.answer_BT, steered_B, old), batch, clip=CLIP
        )
        assert (term.furthest.item(), term.steered_furthest.item()) == (0.0, 0.0)
        counts_B = rows.answer_BT.sum(1)
        assert term.loss.item() == pytest.approx(-float((advantage_B * counts_B).sum() / counts_B.sum()), rel=1e-6)
        assert int(term.steered_clipped) == 0
    trained.model.zero_grad()
    term.loss.backward()
    assert trained.gradients()["lm_head.weight"].any()
    torch.optim.SGD(trained.model.parameters(), lr=0.5).step()
    again = dapo_loss(
        logprobs_of(trained, rows), Rollouts(advantage_B, rows.answer_BT, steered_B, old_BT), batch, clip=CLIP
    )
    assert again.furthest.item() > 1e-3
    assert again.steered_furthest.item() > 1e-3
    # The step went where it should: steered rows became less likely, normal ones likelier.
    with torch.no_grad():
        moved_B = torch.where(rows.answer_BT, logprobs_of(trained, rows) - old_BT, 0.0).sum(1)
    assert moved_B[steered_B].sum() < 0 < moved_B[~steered_B].sum()


def test_token_logprobs_equal_the_definition():
    noise = torch.Generator().manual_seed(2)
    logits_BTV = torch.randn(2, 5, 11, generator=noise, dtype=torch.float64)
    ids_BT = torch.randint(0, 11, (2, 5), generator=noise)
    found_BT = token_logprobs(logits_BTV, ids_BT, temperature=0.7)
    assert found_BT[:, 0].tolist() == [0.0, 0.0]
    for b in range(2):
        for t in range(1, 5):
            scores = [score / 0.7 for score in logits_BTV[b, t - 1].tolist()]
            wanted = scores[ids_BT[b, t]] - math.log(math.fsum(map(math.exp, scores)))
            assert found_BT[b, t].item() == pytest.approx(wanted, rel=1e-12)
    assert token_logprobs(logits_BTV.bfloat16(), ids_BT).dtype == torch.float32


def test_only_the_entry_of_a_steered_loop_is_masked():
    old_BT = torch.tensor([[1e-6, 0.5, 1e-4], [1e-6, 0.5, 1e-4]]).log()
    keep_BT = entry_mask(old_BT, torch.tensor([True, False]), 9e-5)
    assert keep_BT.tolist() == [[False, True, True], [True, True, True]]
    assert entry_mask(old_BT, torch.tensor([True, False]), 0.0).all()


@pytest.mark.parametrize("bounds", [(0.0, 0.28, 10), (1.0, 0.28, 10), (0.2, 0.0, 10), (0.2, 0.28, 1.0)])
def test_bounds_that_bound_nothing_are_refused(bounds):
    with pytest.raises(UserError) as caught:
        Clip(*bounds)
    assert caught.value.reason == "CLIP_BOUNDS"


def test_the_soft_overlong_penalty():
    length_B = torch.tensor([1, 16384, 16385, 18432, 20480, 20481, 40000])
    found = soft_overlong_penalty(length_B, longest=20480, cache=4096).tolist()
    assert found == [0.0, 0.0, -1 / 4096, -0.5, -1.0, -1.0, -1.0]
    assert soft_overlong_penalty(torch.tensor([10, 11]), longest=10, cache=0).tolist() == [0.0, -1.0]
    for cache in (-1, 11):
        with pytest.raises(UserError) as caught:
            soft_overlong_penalty(length_B, longest=10, cache=cache)
        assert caught.value.reason == "OVERLONG_CACHE"


def test_the_overlong_filter_keeps_rare_negatives():
    truncated_B, steered_B = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    assert overlong_filter(truncated_B, steered_B).tolist() == [True, False, True, True]


def test_the_limit_of_a_steered_rollout():
    assert steered_limit(4096) == 512
    assert steered_limit(256) == 256
    assert steered_limit(4096, 1000) == 1000
    assert steered_limit(900, 1000) == 900
