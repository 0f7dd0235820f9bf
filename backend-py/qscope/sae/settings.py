"""Numbers of a training run that the experiment leaves to be derived ("0 takes ...")."""

from __future__ import annotations

import math

from qscope.errors import UserError
from qscope.v1 import sae_pb2

MOST_DEAD_AFTER_TOKENS = 10_000_000
"""Silence after which Gao et al. and dictionary_learning call a feature dead."""

FEWEST_DEAD_AFTER_BATCHES = 20

MOST_WARMUP_STEPS = 1000


def feature_count(shape: sae_pb2.SaeShape, d_in: int) -> int:
    """``d_sae``: given, or ``expansion x d_in``.

    Raises:
        UserError: K_EXCEEDS_WIDTH when fewer than k features exist.
    """
    d_sae = shape.d_sae or shape.expansion * d_in
    if shape.k > d_sae:
        raise UserError(
            f"k is {shape.k}, but an SAE of width {d_in} and expansion {shape.expansion} has only {d_sae} features.",
            remedy=f"Choose k of at most {d_sae}, or a larger expansion.",
            reason="K_EXCEEDS_WIDTH",
            field="train_sae.sae.k",
        )
    return d_sae


def peak_learning_rate(optimizer: sae_pb2.SaeOptimizer, d_sae: int) -> float:
    """Given, or ``2e-4 / sqrt(d_sae / 2^14)`` (dictionary_learning's scaling rule)."""
    return optimizer.learning_rate or 2e-4 / math.sqrt(d_sae / 16384)


def dead_after_tokens(aux_k: sae_pb2.AuxK, run_tokens: int, batch_tokens: int) -> int:
    """Tokens of silence that make a feature dead: given, or 1 % of the run, within 20 batches and 10 million tokens.

    Twenty batches keep short runs from calling nearly every feature dead before it had a chance to fire.
    """
    derived = min(MOST_DEAD_AFTER_TOKENS, max(run_tokens // 100, FEWEST_DEAD_AFTER_BATCHES * batch_tokens))
    return aux_k.dead_after_tokens or derived


def aux_features_per_token(aux_k: sae_pb2.AuxK, d_in: int) -> int:
    """``k_aux``: given, or ``d_in / 2``."""
    return aux_k.k or max(1, d_in // 2)


def warmup_steps(optimizer: sae_pb2.SaeOptimizer, total_steps: int) -> int:
    """Steps of the warm-up: its share of the run, 1,000 at most."""
    return min(MOST_WARMUP_STEPS, math.ceil(optimizer.warmup_share * total_steps))


def learning_rate_at(step: int, total_steps: int, optimizer: sae_pb2.SaeOptimizer, peak: float) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, constant, linear decay.

    The warm-up reaches the peak with its last step and takes at most 1,000 steps. The decay reaches zero after the
    last step of the run: ``learning_rate_at(total_steps) == 0``, and no step is made with a rate of zero.
    """
    warmup = warmup_steps(optimizer, total_steps)
    decay = math.ceil(optimizer.decay_share * total_steps)
    rising = (step + 1) / warmup if step < warmup else 1.0
    falling = max(0, total_steps - step) / decay if decay and step > total_steps - decay else 1.0
    if step >= total_steps:
        return 0.0
    return peak * min(rising, falling)


def step_count(task: sae_pb2.TrainSae) -> int:
    """Steps of the run: every step takes a whole batch, and at least ``tokens`` are seen."""
    return math.ceil(task.tokens / task.batch_tokens)
