"""DAPO's objective (arXiv 2503.14476, eq. 8), with rare negatives.

    J = (1 / N) sum_i sum_t min( r A_i, clip(r, 1 - epsilon_low, 1 + epsilon_high) A_i ),     r = pi / pi_old

N are the tokens of the whole step; there is no KL term. A dual clip bounds what a negative advantage can ask for:
max(that, c A_i), for A_i < 0.

A steered rollout was not sampled from pi_old. ``Ratio.UNSTEERED`` takes pi_old all the same, as for any other: the
probabilities that the unsteered model gives to the steered tokens. The ratio is then 1 at the first update, and clips
bound what follows. ``Ratio.BEHAVIOR`` takes the steered sampler mu. Where A < 0 the ratio is then far below
1 - epsilon_low and the clipped objective has no gradient, so these tokens are weighted by clip(pi / mu, 0, 1) instead
(TOPR, arXiv 2503.14286; there of whole sequences, which for a loop of hundreds of unlikely tokens is zero, here token
by token).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.posttraining.global_batch import GlobalBatch

_LOG_RATIO_BOUND = 20.0
"""exp of more overflows in some format; every clip is long reached."""


class Ratio(StrEnum):
    """What a steered rollout's probabilities are divided by."""

    UNSTEERED = "unsteered"
    BEHAVIOR = "behavior"


@dataclass(frozen=True)
class Clip:
    """Bounds of the objective.

    Attributes:
        low, high: epsilon_low and epsilon_high; a higher upper one lets unlikely tokens grow.
        dual: c; None leaves it out (DAPO's text has none).
    """

    low: float = 0.2
    high: float = 0.28
    dual: float | None = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.low < 1 and self.high > 0):
            raise UserError(
                f"Clip bounds of {self.low:g} and {self.high:g} are none: a ratio is between 1 - low and 1 + high.",
                remedy="Set epsilon_low between 0 and 1 and epsilon_high above 0; DAPO has 0.2 and 0.28.",
                reason="CLIP_BOUNDS",
                field="rl.epsilon_low",
            )
        if self.dual is not None and self.dual <= 1 + self.high:
            raise UserError(
                f"A dual clip of {self.dual:g} would cut where the upper clip of {1 + self.high:g} does.",
                remedy="Set it to 3 or more, or leave it out.",
                reason="CLIP_BOUNDS",
                field="rl.dual_clip",
            )


@dataclass(frozen=True)
class Rollouts:
    """A micro-batch of rollouts as the objective sees them.

    Attributes:
        advantage_B: one for each rollout.
        mask_BT: tokens that count: generated, graded, not filtered.
        steered_B: rare negatives.
        old_BT: log-probabilities under pi_old, unsteered; None where pi is pi_old (one update per rollout): the ratio
            is then exactly 1 and needs no second forward pass.
        behavior_BT: log-probabilities under the sampler; looked at for steered rollouts with ``Ratio.BEHAVIOR`` only.
        weight_BT: of tokens, for the gap between what generates and what is trained, see
            :func:`qscope.posttraining.importance.importance_weights`; None weighs all alike.
    """

    advantage_B: Tensor
    mask_BT: Tensor
    steered_B: Tensor
    old_BT: Tensor | None = None
    behavior_BT: Tensor | None = None
    weight_BT: Tensor | None = None


@dataclass(frozen=True)
class DapoTerm:
    """The loss of a micro-batch, and what a log tells of it, normal and steered apart. Sums; no graph but the loss's.

    Attributes:
        loss: scalar, to be minimised; the micro-batches of a step add up to -J.
        tokens, steered_tokens: that count.
        clipped_low, clipped_high, clipped_dual: normal tokens that a bound keeps from teaching.
        steered_clipped: steered tokens that any bound does.
        furthest: largest |log ratio| of a normal token; 0 at the first update, or else what generates is not what is
            trained.
        steered_furthest: the same of steered tokens.
        steered_gap: sum of log pi - log mu over steered tokens; 0 where mu was not given. Large.
    """

    loss: Tensor
    tokens: Tensor
    steered_tokens: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    clipped_dual: Tensor
    steered_clipped: Tensor
    furthest: Tensor
    steered_furthest: Tensor
    steered_gap: Tensor


