"""What the gradient of reinforcement learning is of; without the trainer, whose libraries take seconds to import."""

from __future__ import annotations

from dataclasses import dataclass, field

from qscope.posttraining.dapo import Clip, Ratio
from qscope.posttraining.importance import Importance
from qscope.posttraining.interactions import Exemption

#: What :class:`~qscope.posttraining.rl_trainer.RlTrainer` does otherwise for steered rollouts.
EXEMPTS = frozenset(Exemption)


@dataclass(frozen=True)
class Objective:
    """What the gradient is of.

    Attributes:
        clip: bounds of ratios.
        ratio: of steered rollouts.
        importance: gap between sampler and trainer.
        min_token_prob: steered tokens that the plain model finds less likely get no loss; 0 keeps all.
    """

    clip: Clip = field(default_factory=Clip)
    ratio: Ratio = Ratio.UNSTEERED
    importance: Importance = field(default_factory=Importance)
    min_token_prob: float = 0.0