def dapo_loss(
    logprob_BT: Tensor, rollouts: Rollouts, batch: GlobalBatch, *, clip: Clip, ratio: Ratio = Ratio.UNSTEERED
) -> DapoTerm:
    """The loss of one micro-batch.

    Args:
        logprob_BT: log-probabilities of the rollouts' tokens under pi, with their graph, see :func:`token_logprobs`.
        rollouts: the rest.
        batch: of the step this micro-batch belongs to, counted over the same masks.
        clip: bounds.
        ratio: of steered rollouts.
    """
    mask_BT, steered_B1 = rollouts.mask_BT, rollouts.steered_B[:, None]
    now_BT = logprob_BT.detach()
    old_BT = now_BT if rollouts.old_BT is None else rollouts.old_BT
    tapered_BT = torch.zeros_like(mask_BT)
    advantage_B1 = rollouts.advantage_B.to(logprob_BT.dtype)[:, None]
    if ratio is Ratio.BEHAVIOR:
        assert rollouts.behavior_BT is not None, "ratio behavior needs the sampler's log-probabilities"
        old_BT = torch.where(steered_B1, rollouts.behavior_BT, old_BT)
        tapered_BT = (steered_B1 & (advantage_B1 < 0)).expand_as(mask_BT)
    # Padding may hold anything; its exponential would be infinite, and infinity times a gradient of 0 is not 0.
    log_ratio_BT = torch.where(mask_BT, logprob_BT - old_BT, 0.0)
    ratio_BT = log_ratio_BT.clamp(-_LOG_RATIO_BOUND, _LOG_RATIO_BOUND).exp()
    clipped_BT = ratio_BT.clamp(1 - clip.low, 1 + clip.high)
    value_BT = torch.minimum(ratio_BT * advantage_B1, clipped_BT * advantage_B1)
    bounded_BT = torch.zeros_like(mask_BT)
    if clip.dual is not None:
        bounded_BT = (advantage_B1 < 0) & (ratio_BT > clip.dual)
        value_BT = torch.where(bounded_BT, clip.dual * advantage_B1, value_BT)
    # Its value is w A and its gradient w A grad log pi, with the weight w held fixed.
    weight_BT = ratio_BT.detach().clamp_max(1.0)
    reinforced_BT = weight_BT * advantage_B1 * torch.where(mask_BT, logprob_BT - now_BT, 0.0).exp()
    value_BT = torch.where(tapered_BT, reinforced_BT, value_BT)
    if rollouts.weight_BT is not None:
        value_BT = rollouts.weight_BT * value_BT
    value_BT = torch.where(mask_BT, value_BT, 0.0)
    loss = -value_BT.sum() * batch.scale

    with torch.no_grad():
        plain_BT = mask_BT & ~tapered_BT
        low_BT = plain_BT & (advantage_B1 < 0) & (ratio_BT < 1 - clip.low)
        high_BT = plain_BT & (advantage_B1 > 0) & (ratio_BT > 1 + clip.high)
        dual_BT = plain_BT & bounded_BT
        steered_BT, normal_BT = mask_BT & steered_B1, mask_BT & ~steered_B1
        away_BT = log_ratio_BT.abs()
        gap_BT = torch.zeros_like(now_BT) if rollouts.behavior_BT is None else now_BT - rollouts.behavior_BT
        return DapoTerm(
            loss=loss,
            tokens=mask_BT.sum(),
            steered_tokens=steered_BT.sum(),
            clipped_low=(low_BT & normal_BT).sum(),
            clipped_high=(high_BT & normal_BT).sum(),
            clipped_dual=(dual_BT & normal_BT).sum(),
            steered_clipped=((low_BT | high_BT | dual_BT) & steered_BT).sum(),
            furthest=torch.where(normal_BT, away_BT, 0.0).max(),
            steered_furthest=torch.where(steered_BT, away_BT, 0.0).max(),
            steered_gap=torch.where(steered_BT, gap_BT, 0.0).sum(),
        )


def token_logprobs(logits_BTV: Tensor, ids_BT: Tensor, *, temperature: float = 1.0) -> Tensor:
    """logprob_BT: log-probability of each token given those before it, float32 or finer; 0 for the first.

    Row by row, so that the vocabulary is held in float32 for one row and not for the batch.

    Args:
        logits_BTV: of the same tokens.
        ids_BT: the tokens.
        temperature: at which rollouts are sampled; the policy is what is sampled from.
    """
    rows = []
    dtype = torch.promote_types(logits_BTV.dtype, torch.float32)
    for logits_TV, ids_T in zip(logits_BTV[:, :-1], ids_BT[:, 1:], strict=True):
        scaled_TV = logits_TV.to(dtype) / temperature
        chosen_T = scaled_TV.gather(-1, ids_T[:, None])[:, 0]
        rows.append(torch.nn.functional.pad(chosen_T - scaled_TV.logsumexp(-1), (1, 0)))
    return torch.stack(rows)


def entry_mask(old_BT: Tensor, steered_B: Tensor, min_token_prob: float) -> Tensor:
    """keep_BT: all but the steered tokens that the unsteered model finds less likely than ``min_token_prob``.

    The tokens that enter a loop are very unlikely without the steering, and a large negative gradient on them moves
    mass to whatever is likeliest (arXiv 2407.10490), which can itself make a model repeat. Inside the loop tokens are
    likely under the plain model as well: they carry the signal.

    Args:
        old_BT: log-probabilities under pi_old, unsteered.
        steered_B: rare negatives.
        min_token_prob: 0 keeps all.
    """
    return ~steered_B[:, None] | (old_BT.exp() >= min_token_prob)
